"""The estimates against what torch's allocator says that it gave out."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from tinygpt import PRESETS, ModelConfig, MoEConfig, TinyGPT, TrainConfig
from tinygpt.measure import inference_memory, training_memory
from tinygpt.model import KVCache
from tinygpt.runtime import shapes_only
from tinygpt.training import make_optimizers

GPT2 = ModelConfig(vocab_size=65, block_size=64, n_layer=3, n_head=4, n_embd=64)
LLAMA = replace(
    GPT2,
    n_kv_head=2,
    norm="rmsnorm",
    position="rope",
    mlp="swiglu",
    tie_embeddings=False,
    attn_bias=False,
    mlp_bias=False,
)
TWO_OF_EIGHT = MoEConfig(n_experts=8, top_k=2, norm_topk_prob=True, n_inner=128, dispatch="split")
SHAPES = {
    "gpt2": replace(GPT2, dropout=0.1),
    "large vocabulary": replace(GPT2, vocab_size=3000),
    "llama": LLAMA,
    "modern": replace(PRESETS["modern"].model, n_layer=2),
    "laptop": replace(PRESETS["laptop"].model, block_size=64, n_layer=2),
    "top-1": replace(GPT2, moe=MoEConfig(dispatch="split")),
    "top-2": replace(LLAMA, moe=TWO_OF_EIGHT),
}


def allocated(run: Callable[[], None]) -> tuple[int, int]:
    """The most bytes in use at once while `run` runs, and what it leaves, beyond what was there."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    most = now = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most, now


def update(model: TinyGPT, train: TrainConfig, optimizers: list, bf16: bool = False) -> None:
    shape, config = (train.batch_size, model.config.block_size), model.config
    idx = torch.zeros(shape, dtype=torch.long).random_(config.vocab_size)
    for optimizer in optimizers:
        optimizer.zero_grad()
    for _ in range(train.grad_accum_steps):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            out = model(idx, idx)
        out.loss.backward()
    for optimizer in optimizers:
        optimizer.step()


@pytest.mark.parametrize(("rounds", "optimizer"), [(1, "muon"), (2, "adamw")])
@pytest.mark.parametrize("shape", SHAPES)
def test_an_update_takes_what_was_estimated(shape, rounds, optimizer):
    torch.manual_seed(0)
    model = TinyGPT(SHAPES[shape]).train()
    train = TrainConfig(batch_size=8, grad_accum_steps=rounds, optimizer=optimizer)
    with shapes_only():
        expected = training_memory(TinyGPT(SHAPES[shape]), train)
    optimizers = make_optimizers(model, train)
    weights = sum(p.nbytes for p in model.parameters())
    assert weights == expected.weights
    _, left = allocated(lambda: update(model, train, optimizers))
    averages = left - weights  # gradients are left, too
    assert averages == pytest.approx(expected.optimizer, rel=0.01)
    for optimizer in optimizers:
        optimizer.zero_grad()
    most, _ = allocated(lambda: update(model, train, optimizers))
    assert weights + averages + most == pytest.approx(expected.total, rel=0.04)


@pytest.mark.parametrize("shape", ["gpt2", "large vocabulary", "llama", "top-2"])
def test_an_update_in_bf16_takes_what_was_estimated(shape):
    torch.manual_seed(0)
    model = TinyGPT(SHAPES[shape]).train()
    train = TrainConfig(batch_size=16, grad_accum_steps=2)
    optimizers = make_optimizers(model, train)
    update(model, train, optimizers, bf16=True)
    for optimizer in optimizers:
        optimizer.zero_grad()
    most, _ = allocated(lambda: update(model, train, optimizers, bf16=True))
    expected = training_memory(model, train, bf16=True)
    assert most == pytest.approx(expected.gradients + expected.activations, rel=0.15)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_writing_takes_what_was_estimated(shape, bf16):
    model = TinyGPT(SHAPES[shape]).eval()
    dtype = torch.bfloat16 if bf16 else torch.float32
    model.to(dtype)
    idx = torch.zeros(4, model.config.block_size, dtype=torch.long)

    def read() -> None:
        with torch.inference_mode():
            model(idx, cache=KVCache(model.config, 4, dtype=dtype), only_last=True)

    most, _ = allocated(read)
    expected = inference_memory(model, 4, bf16)
    assert expected.weights == sum(p.nbytes for p in model.parameters())
    assert most == pytest.approx(expected.activations + expected.cache, rel=0.25)


def test_the_cache_holds_the_heads_of_keys_and_values():
    for config in (GPT2, LLAMA, SHAPES["laptop"]):
        cache = KVCache(config, 3)
        assert inference_memory(TinyGPT(config), 3).cache == cache.buffer.nbytes + cache.read.nbytes


def test_the_published_mixture_in_gigabytes():
    """Weights, gradients and two averages of 158.6 million numbers, and a batch of 4 x 256."""
    preset = PRESETS["sparse-158m"]
    with shapes_only():
        model = TinyGPT(preset.model)
    needed = training_memory(model, preset.train)
    assert needed.weights == needed.gradients == 4 * 158_623_744
    assert needed.optimizer == 2 * needed.weights
    logits = 4 * 4 * 256 * 50_257
    assert 4 * logits < needed.activations < 6 * logits
    assert needed.total / 1e9 == pytest.approx(3.6, abs=0.2)
