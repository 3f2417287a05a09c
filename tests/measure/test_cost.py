from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tinygpt import PRESETS, TinyGPT
from tinygpt.measure import count_parameters, flops_per_token

from ..tools import LLAMA, SHAPE, model_of, moe_config, random_ids


@pytest.mark.parametrize("shape", [SHAPE, LLAMA], ids=["gelu", "swiglu"])
@pytest.mark.parametrize("top_k", [1, 2, 4])
@pytest.mark.parametrize("moe", [{}, {"n_shared": 2, "shared_gate": True, "n_inner": 12}])
def test_active_parameters_are_those_that_one_token_meets(shape, top_k, moe):
    """Counted by running one token and seeing which numbers get a gradient."""
    shape = replace(shape, n_layer=3, tie_embeddings=False)
    model = model_of(shape, **moe, top_k=top_k, first_dense=1)
    count = count_parameters(model)
    assert count.total == sum(p.numel() for p in model.parameters())
    used = 0
    for name, p in model.named_parameters():
        stacked = "experts" in name
        used += p[:top_k].numel() if stacked else p.numel()
    assert count.active == used
    assert (count.active == count.total) == (top_k == 4)
    model(random_ids(1, 1)).logits.square().sum().backward()
    rows = [p.grad.flatten(1).abs().amax(1) for n, p in model.named_parameters() if "experts" in n]
    assert rows
    assert all((row > 0).sum() == top_k for row in rows)


@pytest.mark.parametrize("dispatch", ["loop", "split"])
@pytest.mark.parametrize(
    "moe", [{}, {"top_k": 2, "n_shared": 1, "shared_gate": True, "n_inner": 24}, {"every": 2}]
)
def test_flops_of_experts_equal_torchs_own_counter(moe, dispatch):
    model = TinyGPT(moe_config(replace(SHAPE, n_embd=32), **moe, dispatch=dispatch))
    idx = random_ids(2)
    with FlopCounterMode(display=False) as forward:
        loss = model(idx, idx, return_attention=True).loss
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    assert forward.get_total_flops() == idx.numel() * flops_per_token(model, training=False)
    both = forward.get_total_flops() + backward.get_total_flops()
    assert both == idx.numel() * flops_per_token(model)


def test_parameters_of_the_tiny_model_by_hand():
    V, T, C, layers = 65, 32, 64, 2
    block = 12 * C * C + 13 * C  # weights; biases and two norms
    count = count_parameters(TinyGPT(PRESETS["tiny"].model))
    assert count.embedding == V * C + T * C
    assert count.total == count.active == V * C + T * C + layers * block + 2 * C
    untied = count_parameters(TinyGPT(replace(PRESETS["tiny"].model, tie_embeddings=False)))
    assert untied.total == count.total + V * C


@pytest.mark.parametrize("heads", [{"n_kv_head": 1}, {"n_kv_head": 2, "head_dim": 24}])
def test_flops_of_grouped_queries_equal_torchs_own_counter(heads):
    model, idx = TinyGPT(replace(LLAMA, n_head=4, **heads)), random_ids(2)
    with FlopCounterMode(display=False) as forward:
        model(idx, return_attention=True)
    assert forward.get_total_flops() == idx.numel() * flops_per_token(model, training=False)


def test_bigrams_and_shifts_are_counted():
    plain = count_parameters(TinyGPT(SHAPE))
    model = TinyGPT(replace(SHAPE, bigrams=101, token_shift=True))
    count = count_parameters(model)
    assert count.embedding == plain.embedding + 101 * 16
    assert count.total == count.active == plain.total + 101 * 16 + 2 * 16
    assert flops_per_token(model) == flops_per_token(TinyGPT(SHAPE))  # they multiply no matrices


@pytest.mark.parametrize("preset", ["tiny", "modern", "speedrun", "laptop"])
def test_flops_equal_torchs_own_counter(preset):
    config = PRESETS[preset].model
    model, idx = TinyGPT(config), torch.randint(65, (2, config.block_size))
    with FlopCounterMode(display=False) as forward:
        loss = model(idx, idx, return_attention=True).loss
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    assert forward.get_total_flops() == idx.numel() * flops_per_token(model, training=False)
    both = forward.get_total_flops() + backward.get_total_flops()
    assert both == idx.numel() * flops_per_token(model)
