"""A small text for all presets, and how they are made small."""

from dataclasses import replace
from pathlib import Path

import pytest

from tinygpt import ModelConfig, TrainConfig, load_corpus
from tinygpt.corpora import Corpus
from tinygpt.corpora.tinyplays import write_plays
from tinygpt.presets import Preset


@pytest.fixture(scope="session")
def plays(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("text") / "plays.txt")


def write_corpus(path: Path) -> Corpus:
    """The beginning of tinyplays, 60,000 characters, in a file of its own."""
    path.write_text(write_plays(60_000).text, encoding="utf-8", newline="\n")
    return load_corpus(f"file:{path}")


def shrunk(preset: Preset, vocab_size: int) -> tuple[ModelConfig, TrainConfig]:
    """The same parts in the same places, few and narrow; trained alike, in a few updates."""
    model, train = preset.model, preset.train
    width = None if model.n_inner is None else 24
    experts = model.moe and replace(model.moe, n_inner=model.moe.n_inner and 12)
    sizes = {"block_size": 16, "n_layer": 2, "n_head": 2, "n_embd": 16, "n_inner": width}
    sizes["bigrams"] = min(model.bigrams, 99)
    rounds = min(train.grad_accum_steps, 2)
    train = replace(train, max_steps=4, batch_size=4, grad_accum_steps=rounds, eval_interval=2)
    train = replace(train, warmup_steps=1, compile=False, device="cpu", max_eval_tokens=256)
    return replace(model, vocab_size=vocab_size, moe=experts, **sizes), train
