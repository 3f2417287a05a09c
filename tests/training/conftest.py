import pytest
import torch

from tinygpt import TinyGPT, TrainConfig, Trainer


@pytest.fixture
def run(small, corpus, tmp_path):
    """A run of 30 steps with checkpoints at 10, 20, 30 (the last two kept)."""
    torch.manual_seed(0)
    config = TrainConfig(max_steps=30, batch_size=4, eval_interval=10, warmup_steps=2)
    Trainer(TinyGPT(small), corpus, config, tmp_path / "run").fit(progress=False)
    return tmp_path / "run"
