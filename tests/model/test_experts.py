import itertools
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from tinygpt import ModelConfig, TinyGPT, TrainConfig
from tinygpt.model import Experts, MoE, Routing
from tinygpt.model.experts import FEW_ROWS
from tinygpt.training import make_optimizers

from ..tools import (
    DISPATCHES,
    MODES,
    SHAPE,
    ampere,
    close,
    layer_of,
    layers,
    model_of,
    moe_config,
    normal,
    random_ids,
    spy,
    with_equal_experts,
)


def activation(h: torch.Tensor, kind: str) -> torch.Tensor:
    if kind == "gelu":
        return 0.5 * h * (1 + torch.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))
    if kind == "relu2":
        return h.clamp(min=0) ** 2
    gate, value = h.chunk(2, dim=-1)
    return gate * gate.sigmoid() * value


def by_hand(layer: MoE, x: torch.Tensor, routing: Routing) -> torch.Tensor:
    """Token by token and place by place, from the formula."""
    c_fc, c_proj = layer.experts.c_fc, layer.experts.c_proj
    y = torch.zeros_like(x)
    for b, t, k in itertools.product(*map(range, routing.experts.shape)):
        e = int(routing.experts[b, t, k])
        if e < len(c_fc.weight) and not routing.dropped[b, t, k]:
            h = c_fc.weight[e] @ x[b, t] + (0 if c_fc.bias is None else c_fc.bias[e])
            h = activation(h, layer.experts.kind)
            h = c_proj.weight[e] @ h + (0 if c_proj.bias is None else c_proj.bias[e])
            y[b, t] += routing.weights[b, t, k] * h
    return y


@pytest.mark.parametrize("mlp", ["gelu", "swiglu", "relu2"])
@pytest.mark.parametrize("mode", ["top-1", "top-2", "capacity, top-2", "top-p"])
def test_the_loop_equals_one_token_after_the_other(mlp, mode):
    layer = layer_of(replace(SHAPE, mlp=mlp), **MODES[mode], dispatch="loop").train()
    x = normal(2, 7, 16)
    y, routing = layer(x)
    close(y, by_hand(layer, x, routing))
    if mode == "capacity, top-2":
        assert routing.dropped.any()
    if mode == "top-p":
        assert (routing.experts == 4).any()


@pytest.mark.parametrize("mlp", ["gelu", "swiglu", "relu2"])
@pytest.mark.parametrize("mode", ["top-1", "top-2", "top-p"])
def test_a_token_alone_has_its_experts_one_by_one(mlp, mode, monkeypatch):
    layer = layer_of(replace(SHAPE, mlp=mlp), **MODES[mode]).eval()
    monkeypatch.setattr(Experts, "split", lambda *_: pytest.fail("it was sorted"))
    with torch.no_grad():
        for x in normal(20, 16).split(1):
            y, routing = layer(x[None])
            close(y, by_hand(layer, x[None], routing))


def run_layer(dispatch: str, shape: ModelConfig, moe: dict, x: torch.Tensor, seed: int):
    """Output, routing and all gradients of a layer in training mode."""
    torch.manual_seed(seed)
    layer = MoE(moe_config(shape, **moe, dispatch=dispatch)).train()
    for p in layer.parameters():
        torch.nn.init.normal_(p, 0, 0.5)
    x = x.clone().requires_grad_()
    y, routing = layer(x)
    (y * normal(*y.shape, seed=7)).sum().backward()
    names = ["x", *(name for name, _ in layer.named_parameters())]
    gradients = [x.grad, *(p.grad for p in layer.parameters())]
    return y.detach(), routing, dict(zip(names, gradients, strict=True))


@settings(max_examples=80, deadline=None)
@given(layers())
def test_every_dispatch_gives_the_loops_outputs_and_gradients(case):
    y, routing, gradients = run_layer("loop", *case)
    for dispatch in ("split", "grouped_mm"):
        other, chosen, theirs = run_layer(dispatch, *case)
        assert torch.equal(chosen.experts, routing.experts)
        close(other, y, atol=1e-4)
        assert theirs.keys() == gradients.keys()
        for name, gradient in gradients.items():
            assert gradient is not None, name
            close(theirs[name], gradient, atol=1e-4)


@pytest.mark.parametrize("dispatch", DISPATCHES)
def test_an_expert_without_tokens_gets_a_gradient_of_zero(dispatch):
    layer = layer_of(dispatch=dispatch)
    layer.router.proj.weight.data.zero_()
    layer.router.proj.weight.data[2] = 1.0
    layer(normal(2, 6, 16).abs())[0].square().sum().backward()
    for stack in (layer.experts.c_fc, layer.experts.c_proj):
        for p in stack.parameters():
            assert p.grad[2].abs().max() > 0
            assert p.grad[[0, 1, 3]].abs().max() == 0


def ways(layer: MoE, monkeypatch, x: torch.Tensor) -> list[str]:
    """The ways of dispatch by which the layer's experts are called."""
    called = []
    for name in DISPATCHES:
        monkeypatch.setattr(Experts, name, spy(getattr(Experts, name), called, name))
    layer(x)
    return called


