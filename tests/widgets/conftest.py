import numpy as np
import pytest
import torch

from tinygpt import ModelConfig, MoEConfig, TinyGPT
from tinygpt.decoding import Processor
from tinygpt.text import Tokenizer
from tinygpt.widgets.stages import Stage

from ..tools import byte_tokenizer, subword_tokenizer


@pytest.fixture
def short(monkeypatch):
    """Texts of a few tokens only."""
    monkeypatch.setattr("tinygpt.widgets.playground.WRITTEN", 10)
    monkeypatch.setattr("tinygpt.widgets.routing.WRITTEN", 10)
    monkeypatch.setattr("tinygpt.widgets.attention.WRITTEN", 10)


@pytest.fixture
def model(corpus):
    """One layer of noise; the longer texts go past its block."""
    torch.manual_seed(0)
    V = corpus.tokenizer.vocab_size
    model = TinyGPT(ModelConfig(vocab_size=V, block_size=40, n_layer=1, n_head=2, n_embd=16))
    model.tokenizer = corpus.tokenizer
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p), alpha=0.2)
    return model


@pytest.fixture
def stage():
    """Makes a stage of the step with this name and value; what has no probability was cut."""

    def make(name, value, p, kept=None):
        step = Processor(name, value, lambda x, tokens, n: x) if name else None
        p = np.array(p)
        return Stage(step, p, p > 0 if kept is None else np.array(kept))

    return make


def noise(tokenizer: Tokenizer) -> TinyGPT:
    """Noise with experts, over the tokens of a tokenizer."""
    torch.manual_seed(0)
    moe = MoEConfig(n_experts=4)
    model = TinyGPT(ModelConfig(tokenizer.vocab_size, 24, n_layer=2, n_head=2, n_embd=16, moe=moe))
    model.tokenizer = tokenizer
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p), alpha=0.2)
    return model.eval()


@pytest.fixture
def byte_model():
    """Tokens that are several characters or a part of one."""
    return noise(byte_tokenizer())


@pytest.fixture
def subword_model():
    """The tokens of a trained tokenizer."""
    return noise(subword_tokenizer())
