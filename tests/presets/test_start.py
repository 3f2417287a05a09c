"""What the presets' weights start from."""

import math
from dataclasses import replace

import pytest
import torch

from tinygpt import TinyGPT
from tinygpt.presets import PRESETS

CHOSEN = ["sparse-158m", "ptbr-moe-8x2", "gpt2-medium", "gpt2-moe"]


@pytest.mark.parametrize("name", CHOSEN)
def test_weights_start_normal_and_outputs_smaller_the_deeper(name):
    """Expert by expert: numbers drawn for a whole stack, as if E were inputs, would be smaller."""
    torch.manual_seed(0)
    config = replace(PRESETS[name].model, vocab_size=512, block_size=64, n_layer=2)
    for name, p in TinyGPT(config).named_parameters():
        if name.endswith("bias"):
            assert not p.any(), name
        elif p.dim() == 1:
            assert (p == 1).all(), name
        else:
            wanted = 0.02 / math.sqrt(2 * 2) if name.endswith("c_proj.weight") else 0.02
            for matrix in p.detach().view(-1, *p.shape[-2:]):
                spread = 4 / math.sqrt(2 * matrix.numel())  # four standard errors
                assert matrix.std().item() == pytest.approx(wanted, rel=spread), name
                assert abs(matrix.mean().item()) < 5 * wanted / math.sqrt(matrix.numel())


@pytest.mark.parametrize("name", CHOSEN)
def test_the_first_loss_is_that_of_guessing(name):
    """Of the whole vocabulary; an untied head of C channels gives logits of 0.02 sqrt(C)."""
    torch.manual_seed(0)
    config = replace(PRESETS[name].model, n_layer=1, block_size=16)
    config = replace(config, vocab_size=20_000)
    model, idx = TinyGPT(config).eval(), torch.randint(20_000, (4, 17))
    with torch.inference_mode():
        out = model(idx[:, :-1], idx[:, 1:])
    spread = (0.02**2 * config.n_embd) / 2
    assert out.lm_loss.item() == pytest.approx(math.log(20_000) + spread, abs=0.15)
    assert out.logits.std().item() == pytest.approx(0.02 * math.sqrt(config.n_embd), rel=0.1)
