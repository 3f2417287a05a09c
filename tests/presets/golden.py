"""First losses of the character presets: `python -m tests.presets.golden` stores them anew.

On tinyplays, in float32 and one thread on a CPU; the large models are made narrow, and none drops
anything, since other processors draw other dropout masks.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch

from tinygpt import ModelConfig, TinyGPT, TrainConfig, Trainer
from tinygpt.corpora import Corpus
from tinygpt.presets import PRESETS
from tinygpt.runtime import seed_all

FILE = Path(__file__).parents[1] / "data" / "golden_losses.json"
UPDATES = 20
NAMES = [name for name, preset in PRESETS.items() if preset.tokenizer == "char"]
NARROW = {"block_size": 64, "n_layer": 2, "n_head": 2, "n_embd": 64}


def settings(name: str, vocab_size: int) -> tuple[ModelConfig, TrainConfig]:
    model, train = PRESETS[name].model, PRESETS[name].train
    train = replace(train, device="cpu", precision="fp32", compile=False)
    if name.startswith(("laptop", "baby")):
        experts = model.moe and replace(model.moe, n_inner=88)
        model, train = replace(model, **NARROW, moe=experts), replace(train, batch_size=8)
    return replace(model, vocab_size=vocab_size, dropout=0.0), train


def first_losses(name: str, corpus: Corpus) -> list[float]:
    """Cross-entropy in nats per character of each of the first updates' batches."""
    model, train = settings(name, corpus.tokenizer.vocab_size)
    seed_all(train.seed)
    trainer = Trainer(TinyGPT(model), corpus, train)
    return [trainer.train_step() for _ in range(UPDATES)]


def stored() -> dict[str, list[float]]:
    return json.loads(FILE.read_text(encoding="utf-8"))["losses"]


if __name__ == "__main__":
    from .conftest import write_corpus

    torch.set_num_threads(1)
    text = write_corpus(Path(sys.argv[1] if len(sys.argv) > 1 else "plays.txt"))
    losses = {name: [round(x, 6) for x in first_losses(name, text)] for name in NAMES}
    content = {"torch": torch.__version__, "updates": UPDATES, "losses": losses}
    FILE.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
