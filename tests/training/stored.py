"""Two tiny runs in the checkpoint format of today: `python -m tests.training.stored` writes them.

To be called once when the format changes; those of formats before stay as they were written.
"""

import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from tinygpt import ModelConfig, MoEConfig, TinyGPT, TrainConfig, Trainer, load_corpus
from tinygpt.runtime import seed_all
from tinygpt.training.checkpoint import FORMAT

from ..conftest import LINES

DATA = Path(__file__).parents[1] / "data"
GPT2 = ModelConfig(block_size=8, n_layer=1, n_head=2, n_embd=8)
EXPERTS = ModelConfig(
    block_size=8,
    n_layer=2,
    n_head=2,
    n_embd=8,
    norm="rmsnorm",
    position="rope",
    mlp="swiglu",
    qk_norm=True,
    tie_embeddings=False,
    attn_bias=False,
    bigrams=50,
    token_shift=True,
    moe=MoEConfig(top_k=2, norm_topk_prob=True, n_inner=8, n_shared=1, first_dense=1),
)
TRAIN = TrainConfig(
    max_steps=6, batch_size=4, eval_interval=6, warmup_steps=2, keep_last=1, device="cpu"
)
RUNS = {"gpt2": (GPT2, TRAIN), "experts": (EXPERTS, replace(TRAIN, optimizer="muon"))}


def a_window() -> torch.Tensor:
    return torch.arange(8)[None] * 2


def go_on(trainer: Trainer) -> list[float]:
    """The losses of the next updates."""
    return [trainer.train_step() for _ in range(4)]


def write(folder: Path, text: str) -> None:
    """Both runs, and beside each the logits of a window and the losses of four updates more."""
    corpus = load_corpus(f"file:{text}")
    for name, (model, train) in RUNS.items():
        seed_all(0)
        model = TinyGPT(replace(model, vocab_size=corpus.tokenizer.vocab_size))
        trainer = Trainer(model, corpus, train, folder / name)
        trainer.fit(progress=False)
        with torch.inference_mode():
            logits = model(a_window()).logits[0].tolist()
        (folder / name / ".lock").unlink(missing_ok=True)
        with tempfile.TemporaryDirectory() as copy:
            shutil.copytree(folder / name, Path(copy) / name)
            longer = replace(train, max_steps=20)
            losses = go_on(Trainer.resume(Path(copy) / name, corpus, longer))
        content = json.dumps({"logits": logits, "losses": losses}) + "\n"
        (folder / f"{name}.json").write_text(content, encoding="utf-8")


if __name__ == "__main__":
    torch.set_num_threads(1)
    target = DATA / f"format_{FORMAT}"
    target.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as temporary:
        lines = Path(temporary) / "lines.txt"
        lines.write_text((LINES * 60)[:5000], encoding="utf-8", newline="\n")
        write(target, str(lines))
