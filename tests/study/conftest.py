"""A study that takes a second."""

from dataclasses import replace

import pytest

from tinygpt import ModelConfig, TrainConfig
from tinygpt.study import ARMS, COMPARISONS, Design, Study, open_study

SMALL = Design(
    "small",
    ARMS,
    COMPARISONS,
    ModelConfig(block_size=16, n_layer=2, n_head=2, n_embd=16),
    TrainConfig(max_steps=4, batch_size=2, warmup_steps=1),
    seeds=2,
    looks=2,
    factors=(1.0, 2.0),
    sweep_updates=2,
    rounds=3,
)


@pytest.fixture
def make_study(corpus, tmp_path):
    """Studies of `dense` and `top-1` in one folder, unless otherwise said."""

    def make(design=SMALL, arms=("dense", "top-1"), **options) -> Study:
        options = {"corpus": corpus.name, "device": "cpu"} | options
        return open_study(design, tmp_path / "study", arms, **options)

    return make


@pytest.fixture
def plain():
    """The study without a sweep of learning rates."""
    return replace(SMALL, factors=(1.0,))
