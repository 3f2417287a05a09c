import shutil

import pytest
import torch

from tinygpt import ModelConfig, TinyGPT, TrainConfig, Trainer


@pytest.fixture(scope="session")
def trained_once(corpus, tmp_path_factory):
    """What `run` gives a copy of."""
    torch.manual_seed(0)
    shape = ModelConfig(
        vocab_size=corpus.tokenizer.vocab_size, block_size=16, n_layer=2, n_head=2, n_embd=16
    )
    config = TrainConfig(max_steps=30, batch_size=4, eval_interval=10, warmup_steps=2)
    folder = tmp_path_factory.mktemp("trained") / "run"
    Trainer(TinyGPT(shape), corpus, config, folder).fit(progress=False)
    return folder


@pytest.fixture
def run(trained_once, tmp_path):
    """A run of 30 steps with checkpoints at 10, 20, 30 (the last two kept)."""
    return shutil.copytree(trained_once, tmp_path / "run")


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Where names of runs lead to."""
    monkeypatch.setattr("tinygpt.training.run.RUNS", tmp_path)
    return tmp_path
