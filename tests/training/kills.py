"""A short training, killed before every one of its file operations: `test_faults.py` runs this.

Each attempt is a process of its own, forked from one that has loaded everything and computes
nothing itself.
"""

import os
import shutil
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from tinygpt import ModelConfig, MoEConfig, TinyGPT, TrainConfig, Trainer, load_corpus, load_run
from tinygpt.corpora import Corpus
from tinygpt.files import sha256
from tinygpt.plots import plot_convergence
from tinygpt.training import (
    MetricsLogger,
    checkpoint,
    checkpoints,
    folder,
    load_expert_tables,
    tensors,
)

CONFIG = TrainConfig(
    max_steps=2, eval_interval=1, batch_size=2, warmup_steps=1, keep_last=1, max_eval_tokens=64
)
SHAPE = ModelConfig(block_size=8, n_layer=1, n_head=1, n_embd=8, dropout=0.1, moe=MoEConfig())
EVENTS = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "os.truncate"}


def train(run: Path, corpus: Corpus) -> None:
    """What a user does: start a run, or go on with it if there is something to go on with."""
    if checkpoints(run):
        trainer = Trainer.resume(run, corpus)
    else:
        torch.manual_seed(0)
        model = TinyGPT(replace(SHAPE, vocab_size=corpus.tokenizer.vocab_size))
        trainer = Trainer(model, corpus, CONFIG, run)
    trainer.fit(progress=False)


def watch(at: Callable[[], None]) -> None:
    """Call `at` before every operation of this process that changes a file."""

    def hook(event: str, arguments: tuple) -> None:
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & 3
        if event in EVENTS or writes:
            at()

    def in_halves(save: Callable) -> Callable:
        """It writes outside of Python: killed before, and half-way through."""

        def call(content, path, **options):
            at()
            save(content, path, **options)
            whole = Path(path).read_bytes()
            with open(path, "wb") as file:
                file.write(whole[: len(whole) // 2])
            at()
            Path(path).write_bytes(whole)

        return call

    os.fsync = lambda descriptor: at()
    for module, name in ((tensors, "save_model"), (checkpoint, "save_file"), (folder, "save_file")):
        setattr(module, name, in_halves(getattr(module, name)))
    sys.addaudithook(hook)


def forked(function: Callable[[], None]) -> int:
    """Run a function in a process of its own; its exit code, or minus the signal it died of."""
    child = os.fork()
    if not child:
        try:
            function()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_at(number: int, run: Path, corpus: Corpus) -> bool:
    """Train, and die before the operation of this number; whether it came to that."""
    left = [number]

    def count() -> None:
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def attempt() -> None:
        watch(count)
        train(run, corpus)

    code = forked(attempt)
    assert code in (0, -signal.SIGKILL), f"operation {number} ended with {code}"
    return code != 0


def outcome(run: Path) -> dict:
    """All that a run has come to; also that nothing else is there."""
    columns = {"seconds", "tokens_per_s"}
    rows = MetricsLogger(run / "metrics.csv").rows
    names = {str(p.relative_to(run)) for p in run.rglob("*") if not p.name.startswith(".lock")}
    return {
        "files": sorted(names),
        "rows": repr([{k: v for k, v in row.items() if k not in columns} for row in rows]),
        "tables": {k: v.tolist() for k, v in load_expert_tables(run).items()},
        "weights": [sha256(path / "model.safetensors") for path in checkpoints(run)],
        "training": [sha256(path / "training.safetensors") for path in checkpoints(run)],
    }


def main(base: Path) -> None:
    warnings.simplefilter("error")  # nothing is passed over, or set aside
    torch.set_num_threads(1)
    os.fsync = lambda descriptor: None  # slow, and it is no power cut
    plot_convergence(pd.DataFrame([dict.fromkeys(MetricsLogger.COLUMNS, 1.0)]))  # finds its fonts
    torch.optim.AdamW([torch.zeros(1)])  # imports what the attempts would import one by one
    text = base / "text.txt"
    text.write_text("the cat sat on the mat and the dog sat on the log\n" * 8, encoding="utf-8")
    corpus = load_corpus(f"file:{text}")
    assert forked(lambda: train(base / "whole", corpus)) == 0
    whole, run, number = outcome(base / "whole"), base / "run", 0
    while killed_at(number, run, corpus):
        if checkpoints(run):  # they can be read as they are
            load_run(run)
            load_run(run, which="latest")
        if number % 5 == 0:  # killed again, while it is taken up
            killed_at(number // 5, run, corpus)
        assert forked(lambda: train(run, corpus)) == 0, f"after operation {number}"
        assert outcome(run) == whole, f"after operation {number}"
        shutil.rmtree(run)
        number += 1
    print(f"killed at {number} points")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