@pytest.mark.parametrize("dispatch", DISPATCHES)
def test_the_dispatch_that_was_asked_for_is_the_one_that_runs(dispatch, monkeypatch):
    assert ways(layer_of(dispatch=dispatch), monkeypatch, normal(1, 4, 16)) == [dispatch]


@pytest.mark.parametrize("top_k", [1, 2])
def test_on_a_cpu_one_kernel_takes_few_rows_and_a_part_for_each_expert_many(top_k, monkeypatch):
    layer, most = layer_of(top_k=top_k), FEW_ROWS * 4 // top_k
    assert ways(layer, monkeypatch, normal(2, most // 2, 16)) == ["grouped_mm"]
    assert ways(layer, monkeypatch, normal(1, most + 1, 16)) == ["split"]


def test_numbers_that_the_kernel_does_not_know_go_part_by_part():
    layer, x = layer_of(top_k=2), normal(1, 9, 16)
    close(layer.double()(x.double())[0].float(), layer.float()(x)[0])


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_ten_updates_lead_every_dispatch_to_the_same_weights(optimizer):
    """Without biases of keys: softmax cancels them, and their gradient is rounding alone."""
    shape, moe = replace(SHAPE, attn_bias=False), {"n_experts": 5, "top_k": 2, "z_weight": 0.01}
    start, final = model_of(shape, **moe).state_dict(), []
    for dispatch in DISPATCHES:
        model = model_of(shape, **moe, dispatch=dispatch).train()
        optimizers = make_optimizers(model, TrainConfig(optimizer=optimizer, lr=3e-3))
        for step in range(10):
            idx = random_ids(4, 17, seed=step)
            model.zero_grad()
            model(idx[:, :-1], idx[:, 1:]).loss.backward()
            for o in optimizers:
                o.step()
        final.append(model.state_dict())
    for name, expected in final[0].items():
        assert (expected - start[name]).abs().max() > 1e-3
        for other in final[1:]:
            torch.testing.assert_close(other[name], expected, atol=2e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dispatch", DISPATCHES)
def test_bf16_is_close_to_fp32_and_the_router_stays_in_fp32(dispatch, bias):
    shape = replace(SHAPE, mlp_bias=bias)
    layer = layer_of(shape, dispatch=dispatch, top_k=2, n_shared=1, shared_gate=True)
    x = normal(3, 20, 16)
    results = []
    for half in (False, True):
        layer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            y, routing = layer(x)
        (y.float() * normal(3, 20, 16, seed=3)).sum().backward()
        gradients = {n: p.grad.clone() for n, p in layer.named_parameters()}
        results.append((y.float(), routing, gradients))
    (y, routing, full), (y16, routing16, half) = results
    assert routing16.logits.dtype == routing16.weights.dtype == torch.float32
    assert torch.equal(routing16.logits, routing.logits)
    assert torch.equal(routing16.weights, routing.weights)
    for a, b in [(y16, y), *((half[name], full[name]) for name in full)]:
        assert 0 < (a - b).abs().max() < 0.03 * b.abs().max()


@pytest.mark.parametrize("dispatch", DISPATCHES)
@pytest.mark.parametrize("mode", ["top-1", "top-2", "capacity, top-2", "top-p", "bias", "noisy"])
def test_the_order_of_the_experts_means_nothing(mode, dispatch):
    bias = {"balance": "bias", "scores": "sigmoid", "top_k": 2, "n_experts": 5}
    model = model_of(**(MODES | {"bias": bias})[mode], dispatch=dispatch)
    model.train(mode != "noisy")  # noise is drawn for places, not for experts
    idx, order = random_ids(), torch.randperm(model.config.moe.n_experts)
    expected = model(idx, idx)
    for block in model.blocks:
        experts, router = block.ffn.experts, block.ffn.router
        stacks = [*experts.parameters(), router.proj.weight, getattr(router, "bias", None)]
        for stack in filter(lambda s: s is not None, stacks):
            stack.data = stack.data[order]
    actual = model(idx, idx)
    close(actual.logits, expected.logits)
    close(actual.loss, expected.loss)


@pytest.mark.parametrize("dispatch", DISPATCHES)
@pytest.mark.parametrize("mlp", ["gelu", "swiglu", "relu2"])
@pytest.mark.parametrize("top_k", [1, 2, 3, 4])
def test_equal_experts_are_the_dense_layer(top_k, mlp, dispatch):
    sums_to_one = {"straight_through": True} if top_k % 2 else {"norm_topk_prob": True}
    layer, dense = with_equal_experts(mlp, top_k=top_k, dispatch=dispatch, **sums_to_one)
    x = normal(2, 9, 16)
    close(layer(x)[0], dense(x))


@pytest.mark.parametrize("dispatch", DISPATCHES)
def test_equal_experts_of_a_top_1_router_are_the_dense_layer_times_its_probability(dispatch):
    layer, dense = with_equal_experts("gelu", dispatch=dispatch)
    x = normal(2, 9, 16)
    p = F.linear(x, layer.router.proj.weight).softmax(-1).amax(-1, keepdim=True)
    assert 0.3 < p.min() < p.max() < 1
    close(layer(x)[0], p * dense(x))


@pytest.mark.parametrize("dispatch", DISPATCHES)
def test_a_dropped_token_passes_through_the_block_unchanged(dispatch):
    model = model_of(capacity_factor=0.5, dispatch=dispatch).train()
    block, x = model.blocks[0], normal(2, 24, 16)
    y, trace = block(x)
    lost = trace.routing.dropped.all(-1)
    assert lost.any()
    assert torch.equal(y[lost], (x + block.attn(block.ln_1(x))[0])[lost])


@pytest.mark.parametrize("dispatch", ["loop", "split"])
@pytest.mark.parametrize("mode", ["capacity, top-2", "top-p"])
def test_an_expert_that_was_not_asked_costs_nothing(mode, dispatch):
    layer, x = (
        layer_of(**MODES[mode], dispatch=dispatch).train(),
        normal(2, 24, 16),
    )
    with FlopCounterMode(display=False) as counter:
        _, routing = layer(x)
    asked = ((routing.experts < 4) & ~routing.dropped).sum().item()
    assert asked < routing.experts.numel()
    router, expert = 16 * 4, 16 * 64 + 64 * 16  # products per token
    assert counter.get_total_flops() == 2 * (2 * 24 * router + asked * expert)


def test_experts_start_as_dense_layers_do():
    torch.manual_seed(0)
    model = TinyGPT(moe_config(replace(SHAPE, n_embd=128, n_layer=8), n_shared=1, noisy=True))
    for block in model.blocks:
        moe = block.ffn
        assert moe.router.proj.weight.std().item() == pytest.approx(0.02, rel=0.1)
        for part in (moe.experts, moe.shared):
            assert part.c_fc.weight.std().item() == pytest.approx(0.02, rel=0.03)
            assert part.c_proj.weight.std().item() == pytest.approx(0.02 / 4, rel=0.03)
            assert part.c_fc.bias.abs().max() == part.c_proj.bias.abs().max() == 0
        for stack in (moe.experts.c_fc.weight, moe.experts.c_proj.weight):
            assert len({row.sum().item() for row in stack}) == 4  # no two experts are alike


def test_zero_init_starts_as_the_identity():
    model, idx = TinyGPT(moe_config(replace(SHAPE, zero_init=True), n_shared=1)), random_ids()
    x = model.wte(idx) + model.wpe.weight[:24]
    close(model(idx).logits, model.lm_head(model.ln_f(x)))


@pytest.mark.cuda
@ampere
@pytest.mark.parametrize("half", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("width", [64, 27])
@pytest.mark.parametrize("mode", ["top-1", "capacity, top-2", "top-p", "deepseek"])
def test_grouped_mm_equals_the_loop_on_cuda(mode, width, half):
    """Also for widths that must be padded, and for an expert that gets no token."""
    shape = replace(SHAPE, n_embd=width, n_head=1, n_inner=width + 5)
    results = []
    for dispatch in ("loop", "grouped_mm"):
        layer = layer_of(shape, **MODES[mode], dispatch=dispatch).cuda().train()
        layer.router.proj.weight.data[1] = -9.0  # no token's, as no x is negative
        if hasattr(layer.router, "bias"):
            layer.router.bias[1] = -9.0
        x = normal(4, 50, width).abs().cuda().requires_grad_()
        with torch.autocast("cuda", torch.bfloat16, enabled=half):
            y, routing = layer(x)
        (y.float() * normal(4, 50, width, seed=3).cuda()).sum().backward()
        gradients = {name: p.grad for name, p in layer.named_parameters()}
        results.append((routing, {"y": y.detach().float(), "x": x.grad} | gradients))
    (routing, loop), (other, grouped) = results
    assert routing.logits.dtype == other.weights.dtype == torch.float32
    assert torch.equal(routing.experts, other.experts)
    assert not (routing.experts == 1).any()
    for name, expected in loop.items():
        error = (grouped[name] - expected).abs().max()
        assert error <= (3e-2 if half else 1e-4) * expected.abs().max(), name
        if name.startswith("experts."):
            assert grouped[name][1].abs().max() == 0, name


@pytest.mark.parametrize("n", [1, 4])
def test_choices_without_an_expert_are_zero_in_eval_too(n):
    """A router in training mode in a model in eval mode drops, as its capacity says."""
    layer = layer_of(capacity_factor=0.5)
    x, choices = normal(n, 16), torch.tensor([[4], [0], [4], [1]])[:n]
    weights = torch.ones(n, 1)
    with torch.no_grad():
        expected = layer.experts.loop(x, choices, weights)
        close(layer.experts(x, choices, weights), expected)
    layer.router.train()
    assert layer(normal(2, 8, 16))[0].isfinite().all()
