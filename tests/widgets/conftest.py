import pytest
import torch

from tinygpt import ModelConfig, TinyGPT
from tinygpt.widgets import attention_explorer


@pytest.fixture
def explorer(small, corpus):
    torch.manual_seed(0)
    model = TinyGPT(small).eval()
    model.tokenizer = corpus.tokenizer
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p), alpha=0.2)
    return attention_explorer(model, "the cat sat")


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
