"""Mixture of Experts against transformers' classes, closed forms, brute force, and its promises.

The public implementations of these experiments have routers that never train, losses that cancel,
capacity that sees the future, experts that are left out: each such defect has a test here.
"""

import copy
import itertools
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from tinygpt import PRESETS, ModelConfig, MoEConfig, TinyGPT, TrainConfig, Trainer, generate
from tinygpt.checkpoint import (
    Checkpoint,
    export_run,
    latest_checkpoint,
    load_checkpoint,
    load_expert_tables,
    save_checkpoint,
)
from tinygpt.config import from_dict, to_dict
from tinygpt.data import get_batch
from tinygpt.decoding import Step
from tinygpt.errors import ConfigError
from tinygpt.layers import MLP, Context, KVCache
from tinygpt.metrics import count_parameters, evaluate, flops_per_token, measure_routing
from tinygpt.moe import (
    Experts,
    MoE,
    Router,
    Routing,
    agreement,
    auxiliary_loss,
    balance_loss,
    dead_experts,
    expert_width,
    importance_loss,
    max_violation,
    mutual_information,
    rebalance,
    variation,
    z_loss,
)
from tinygpt.optim import make_optimizers
from tinygpt.tokenizer import CharTokenizer

from .test_model import shaken
from .test_trainer import CHANCE, QUICK, interrupt_after

SHAPE = ModelConfig(vocab_size=65, block_size=24, n_layer=2, n_head=2, n_embd=16)
LLAMA = replace(
    SHAPE,
    norm="rmsnorm",
    position="rope",
    mlp="swiglu",
    tie_embeddings=False,
    attn_bias=False,
    mlp_bias=False,
)
DISPATCHES = ("loop", "split", "grouped_mm")
# ways to route that a causal language model may use
MODES = {
    "top-1": {},
    "top-2": {"top_k": 2, "norm_topk_prob": True},
    "straight-through": {"straight_through": True},
    "capacity, top-1": {"capacity_factor": 0.6},
    "capacity, top-2": {"top_k": 2, "capacity_factor": 0.5},
    "top-p": {"top_k": 3, "top_p": 0.6, "capacity_factor": 0.3},
    "deepseek": {
        "n_experts": 6,
        "top_k": 2,
        "scores": "sigmoid",
        "norm_topk_prob": True,
        "balance": "bias",
        "n_groups": 3,
        "top_groups": 2,
        "n_shared": 1,
        "capacity_factor": 0.6,
    },
    "noisy": {"noisy": True, "jitter": 0.1, "capacity_factor": 0.6, "router_hidden": 8},
    "shared": {"n_shared": 2, "shared_gate": True},
    "forced": {"forced_balance": True},
}


def config(shape: ModelConfig = SHAPE, **moe) -> ModelConfig:
    return replace(shape, moe=MoEConfig(**{"balance": "loss"} | moe))


def model_of(shape: ModelConfig = SHAPE, **moe) -> TinyGPT:
    """A model in eval mode, weights away from their start, routers and biases with opinions."""
    return opinionated(shaken(config(shape, **moe)))


@torch.no_grad()
def opinionated(model: TinyGPT) -> TinyGPT:
    for router in routers(model):
        router.proj.weight.mul_(6)
        if hasattr(router, "bias"):
            router.bias.copy_(torch.randn(router.bias.shape) * 0.1)
    return model


def layer_of(shape: ModelConfig = SHAPE, **moe) -> MoE:
    return model_of(shape, **moe).blocks[0].ffn


def routers(model: TinyGPT) -> list[Router]:
    return [m for m in model.modules() if isinstance(m, Router)]


def ids(batch: int = 3, length: int = 24, seed: int = 1) -> torch.Tensor:
    return torch.randint(65, (batch, length), generator=torch.manual_seed(seed))


def normal(*shape: int, seed: int = 2) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def close(actual, expected, atol: float = 1e-5) -> None:
    torch.testing.assert_close(actual, expected, atol=atol, rtol=1e-4)


def routing_of(logits: torch.Tensor, top_k: int = 1, **changes) -> Routing:
    """What a plain router makes of logits `(B, T, E)`."""
    probs = logits.softmax(-1)
    weights, experts = probs.topk(top_k)
    dropped = torch.zeros_like(experts, dtype=torch.bool)
    return replace(Routing(logits, probs, experts, weights, dropped), **changes)


def seeded(model, *args, seed: int = 5, **options):
    torch.manual_seed(seed)
    return model(*args, **options)


# --- transformers' classes with our weights ------------------------------------------------------


def their_options(c: ModelConfig) -> dict:
    return {
        "vocab_size": c.vocab_size,
        "max_position_embeddings": c.block_size,
        "hidden_size": c.n_embd,
        "num_hidden_layers": c.n_layer,
        "num_attention_heads": c.n_head,
        "num_key_value_heads": c.n_head,
        "num_experts_per_tok": c.moe.top_k,
        "rms_norm_eps": c.norm_eps,
        "rope_parameters": {"rope_type": "default", "rope_theta": c.rope_theta},
        "tie_word_embeddings": False,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }


def expert_weights(layer: MoE) -> dict[str, torch.Tensor]:
    """Theirs are stacked as ours are, the gate's half before the other."""
    weights = {
        "gate.weight": layer.router.proj.weight,
        "experts.gate_up_proj": layer.experts.c_fc.weight,
        "experts.down_proj": layer.experts.c_proj.weight,
    }
    if layer.shared is not None:
        weights |= dense_weights(layer.shared, "shared_expert.")
    if layer.shared_gate is not None:
        weights["shared_expert_gate.weight"] = layer.shared_gate.weight
    return weights


def dense_weights(layer: MLP, prefix: str = "") -> dict[str, torch.Tensor]:
    gate, up = layer.c_fc.weight.chunk(2)
    names = {"gate_proj": gate, "up_proj": up, "down_proj": layer.c_proj.weight}
    return {f"{prefix}{name}.weight": value for name, value in names.items()}


def model_weights(model: TinyGPT) -> dict[str, torch.Tensor]:
    weights = {
        "model.embed_tokens.weight": model.wte.weight,
        "model.norm.weight": model.ln_f.weight,
        "lm_head.weight": model.lm_head.weight,
    }
    for i, block in enumerate(model.blocks):
        names = {
            "self_attn.o_proj.weight": block.attn.c_proj.weight,
            "input_layernorm.weight": block.ln_1.weight,
            "post_attention_layernorm.weight": block.ln_2.weight,
        }
        for kind, value in block.attn.c_attn.named_parameters():
            for part, piece in zip("qkv", value.chunk(3), strict=True):
                names[f"self_attn.{part}_proj.{kind}"] = piece
        ffn = expert_weights if isinstance(block.ffn, MoE) else dense_weights
        names |= {f"mlp.{name}": value for name, value in ffn(block.ffn).items()}
        weights |= {f"model.layers.{i}.{name}": value for name, value in names.items()}
    return weights


def as_mixtral(model: TinyGPT):
    from transformers import MixtralConfig, MixtralForCausalLM

    c = model.config
    theirs = MixtralForCausalLM(
        MixtralConfig(
            **their_options(c),
            intermediate_size=expert_width(c),
            num_local_experts=c.moe.n_experts,
        )
    ).eval()
    theirs.load_state_dict(model_weights(model))
    return theirs


def as_qwen2_moe(model: TinyGPT):
    from transformers import Qwen2MoeConfig, Qwen2MoeForCausalLM

    c = model.config
    theirs = Qwen2MoeForCausalLM(
        Qwen2MoeConfig(
            **their_options(c),
            intermediate_size=c.inner_size,
            moe_intermediate_size=expert_width(c),
            shared_expert_intermediate_size=c.moe.n_shared * expert_width(c),
            num_experts=c.moe.n_experts,
            norm_topk_prob=c.moe.norm_topk_prob,
            decoder_sparse_step=c.moe.every,
        )
    ).eval()
    theirs.load_state_dict(model_weights(model))
    return theirs


def mixtral() -> TinyGPT:
    return model_of(LLAMA, n_experts=8, top_k=2, norm_topk_prob=True, n_inner=12)


def qwen2_moe(norm: bool, every: int = 1) -> TinyGPT:
    shape = replace(LLAMA, attn_bias=True)  # theirs has biases of q, k and v only
    moe = {"n_experts": 5, "top_k": 3, "n_inner": 12, "n_shared": 2, "shared_gate": True}
    model = model_of(shape, **moe, norm_topk_prob=norm, every=every)
    for block in model.blocks:
        block.attn.c_proj.bias.data.zero_()
    return model


PAIRS = {
    "mixtral": lambda: (m := mixtral(), as_mixtral(m)),
    "qwen2-moe": lambda: (m := qwen2_moe(norm=False), as_qwen2_moe(m)),
    "qwen2-moe, normed": lambda: (m := qwen2_moe(norm=True), as_qwen2_moe(m)),
    "qwen2-moe, every other": lambda: (m := qwen2_moe(norm=False, every=2), as_qwen2_moe(m)),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_a_whole_model_equals_transformers(pair):
    (model, theirs), idx = PAIRS[pair](), ids()
    with torch.inference_mode():
        close(model(idx).logits, theirs(idx).logits)
        loss = theirs(idx, labels=idx).loss
    close(model(idx[:, :-1], idx[:, 1:]).lm_loss, loss)


@pytest.mark.parametrize("pair", ["mixtral", "qwen2-moe", "qwen2-moe, normed"])
def test_a_block_equals_transformers_in_outputs_and_gradients(pair):
    model, theirs = PAIRS[pair]()
    ours, theirs = model.blocks[0].ffn, theirs.model.layers[0].mlp
    x, direction = normal(2, 9, 16).requires_grad_(), normal(2, 9, 16, seed=3)
    close(ours(x), theirs(x))
    wanted = [theirs.gate.weight, theirs.experts.gate_up_proj, theirs.experts.down_proj]
    expected = torch.autograd.grad((theirs(x) * direction).sum(), [x, *wanted])
    found = [ours.router.proj.weight, ours.experts.c_fc.weight, ours.experts.c_proj.weight]
    actual = torch.autograd.grad((ours(x) * direction).sum(), [x, *found])
    for a, b in zip(actual, expected, strict=True):
        close(a, b)


def test_deepseeks_routing_and_block_equal_transformers():
    """Sigmoid scores, biases for choosing only, groups, and a factor on the weights."""
    from transformers.models.deepseek_v3.modeling_deepseek_v3 import (
        DeepseekV3Config,
        DeepseekV3MoE,
    )

    ours = layer_of(
        LLAMA,
        n_experts=8,
        top_k=3,
        n_inner=12,
        scores="sigmoid",
        norm_topk_prob=True,
        routed_scaling_factor=2.5,
        balance="bias",
        n_groups=4,
        top_groups=2,
        n_shared=2,
    )
    theirs = DeepseekV3MoE(
        DeepseekV3Config(
            hidden_size=16,
            moe_intermediate_size=12,
            n_routed_experts=8,
            num_experts_per_tok=3,
            n_group=4,
            topk_group=2,
            n_shared_experts=2,
            norm_topk_prob=True,
            routed_scaling_factor=2.5,
        )
    )
    bias = torch.tensor([-2.0, 0.3, -0.5, 0.2, -0.4, -0.6, 0.1, -1.0])
    ours.router.bias.copy_(bias)
    weights = expert_weights(ours) | {"gate.e_score_correction_bias": bias}
    named = {k.replace("shared_expert.", "shared_experts."): v for k, v in weights.items()}
    theirs.load_state_dict(named)
    x = normal(3, 20, 16)
    _, weights, experts = theirs.gate(x)
    routing = ours.router(x)
    expected = torch.zeros(60, 8).scatter(1, experts, weights)
    actual = torch.zeros(60, 8).scatter(1, routing.experts.view(60, 3), routing.weights.view(60, 3))
    close(actual, expected)
    close(ours(x), theirs(x))


@pytest.mark.parametrize("top_k", [1, 2, 3])
@pytest.mark.parametrize("padded", [False, True])
def test_balance_loss_is_transformers_over_k(top_k, padded):
    """Theirs is k at balance, ours 1; theirs pools the layers, so one layer is compared."""
    from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

    logits = normal(3, 10, 5) * 2
    valid = torch.arange(10) < torch.tensor([[10], [4], [7]]) if padded else None
    theirs = load_balancing_loss_func((logits.flatten(0, 1),), 5, top_k, valid)
    close(balance_loss(routing_of(logits, top_k), valid), theirs / top_k)


# --- dispatch ------------------------------------------------------------------------------------


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
    x, context = normal(2, 7, 16), Context()
    y = layer(x, context)
    (routing,) = context.routing
    close(y, by_hand(layer, x, routing))
    if mode == "capacity, top-2":
        assert routing.dropped.any()
    if mode == "top-p":
        assert (routing.experts == 4).any()


def run_layer(dispatch: str, shape: ModelConfig, moe: dict, x: torch.Tensor, seed: int):
    """Output, routing and all gradients of a layer in training mode."""
    torch.manual_seed(seed)
    layer = MoE(config(shape, **moe, dispatch=dispatch)).train()
    for p in layer.parameters():
        torch.nn.init.normal_(p, 0, 0.5)
    x, context = x.clone().requires_grad_(), Context()
    y = layer(x, context)
    (y * normal(*y.shape, seed=7)).sum().backward()
    names = ["x", *(name for name, _ in layer.named_parameters())]
    gradients = [x.grad, *(p.grad for p in layer.parameters())]
    return y.detach(), context.routing[0], dict(zip(names, gradients, strict=True))


@st.composite
def layers(draw):
    E = draw(st.integers(1, 5))
    K = draw(st.integers(1, E))
    width = draw(st.integers(1, 9))
    shape = replace(
        SHAPE,
        n_embd=width,
        n_head=1,
        n_inner=draw(st.integers(1, 9)),
        mlp=draw(st.sampled_from(["gelu", "swiglu", "relu2"])),
        mlp_bias=draw(st.booleans()),
    )
    moe = {"n_experts": E, "top_k": K, "norm_topk_prob": K > 1 and draw(st.booleans())}
    limits = ({}, {"capacity_factor": 0.5}, {"top_p": 0.4}, {"top_p": 0.4, "capacity_factor": 0.5})
    leak = {"expert_choice": True, "allow_leak": True}
    moe |= draw(st.sampled_from([*limits, leak]))
    size = draw(st.integers(1, 3)), draw(st.integers(1, 8)), width
    seed = draw(st.integers(0, 1000))
    return shape, moe, normal(*size, seed=seed), seed


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
    layer(normal(2, 6, 16).abs()).square().sum().backward()
    for stack in (layer.experts.c_fc, layer.experts.c_proj):
        for p in stack.parameters():
            assert p.grad[2].abs().max() > 0
            assert p.grad[[0, 1, 3]].abs().max() == 0


@pytest.mark.parametrize("dispatch", [*DISPATCHES, "auto"])
def test_the_dispatch_that_was_asked_for_is_the_one_that_runs(dispatch, monkeypatch):
    called = []
    for name in DISPATCHES:
        monkeypatch.setattr(Experts, name, spy(getattr(Experts, name), called, name))
    layer_of(dispatch=dispatch)(normal(1, 4, 16))
    assert called == ["split" if dispatch == "auto" else dispatch]  # "auto" on a CPU


def spy(function, called: list, name: str):
    def watched(*args):
        called.append(name)
        return function(*args)

    return watched


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_ten_updates_lead_every_dispatch_to_the_same_weights(optimizer):
    """Without biases of keys: softmax cancels them, and their gradient is rounding alone."""
    shape, moe = replace(SHAPE, attn_bias=False), {"n_experts": 5, "top_k": 2, "z_weight": 0.01}
    start, final = model_of(shape, **moe).state_dict(), []
    for dispatch in DISPATCHES:
        model = model_of(shape, **moe, dispatch=dispatch).train()
        optimizers = make_optimizers(model, TrainConfig(optimizer=optimizer, lr=3e-3))
        for step in range(10):
            idx = ids(4, 17, seed=step)
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
        context = Context()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            y = layer(x, context)
        (y.float() * normal(3, 20, 16, seed=3)).sum().backward()
        gradients = {n: p.grad.clone() for n, p in layer.named_parameters()}
        results.append((y.float(), context.routing[0], gradients))
    (y, routing, full), (y16, routing16, half) = results
    assert routing16.logits.dtype == routing16.weights.dtype == torch.float32
    assert torch.equal(routing16.logits, routing.logits)
    assert torch.equal(routing16.weights, routing.weights)
    for a, b in [(y16, y), *((half[name], full[name]) for name in full)]:
        assert 0 < (a - b).abs().max() < 0.03 * b.abs().max()


# --- causality -----------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_later_tokens_and_other_rows_change_nothing(mode, training):
    """Also where capacity is short: who is dropped depends on what came before, in that row."""
    model, idx = model_of(**MODES[mode]).train(training), ids()
    before = seeded(model, idx, return_routing=True)
    later, others = idx.clone(), idx.clone()
    later[:, 10:] = (later[:, 10:] + 7) % 65
    others[[0, 2]] = (others[[0, 2]] + 7) % 65
    after, beside = seeded(model, later, return_routing=True), seeded(model, others)
    close(after.logits[:, :10], before.logits[:, :10])
    close(beside.logits[1], before.logits[1])
    assert (after.logits[:, 10:] - before.logits[:, 10:]).abs().max() > 0.1
    drops = torch.stack([r.dropped for r in before.routing])
    limited = training and "capacity_factor" in MODES[mode]
    assert drops[:, :, :10].any() == drops[:, :, 10:].any() == limited
    if limited:
        assert any(
            (a.dropped != b.dropped).any()
            for a, b in zip(after.routing, before.routing, strict=True)
        )


def test_experts_that_choose_tokens_see_the_future():
    """The control: what the test above would see in a router that leaks."""
    model, idx = model_of(expert_choice=True, allow_leak=True, capacity_factor=1.0), ids()
    later = idx.clone()
    later[:, 10:] = (later[:, 10:] + 7) % 65
    assert (model(idx).logits[:, :10] - model(later).logits[:, :10]).abs().max() > 1e-2


def test_experts_that_choose_take_their_favourites():
    router = layer_of(expert_choice=True, allow_leak=True, top_k=2, capacity_factor=0.75).router
    routing = router(normal(2, 10, 16))
    for b, e in itertools.product(range(2), range(4)):
        taken = (routing.experts[b] == e).any(-1)
        assert taken.sum() == math.ceil(0.75 * 2 * 10 / 4)
        assert routing.probs[b, taken, e].min() > routing.probs[b, ~taken, e].max()
        place = (routing.experts[b] == e).nonzero(as_tuple=True)
        close(routing.weights[b][place], routing.probs[b, taken, e])


@pytest.mark.parametrize("one", [{}, {"straight_through": True}])
@pytest.mark.parametrize("dispatch", DISPATCHES)
def test_a_token_that_no_expert_chose_passes_through_unchanged(dispatch, one):
    layer = layer_of(expert_choice=True, allow_leak=True, dispatch=dispatch, **one)
    x, context = normal(2, 16, 16).requires_grad_(), Context()
    y = layer(x, context)
    lost = (context.routing[0].experts == 4).all(-1)
    assert lost.any()
    assert y[lost].abs().max() == 0
    assert y[~lost].abs().sum(-1).min() > 0
    y.square().sum().backward()
    assert all(p.grad.isfinite().all() for p in layer.parameters())


CACHED = [mode for mode in MODES if mode != "forced"]  # which goes by the place in the batch


@pytest.mark.parametrize("shape", [SHAPE, LLAMA], ids=["learned", "rope"])
@pytest.mark.parametrize("mode", CACHED)
def test_reading_in_pieces_with_a_cache_equals_reading_at_once(mode, shape):
    model, idx = model_of(shape, **MODES[mode]), ids()
    cache = KVCache(model.config, batch_size=3)
    with torch.inference_mode():
        pieces = [model(part, cache=cache).logits for part in idx.split([7, 1, 1, 5, 1, 9], dim=1)]
        close(torch.cat(pieces, dim=1), expected := model(idx).logits)
        cache.restart()
        model(idx[:, :20], cache=cache)
        step = Step(model, cache)  # how `generate` reads one token
        for t in range(20, 24):
            close(step(idx[:, t]), expected[:, t])


@pytest.mark.parametrize("shape", [SHAPE, LLAMA], ids=["learned", "rope"])
@pytest.mark.parametrize("mode", ["top-1", "capacity, top-2", "deepseek", "shared"])
def test_writing_with_a_cache_equals_recomputation(mode, shape):
    model = model_of(shape, **MODES[mode])
    model.lm_head.weight.data.mul_(2)
    model.tokenizer = CharTokenizer("".join(chr(48 + i) for i in range(65)))
    prompts = ["0", "ABCDE", "hello"]  # of unlike lengths: padded on the left
    fast, slow = (generate(model, prompts, 20, seed=3, use_cache=c) for c in (True, False))
    assert fast == slow
    assert fast[2] == generate(model, prompts, 20, seed=3)[2]


# --- symmetries ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dispatch", DISPATCHES)
@pytest.mark.parametrize("mode", ["top-1", "top-2", "capacity, top-2", "top-p", "bias", "noisy"])
def test_the_order_of_the_experts_means_nothing(mode, dispatch):
    bias = {"balance": "bias", "scores": "sigmoid", "top_k": 2, "n_experts": 5}
    model = model_of(**(MODES | {"bias": bias})[mode], dispatch=dispatch)
    model.train(mode != "noisy")  # noise is drawn for places, not for experts
    idx, order = ids(), torch.randperm(model.config.moe.n_experts)
    expected = model(idx, idx)
    for block in model.blocks:
        experts, router = block.ffn.experts, block.ffn.router
        stacks = [*experts.parameters(), router.proj.weight, getattr(router, "bias", None)]
        for stack in filter(lambda s: s is not None, stacks):
            stack.data = stack.data[order]
    actual = model(idx, idx)
    close(actual.logits, expected.logits)
    close(actual.loss, expected.loss)


def with_equal_experts(mlp: str, **moe) -> tuple[MoE, MLP]:
    shape = replace(SHAPE, mlp=mlp)
    layer, dense = layer_of(shape, **moe), shaken(shape).blocks[0].ffn
    with torch.no_grad():
        for name, p in dense.named_parameters():
            layer.experts.get_parameter(name).copy_(p.expand(4, *p.shape))
    return layer, dense


@pytest.mark.parametrize("dispatch", DISPATCHES)
@pytest.mark.parametrize("mlp", ["gelu", "swiglu", "relu2"])
@pytest.mark.parametrize("top_k", [1, 2, 3, 4])
def test_equal_experts_are_the_dense_layer(top_k, mlp, dispatch):
    one = {"straight_through": True} if top_k == 1 else {"norm_topk_prob": True}
    layer, dense = with_equal_experts(mlp, top_k=top_k, dispatch=dispatch, **one)
    x = normal(2, 9, 16)
    close(layer(x), dense(x))


@pytest.mark.parametrize("dispatch", DISPATCHES)
def test_equal_experts_of_a_top_1_router_are_the_dense_layer_times_its_probability(dispatch):
    layer, dense = with_equal_experts("gelu", dispatch=dispatch)
    x = normal(2, 9, 16)
    p = F.linear(x, layer.router.proj.weight).softmax(-1).amax(-1, keepdim=True)
    assert 0.3 < p.min() < p.max() < 1
    close(layer(x), p * dense(x))


def test_jitter_is_for_the_routers_eyes_only():
    layer, dense = with_equal_experts("gelu", top_k=2, norm_topk_prob=True, jitter=0.5)
    x = normal(2, 9, 16)
    close(layer.train()(x), dense(x))


# --- a router that learns ------------------------------------------------------------------------


def router_gradient(model: TinyGPT) -> float:
    """Norm of the gradient that the language-model loss alone sends to the first router."""
    idx = ids()
    model(idx[:, :-1], idx[:, 1:]).loss.backward()
    return model.blocks[0].ffn.router.proj.weight.grad.norm().item()


@pytest.mark.parametrize("moe", [{}, {"scores": "sigmoid"}, {"straight_through": True}])
def test_a_top_1_router_learns_from_the_language_model_loss(moe):
    assert router_gradient(model_of(**moe, balance="none").train()) > 1e-3


def test_a_top_1_router_whose_weight_is_divided_by_itself_learns_nothing(monkeypatch):
    """The control, and the defect of several public implementations."""
    weigh = Router._weigh

    def normed(self, probs, experts):
        weights = weigh(self, probs, experts)
        return weights / weights.sum(-1, keepdim=True)

    monkeypatch.setattr(Router, "_weigh", normed)
    assert router_gradient(model_of(balance="none").train()) < 1e-6
    assert router_gradient(model_of(balance="loss").train()) > 1e-4


def test_straight_through_weights_are_one_and_keep_their_gradient():
    router = layer_of(straight_through=True, routed_scaling_factor=2.0).router
    routing = router(normal(2, 9, 16))
    assert torch.equal(routing.weights, torch.full((2, 9, 1), 2.0))
    (gradient,) = torch.autograd.grad(routing.weights.sum(), routing.probs)
    chosen = torch.zeros_like(gradient).scatter(-1, routing.experts, 1.0)
    close(gradient, 2 * chosen / routing.probs.detach())


def test_normalising_a_single_weight_is_refused_with_the_reason():
    with pytest.raises(ConfigError, match=r"norm_topk_prob with top_k=1.*router gets no gradient"):
        MoEConfig(norm_topk_prob=True, top_k=1)


@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("level", ["batch", "sequence"])
def test_each_balance_loss_evens_out_a_lopsided_router(level, noisy):
    losses = {"cv_weight": 1.0, "balance": "none"} if noisy else {"balance_level": level}
    router = layer_of(noisy=noisy, **losses).router.train()
    x = normal(2, 64, 16) + 1.5
    optimizer = torch.optim.Adam(router.parameters(), lr=0.02)
    start = variation(router(x).load())
    weight = replace(router.config, balance_weight=1.0)
    for _ in range(60):
        optimizer.zero_grad()
        auxiliary_loss([router(x)], weight, None).backward()
        optimizer.step()
    assert start > 0.3
    assert variation(router.eval()(x).load()) < 0.5 * start


# --- chance acts in training only ----------------------------------------------------------------

CHANCES = {
    "noise": {"noisy": True},
    "jitter": {"jitter": 0.3},
    "dropout": {"expert_dropout": 0.3},
}


@pytest.mark.parametrize("dispatch", DISPATCHES)
@pytest.mark.parametrize("chance", CHANCES)
def test_chance_acts_in_training_only(chance, dispatch):
    model, idx = model_of(**CHANCES[chance], dispatch=dispatch), ids()
    plain = model_of(dispatch=dispatch)
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if "noise" not in k})
    first, second = (seeded(model, idx, seed=s, return_routing=True) for s in (0, 1))
    assert torch.equal(first.logits, second.logits)
    assert torch.equal(first.logits, plain(idx).logits)
    model.train()
    noise = [seeded(model, idx, seed=s, return_routing=True) for s in (0, 1)]
    assert (noise[0].logits - noise[1].logits).abs().max() > 1e-3
    same = torch.equal(noise[0].routing[0].logits, noise[1].routing[0].logits)
    assert same == (chance == "dropout")  # which is inside the experts


def test_capacity_acts_in_training_only():
    model, idx = model_of(capacity_factor=0.5, top_k=2), ids()
    dropless = model_of(top_k=2)(idx, return_routing=True)
    out = model(idx, return_routing=True)
    assert torch.equal(out.logits, dropless.logits)
    assert not any(r.dropped.any() for r in out.routing)
    out = model.train()(idx, return_routing=True)
    assert all(r.dropped.any() for r in out.routing)
    assert (out.logits - dropless.logits).abs().max() > 1e-2


def test_expert_dropout_drops_a_share_of_what_the_experts_compute():
    layer = layer_of(replace(SHAPE, n_inner=4000), expert_dropout=0.25, straight_through=True)
    with torch.no_grad():
        for p in layer.experts.parameters():
            p.zero_()
        layer.experts.c_fc.bias.fill_(50.0)  # gelu(50) = 50
        layer.experts.c_proj.weight.fill_(1 / (50 * 4000))  # so the mean of what is kept
    y = layer.train()(normal(1, 8, 16))
    close(y, torch.ones_like(y), atol=0.05)  # what is kept is made larger, the mean stays
    kept = y[0, :, 0] * 0.75 * 4000
    close(kept, kept.round(), atol=0.01)
    assert len(set(kept.round().tolist())) > 1


def test_ordinary_dropout_reaches_what_the_experts_give():
    model = model_of(replace(SHAPE, dropout=0.5), n_shared=1)
    layer, x = model.blocks[0].ffn, normal(4, 24, 16)
    expected = layer(x)
    y = layer.train()(x)
    assert 0.4 < (y == 0).float().mean() < 0.6
    close(y[y != 0], 2 * expected[y != 0])


# --- losses --------------------------------------------------------------------------------------


def balance_by_hand(routing: Routing, sequences: bool, valid: np.ndarray) -> float:
    probs, experts = routing.probs.detach().double().numpy(), routing.experts.numpy()
    E, losses = probs.shape[-1], []
    rows = [[b] for b in range(len(probs))] if sequences else [range(len(probs))]
    for row in rows:
        tokens = [(b, t) for b in row for t in range(probs.shape[1]) if valid[b, t]]
        chosen = np.concatenate([experts[b, t] for b, t in tokens])
        f = np.bincount(chosen[chosen < E], minlength=E) / (chosen < E).sum()
        P = np.mean([probs[b, t] / probs[b, t].sum() for b, t in tokens], axis=0)
        losses.append(E * (f * P).sum())
    return float(np.mean(losses))


def z_by_hand(routing: Routing, valid: np.ndarray) -> float:
    logits = routing.logits.detach().double().numpy()[valid]
    return float((np.log(np.exp(logits).sum(-1)) ** 2).mean())


def importance_by_hand(routing: Routing, valid: np.ndarray) -> float:
    weights, experts = routing.weights.detach().double().numpy(), routing.experts.numpy()
    importance = np.zeros(routing.probs.shape[-1])
    for b, t, k in itertools.product(*map(range, experts.shape)):
        if valid[b, t] and experts[b, t, k] < len(importance):
            importance[experts[b, t, k]] += weights[b, t, k]
    return float(importance.var() / importance.mean() ** 2)


@pytest.mark.parametrize("level", ["batch", "sequence"])
@pytest.mark.parametrize("mode", ["top-1", "top-2", "top-p", "deepseek", "capacity, top-2"])
def test_the_loss_is_cross_entropy_plus_the_weighted_terms_of_every_layer(mode, level):
    terms = {"z_weight": 0.02, "cv_weight": 0.05, "balance_level": level}
    moe = MODES[mode] | terms | {"balance": "loss", "balance_weight": 0.3}
    model, idx = model_of(**moe).train(), ids()
    targets = idx.roll(-1, 1)
    targets[0, 15:] = targets[2, :3] = -100
    out = model(idx, targets, return_routing=True)
    close(out.lm_loss, F.cross_entropy(out.logits.flatten(0, 1), targets.flatten()))
    valid = (targets != -100).numpy()
    extra = sum(
        0.3 * balance_by_hand(r, level == "sequence", valid)
        + 0.02 * z_by_hand(r, valid)
        + 0.05 * importance_by_hand(r, valid)
        for r in out.routing
    )
    assert len(out.routing) == 2
    assert (out.loss - out.lm_loss).item() == pytest.approx(extra, rel=1e-4)


@pytest.mark.parametrize("moe", [{"balance": "none"}, {"balance": "bias"}, {"balance_weight": 0.0}])
def test_without_balance_terms_the_loss_is_cross_entropy(moe):
    idx = ids()
    out = model_of(**moe).train()(idx, idx)
    assert torch.equal(out.loss, out.lm_loss)


def test_what_is_reported_is_cross_entropy_alone(corpus, small):
    """A balance term of some hundred nats would show."""
    moe = MoEConfig(balance="loss", balance_weight=100.0)
    torch.manual_seed(0)
    model = TinyGPT(replace(small, moe=moe))
    trainer = Trainer(model, corpus, replace(QUICK, max_steps=10))
    assert trainer.train_step() < 5
    trainer.fit(progress=False)
    row = trainer.metrics.rows[-1]
    windows = corpus.val[: 31 * 16 + 1]
    x, y = windows[:-1].view(31, 16), windows[1:].view(31, 16)
    out = model(x.long(), y.long())
    expected = F.cross_entropy(out.logits.flatten(0, 1), y.flatten().long()).item()
    assert out.loss.item() > 100
    assert evaluate(model, windows) == pytest.approx(expected, rel=1e-5)
    assert row["val_lm_loss"] == evaluate(model, corpus.val) < 5
    assert row["train_lm_loss"] < 5
    assert 0.99 < row["balance_loss"] < 4
    report = measure_routing(model, corpus.val)
    assert row["load_cv"] == report.load_cv
    assert row["balance_loss"] == pytest.approx(report.balance_loss.mean().item())
    assert row["z_loss"] == pytest.approx(report.z_loss.mean().item())


def collapsed(expert: int, E: int = 4, top_k: int = 1) -> Routing:
    """All tokens to one expert (and those after it), with certainty."""
    logits = torch.full((2, 6, E), -50.0)
    logits[..., [(expert + i) % E for i in range(top_k)]] = 50.0
    return routing_of(logits, top_k)


@pytest.mark.parametrize("level", ["batch", "sequence"])
@pytest.mark.parametrize("top_k", [1, 2])
def test_balance_loss_is_one_when_even_and_e_over_k_when_collapsed(top_k, level):
    assert balance_loss(collapsed(1, 4, top_k), level=level).item() == pytest.approx(4 / top_k)
    turns = torch.arange(8 * top_k).view(1, 8, top_k) % 4
    even = routing_of(torch.zeros(1, 8, 4), top_k, experts=turns)
    assert balance_loss(even, level=level).item() == pytest.approx(1)
    # as even as can be, and certain: each token knows its expert
    sure = routing_of(50 * F.one_hot(torch.arange(8).view(1, 8) % 4, 4).float())
    assert balance_loss(sure, level=level).item() == pytest.approx(1)


@pytest.mark.parametrize("top_k", [1, 2])
def test_layers_that_collapse_on_different_experts_do_not_cancel(top_k):
    """Counts pooled over these four layers would be perfectly even, and their loss 1."""
    routings = [collapsed(e, 4, top_k) for e in range(4)]
    loss = auxiliary_loss(routings, MoEConfig(balance="loss", balance_weight=1.0), None)
    assert loss.item() == pytest.approx(4 * 4 / top_k)


def test_the_balance_loss_pulls_through_the_probabilities_alone():
    logits = (normal(2, 10, 4) * 2).requires_grad_()
    routing = routing_of(logits, 2)
    probs = routing.probs
    (gradient,) = torch.autograd.grad(balance_loss(routing), probs, retain_graph=True)
    f = routing.load().expand(2, 10, 4)
    # probs are divided by their sum first, so a push on all of a token's does nothing
    expected = 4 / 20 * (f - (f * probs).sum(-1, keepdim=True))
    close(gradient, expected.detach())


@pytest.mark.parametrize("level", ["batch", "sequence"])
@pytest.mark.parametrize("mode", ["top-1", "top-2", "top-p", "deepseek"])
def test_padding_is_in_no_balance_loss(mode, level):
    moe = MODES[mode] | {"z_weight": 0.5, "cv_weight": 0.5, "capacity_factor": None}
    moe |= {"balance": "loss", "balance_weight": 1.0, "balance_level": level}
    model, idx = model_of(**moe).train(), ids(2, 20)
    expected = model(idx[:, :12], idx[:, 1:13])
    targets = idx.roll(-1, 1)
    targets[:, 12:] = -100
    rows = torch.cat([idx, ids(1, 20, seed=9)])  # and a row that is nothing but padding
    padded = model(rows, torch.cat([targets, torch.full((1, 20), -100)]))
    close(padded.loss, expected.loss)
    close(padded.loss - padded.lm_loss, expected.loss - expected.lm_loss)
    unmasked = model(rows, rows)
    assert abs((unmasked.loss - unmasked.lm_loss) - (expected.loss - expected.lm_loss)) > 1e-3


def test_level_sequence_is_the_mean_over_sequences():
    routing = routing_of(normal(4, 12, 5) * 3, 2)

    def rows(b: slice) -> Routing:
        return routing_of(routing.logits[b], 2)

    each = [balance_loss(rows(slice(b, b + 1)), level="batch") for b in range(4)]
    close(balance_loss(routing, level="sequence"), torch.stack(each).mean())
    assert balance_loss(routing, level="sequence") > balance_loss(routing) + 0.01


def test_z_loss_in_closed_form():
    logits = torch.tensor([[[0.0, 0.0], [math.log(3), 0.0]]])
    expected = (math.log(2) ** 2 + math.log(4) ** 2) / 2
    assert z_loss(routing_of(logits)).item() == pytest.approx(expected)
    valid = torch.tensor([[False, True]])
    assert z_loss(routing_of(logits), valid).item() == pytest.approx(math.log(4) ** 2)


def test_importance_loss_in_closed_form():
    routing = collapsed(0)  # importance (12, 0, 0, 0): variance 27, mean 3
    assert importance_loss(routing).item() == pytest.approx(3)
    even = routing_of(torch.zeros(1, 4, 4), experts=torch.arange(4).view(1, 4, 1))
    assert importance_loss(even).item() == pytest.approx(0, abs=1e-9)
    noisy = replace(even, again=torch.tensor([0.5, 0.5, 0.0, 0.0]).expand(1, 4, 4))
    assert importance_loss(noisy).item() == pytest.approx(1)  # load (2, 2, 0, 0)


@pytest.mark.parametrize("top_k", [1, 2, 5])
def test_the_load_of_a_noisy_router_is_that_of_drawing_one_experts_noise_again(top_k):
    router = layer_of(n_experts=5, top_k=top_k, noisy=True).router.train()
    router.noise.weight.data.normal_(0, 0.3)
    x, draws = normal(1, 4, 16), 20_000
    routing = router(x)
    with torch.no_grad():
        clean = F.linear(x, router.proj.weight)
        spread = F.softplus(F.linear(x, router.noise.weight)) + 1e-2
        for e in range(5):
            again = routing.logits.repeat(draws, 1, 1)
            redrawn = clean[..., e] + spread[..., e] * normal(draws, 4, seed=e)
            again[..., e] = redrawn
            share = (again.topk(top_k).indices == e).any(-1).float().mean(0)
            close(routing.again[0, :, e], share, atol=0.02)
    assert routing.again.requires_grad == (top_k < 5)


# --- biases instead of a loss --------------------------------------------------------------------


def test_biases_move_against_the_load_and_their_mean_stays():
    layer = layer_of(balance="bias", bias_rate=0.01, top_k=2).train()
    router, context = layer.router, Context()
    router.bias.zero_()
    layer(normal(3, 11, 16) + 0.3, context)
    counts = context.routing[0].counts().sum(0)
    assert torch.equal(router.load, counts)
    assert counts.sum() == 3 * 11 * 2
    assert len(set(counts.tolist())) > 1
    rebalance(layer)
    step = torch.sign(counts.mean() - counts)
    close(router.bias, 0.01 * (step - step.mean()))
    assert router.bias[counts.argmax()] < 0 < router.bias[counts.argmin()]
    assert router.bias.mean().abs() < 1e-8
    assert router.load.sum() == 0
    before = router.bias.clone()
    rebalance(layer)  # nothing was counted since
    assert torch.equal(router.bias, before)


def test_biases_stand_still_in_eval_and_padding_is_not_counted():
    model, idx = model_of(balance="bias", top_k=2), ids()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model(idx, idx)
    rebalance(model)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    targets = idx.clone()
    targets[0, 5:] = -100
    model.train()(idx, targets)
    assert [r.load.sum().item() for r in routers(model)] == [2 * (2 * 24 + 5)] * 2


def test_biases_choose_but_never_weigh():
    router = layer_of(balance="bias", top_k=2, scores="sigmoid", norm_topk_prob=True).router
    x = normal(3, 11, 16)
    router.bias.zero_()
    before = router(x)
    router.bias.copy_(torch.tensor([-9.0, 9.0, 5.0, -9.0]))
    after = router(x)
    assert (before.experts[..., 0] != 1).any()
    assert (after.experts == torch.tensor([1, 2])).all()
    assert torch.equal(after.probs, before.probs)
    chosen = before.probs[..., 1:3]
    close(after.weights, chosen / chosen.sum(-1, keepdim=True))


def test_biases_even_out_a_lopsided_router():
    router = layer_of(balance="bias", bias_rate=5e-3, top_k=2).router.train()
    router.bias.zero_()
    x = normal(4, 64, 16) + 0.5
    start = variation(router(x).load())
    for _ in range(300):
        router(x)
        rebalance(router)
    assert start > 0.3
    assert variation(router(x).load()) < 0.1


def test_biases_move_once_per_update_by_the_counts_of_all_its_batches(corpus, small, monkeypatch):
    torch.manual_seed(0)
    model = TinyGPT(replace(small, moe=MoEConfig(balance="bias", top_k=2)))
    start = copy.deepcopy(model)
    loads = []

    def watched(model):
        loads.append([r.load.clone() for r in routers(model)])
        rebalance(model)

    monkeypatch.setattr("tinygpt.trainer.rebalance", watched)
    training = replace(QUICK, grad_accum_steps=3, max_steps=20)
    trainer = Trainer(model, corpus, training)
    trainer.train_step()
    generator = torch.Generator().manual_seed(training.seed)
    counts = [torch.zeros(4), torch.zeros(4)]
    for _ in range(3):
        batch = get_batch(corpus.train, 4, small.block_size, generator)
        for i, routing in enumerate(start(*batch, return_routing=True).routing):
            counts[i] += routing.counts().sum(0)
    assert len(loads) == 1
    for load, expected in zip(loads[0], counts, strict=True):
        assert load.sum() == 3 * 4 * 16 * 2
        assert torch.equal(load, expected)
    rate = model.config.moe.bias_rate
    for router, expected in zip(routers(model), counts, strict=True):
        step = torch.sign(expected.mean() - expected)
        close(router.bias, rate * (step - step.mean()), atol=1e-9)
    trainer.fit(progress=False)
    assert len(loads) == 20
    assert all(load.sum() == 3 * 4 * 16 * 2 for step in loads for load in step)


def moe_trainer(corpus, small, out_dir=None, **training) -> Trainer:
    """Everything that has a state or draws: biases, noise, dropout inside and around experts."""
    moe = MoEConfig(
        top_k=2, balance="bias", noisy=True, jitter=0.1, expert_dropout=0.1, capacity_factor=1.0
    )
    torch.manual_seed(0)
    model = TinyGPT(replace(small, moe=moe, dropout=0.1))
    changes = {"grad_accum_steps": 2, "max_steps": 30} | training
    return Trainer(model, corpus, replace(QUICK, **changes), out_dir)


def same_state(a: TinyGPT, b: TinyGPT) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def same_tables(a: dict, b: dict) -> bool:
    return list(a) == list(b) and all(torch.equal(a[step], b[step]) for step in a)


@pytest.mark.parametrize(("stop", "optimizer"), [(13, "adamw"), (20, "muon")])
def test_stopped_and_resumed_equals_uninterrupted(corpus, small, tmp_path, stop, optimizer):
    whole = moe_trainer(corpus, small, optimizer=optimizer)
    whole.fit(progress=False)
    stopped = moe_trainer(corpus, small, tmp_path / "run", optimizer=optimizer)
    interrupt_after(stopped, stop)
    torch.manual_seed(99)  # whatever came between
    resumed = Trainer.resume(tmp_path / "run", corpus)
    assert same_state(resumed.model, stopped.model)
    assert all(r.bias.abs().max() > 0 for r in routers(resumed.model))
    assert list(resumed.expert_tables) == [s for s in (0, 10, 20) if s <= stop]
    resumed.fit(progress=False)
    assert same_state(resumed.model, whole.model)
    assert same_tables(resumed.expert_tables, whole.expert_tables)
    assert same_tables(load_expert_tables(tmp_path / "run"), whole.expert_tables)
    expected = whole.metrics.frame().drop(columns=CHANCE)
    assert expected.equals(resumed.metrics.frame().drop(columns=CHANCE))


def test_resuming_without_the_biases_would_show(corpus, small, tmp_path):
    """The control of the test above."""
    whole = moe_trainer(corpus, small)
    whole.fit(progress=False)
    interrupt_after(moe_trainer(corpus, small, tmp_path / "run"), 13)
    resumed = Trainer.resume(tmp_path / "run", corpus)
    for router in routers(resumed.model):
        router.bias.zero_()
    resumed.fit(progress=False)
    assert not same_state(resumed.model, whole.model)


def test_a_run_taken_up_earlier_forgets_later_tables(corpus, small, tmp_path):
    folder = tmp_path / "run"
    first = moe_trainer(corpus, small, folder)
    first.fit(progress=False)
    assert list(first.expert_tables) == [0, 10, 20, 30]
    shutil.rmtree(latest_checkpoint(folder))
    resumed = Trainer.resume(folder, corpus)
    assert list(resumed.expert_tables) == [0, 10, 20]
    resumed.fit(progress=False)
    assert same_tables(resumed.expert_tables, first.expert_tables)
    assert same_tables(load_expert_tables(folder), first.expert_tables)
    export_run(folder, tmp_path / "shipped")
    assert same_tables(load_expert_tables(tmp_path / "shipped"), first.expert_tables)


def test_a_new_run_does_not_inherit_the_tables_of_a_dead_one(corpus, small, tmp_path):
    moe_trainer(corpus, small, tmp_path / "run")._routing()
    assert (tmp_path / "run" / "experts.safetensors").exists()
    again = moe_trainer(corpus, small, tmp_path / "run", max_steps=10)
    assert not (tmp_path / "run" / "experts.safetensors").exists()
    again.fit(progress=False)
    assert list(load_expert_tables(tmp_path / "run")) == [0, 10]


# --- who may be chosen ---------------------------------------------------------------------------


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize(("top_k", "top_p"), [(3, 0.6), (5, 0.75), (5, 1.0), (2, 0.05)])
def test_top_p_takes_the_fewest_experts_that_reach_it(top_k, top_p, norm):
    router = layer_of(n_experts=5, top_k=top_k, top_p=top_p, norm_topk_prob=norm).router
    routing = router(normal(4, 20, 16))
    sizes = set()
    for b, t in itertools.product(range(4), range(20)):
        probs = routing.probs[b, t].tolist()
        ranked = sorted(range(5), key=lambda e: -probs[e])
        # the first number of experts that is enough: the one that crosses is in
        enough = [n for n in range(1, 6) if sum(sorted(probs)[-n:]) >= top_p - 1e-6]
        expected = ranked[: min(top_k, *enough, 5)]
        assert routing.experts[b, t].tolist() == expected + [5] * (top_k - len(expected))
        total = sum(probs[e] for e in expected) if norm else 1.0
        weights = [probs[e] / total for e in expected] + [0.0] * (top_k - len(expected))
        assert routing.weights[b, t].tolist() == pytest.approx(weights, abs=1e-6)
        sizes.add(len(expected))
    assert len(sizes) > 1 or top_p in (1.0, 0.05)


@pytest.mark.parametrize("offset", [0.0, -5.0])
@pytest.mark.parametrize("top_groups", [1, 2, 4])
def test_a_token_stays_within_its_best_groups(top_groups, offset):
    """Masked with 0 instead of minus infinity, another group would win where biases are below."""
    router = layer_of(
        n_experts=8, top_k=2, scores="sigmoid", balance="bias", n_groups=4, top_groups=top_groups
    ).router
    router.bias.add_(offset)
    routing = router(normal(4, 20, 16))
    scores = (routing.probs + router.bias).view(4, 20, 4, 2)
    outside = 0
    for b, t in itertools.product(range(4), range(20)):
        best = scores[b, t].sum(-1).topk(top_groups).indices.tolist()
        allowed = [e for e in range(8) if e // 2 in best]
        expected = sorted(allowed, key=lambda e: -scores[b, t].flatten()[e].item())[:2]
        assert routing.experts[b, t].tolist() == expected
        outside += expected != scores[b, t].flatten().topk(2).indices.tolist()
    assert (outside > 0) == (top_groups < 4)


def test_forced_balance_is_even_and_still_trains_the_router():
    model, idx = model_of(forced_balance=True, top_k=2, balance="none"), ids()
    out = model(idx[:, :-1], idx[:, 1:], return_routing=True)
    for routing in out.routing:
        counts = routing.counts().sum(0)
        assert counts.max() - counts.min() <= 1
        assert (routing.experts[..., 0] != routing.experts[..., 1]).all()
        close(routing.weights, routing.probs.gather(-1, routing.experts))
    out.loss.backward()
    assert all(r.proj.weight.grad.norm() > 1e-3 for r in routers(model))


@pytest.mark.parametrize("scores", ["softmax", "sigmoid"])
@pytest.mark.parametrize("hidden", [None, 7])
def test_a_router_is_one_matrix_or_two_with_a_gelu_between(hidden, scores):
    router = layer_of(router_hidden=hidden, scores=scores, top_k=2).router
    h = x = normal(2, 5, 16)
    if hidden:
        h = x @ router.hidden.weight.T
        h = 0.5 * h * (1 + torch.erf(h / math.sqrt(2)))
    logits = h @ router.proj.weight.T
    probs = logits.softmax(-1) if scores == "softmax" else 1 / (1 + torch.exp(-logits))
    routing = router(x)
    close(routing.logits, logits)
    close(routing.probs, probs)
    close(routing.weights, probs.sort(descending=True).values[..., :2])
    assert torch.equal(routing.experts, probs.argsort(descending=True)[..., :2])


@pytest.mark.parametrize(("top_k", "factor", "T"), [(1, 0.5, 24), (2, 0.9, 10), (3, 0.7, 7)])
def test_the_first_in_time_are_kept_up_to_the_capacity(top_k, factor, T):
    layer = layer_of(top_k=top_k, capacity_factor=factor).train()
    x, context = normal(3, T, 16), Context()
    y = layer(x, context)
    (routing,) = context.routing
    limit = math.ceil(factor * top_k * T / 4)
    for b in range(3):
        taken = [0] * 4
        for t, k in itertools.product(range(T), range(top_k)):
            e = int(routing.experts[b, t, k])
            assert routing.dropped[b, t, k] == (taken[e] >= limit)
            taken[e] += 1
    assert routing.dropped.any()
    assert (routing.weights[routing.dropped] == 0).all()
    kept = routing.weights[~routing.dropped]
    close(kept, routing.probs.gather(-1, routing.experts)[~routing.dropped])
    lost = routing.dropped.all(-1)
    assert lost.any() or top_k > 1
    assert y[lost].abs().sum() == 0
    assert y[~lost].abs().sum(-1).min() > 0
    assert routing.counts().sum() == 3 * T * top_k  # drops count as choices


@pytest.mark.parametrize("dispatch", DISPATCHES)
def test_a_dropped_token_passes_through_the_block_unchanged(dispatch):
    model = model_of(capacity_factor=0.5, dispatch=dispatch).train()
    block, x, context = model.blocks[0], normal(2, 24, 16), Context()
    y = block(x, context)
    lost = context.routing[0].dropped.all(-1)
    assert lost.any()
    assert torch.equal(y[lost], (x + block.attn(block.ln_1(x)))[lost])


@pytest.mark.parametrize("dispatch", ["loop", "split"])
@pytest.mark.parametrize("mode", ["capacity, top-2", "top-p"])
def test_an_expert_that_was_not_asked_costs_nothing(mode, dispatch):
    layer, x, context = (
        layer_of(**MODES[mode], dispatch=dispatch).train(),
        normal(2, 24, 16),
        Context(),
    )
    with FlopCounterMode(display=False) as counter:
        layer(x, context)
    (routing,) = context.routing
    asked = ((routing.experts < 4) & ~routing.dropped).sum().item()
    assert asked < routing.experts.numel()
    router, expert = 16 * 4, 16 * 64 + 64 * 16  # products per token
    assert counter.get_total_flops() == 2 * (2 * 24 * router + asked * expert)


# --- statistics ----------------------------------------------------------------------------------


def test_load_and_its_statistics_in_closed_form():
    experts = torch.tensor([[[0], [0], [0], [2]], [[0], [2], [1], [0]]])
    routing = routing_of(torch.zeros(2, 4, 4), experts=experts)
    assert routing.counts().tolist() == [[3, 0, 1, 0], [2, 1, 1, 0]]
    close(routing.load(), torch.tensor([5, 1, 2, 0]) / 8)
    valid = torch.tensor([[True, False, False, True], [False, False, True, True]])
    close(routing.load(valid), torch.tensor([2, 1, 1, 0]) / 4)
    load = routing.load()
    assert load.sum() == 1
    assert variation(load) == pytest.approx(np.std([5, 1, 2, 0]) / 2)
    assert max_violation(load) == pytest.approx(5 / 2 - 1)
    assert dead_experts(load) == [3]
    assert dead_experts(load, share=0.6) == [1, 3]
    even = torch.full((4,), 0.25)
    assert (variation(even), max_violation(even), dead_experts(even)) == (0, 0, [])


def test_entropy_lies_between_certainty_and_ignorance():
    assert collapsed(0).entropy().item() == pytest.approx(0, abs=1e-6)
    assert routing_of(torch.zeros(1, 3, 5)).entropy().item() == pytest.approx(math.log(5))
    half = routing_of(torch.tensor([[[0.0, 0.0, -99.0]]]))
    assert half.entropy().item() == pytest.approx(math.log(2))
    sigmoid = replace(half, probs=torch.full((1, 1, 3), 0.2))  # scores need not add up to 1
    assert sigmoid.entropy().item() == pytest.approx(math.log(3))


@pytest.mark.parametrize("moe", [{}, {"top_k": 3, "top_p": 0.6}])
def test_a_table_counts_labels_and_experts(moe):
    routing, labels = layer_of(**moe).router(normal(3, 15, 16)), ids(3, 15) % 7 - 1
    expected = torch.zeros(6, 4, dtype=torch.long)
    for b, t, k in itertools.product(*map(range, routing.experts.shape)):
        if labels[b, t] >= 0 and routing.experts[b, t, k] < 4:
            expected[labels[b, t], routing.experts[b, t, k]] += 1
    assert torch.equal(routing.table(labels, 6), expected)


def test_mutual_information_in_closed_form():
    independent = torch.outer(torch.tensor([1, 2, 3]), torch.tensor([4, 0, 5, 1]))
    assert mutual_information(independent) == pytest.approx(0, abs=1e-9)
    shares = torch.tensor([2, 3, 5])
    entropy = -sum(p * math.log(p) for p in (0.2, 0.3, 0.5))
    assert mutual_information(shares.diag()) == pytest.approx(entropy)
    assert mutual_information(shares.diag()[:, [2, 0, 1]]) == pytest.approx(entropy)


def test_agreement_is_one_up_to_the_names_of_experts_and_nought_if_independent():
    logits = normal(1, 64, 4) * 3
    first = routing_of(logits, 2)
    renamed = routing_of(logits[..., [2, 0, 3, 1]], 2)
    assert agreement(first, renamed) == pytest.approx(1)
    rows = torch.arange(64).view(1, 64, 1)
    here, there = (routing_of(torch.zeros(1, 64, 4), experts=e) for e in (rows % 4, rows // 4 % 4))
    assert agreement(here, there) == pytest.approx(0, abs=1e-9)
    halves = routing_of(torch.zeros(1, 64, 4), experts=rows % 4 // 2)  # of 2 bits, 1 is known
    assert agreement(here, halves) == agreement(halves, here) == pytest.approx(0.5)
    assert math.isnan(agreement(collapsed(0), collapsed(1)))


@pytest.mark.parametrize(
    "moe", [{"top_k": 2}, {"top_k": 3, "top_p": 0.6, "every": 2, "jitter": 0.3}]
)
def test_a_report_counts_every_token_of_the_split(moe):
    model, tokens = model_of(**moe).train(), ids(1, 24 * 5 + 10)[0]
    report = measure_routing(model, tokens)
    assert model.training
    model.eval()
    layers = 2 // moe.get("every", 1)
    tables = torch.zeros(layers, 65, 4, dtype=torch.long)
    figures, counted = torch.zeros(3, layers), len(tokens) - 1
    whole, rest = tokens[: 24 * 5].view(5, 24), tokens[24 * 5 : -1][None]
    for x in (whole, rest):  # the last, shorter window weighs as many tokens as it has
        for i, r in enumerate(model(x, return_routing=True).routing):
            tables[i] += r.table(x, 65)
            one = torch.stack([balance_loss(r), z_loss(r), r.entropy()])
            figures[:, i] += one.detach() * x.numel() / counted
    assert torch.equal(report.tables, tables)
    if "top_p" not in moe:
        assert (report.tables.sum((1, 2)) == counted * 2).all()
    close(torch.stack([report.balance_loss, report.z_loss, report.entropy]), figures)
    close(report.load, tables.sum(1) / tables.sum((1, 2))[:, None])
    assert report.load_cv == pytest.approx(max(variation(row) for row in report.load))


def test_a_report_of_a_dense_model_is_refused():
    with pytest.raises(ConfigError, match="has no experts"):
        measure_routing(shaken(SHAPE), ids()[0])


# --- silencing experts ---------------------------------------------------------------------------


def silence(model: TinyGPT, layers: list[int], expert: int | slice, share: float = 0.0) -> TinyGPT:
    model = copy.deepcopy(model)
    with torch.no_grad():
        for i in layers:
            c_proj = model.blocks[i].ffn.experts.c_proj
            c_proj.weight[expert] *= share
            c_proj.bias[expert] *= share
    return model


@pytest.mark.parametrize("dispatch", DISPATCHES)
def test_an_expert_mask_silences_experts(dispatch):
    model, idx = model_of(top_k=2, dispatch=dispatch), ids()
    plain = model(idx, return_routing=True)
    close(model(idx, expert_mask=torch.ones(4)).logits, plain.logits)
    mask = torch.tensor([1, 0, 1, 1])
    masked = model(idx, expert_mask=mask, return_routing=True)
    close(masked.logits, silence(model, [0, 1], 1)(idx).logits)
    assert torch.equal(masked.routing[0].weights, plain.routing[0].weights)  # as decided
    one_layer = torch.tensor([[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 0.5, 1.0]])
    actual = model(idx, expert_mask=one_layer).logits
    close(actual, silence(model, [1], 2, 0.5)(idx).logits)
    assert (actual - plain.logits).abs().max() > 1e-3


def test_a_mask_of_zeros_leaves_a_block_without_its_feed_forward_layer(monkeypatch):
    model, idx = model_of(top_k=2), ids()
    masked = model(idx, expert_mask=torch.zeros(4)).logits
    monkeypatch.setattr(MoE, "forward", lambda self, x, context=None: torch.zeros_like(x))
    assert torch.equal(masked, model(idx).logits)


def test_a_mask_has_a_row_for_each_layer_with_experts_only():
    model, idx = model_of(every=2), ids()  # experts in the second block
    mask = torch.tensor([[0.0, 1.0, 1.0, 1.0]])
    close(model(idx, expert_mask=mask).logits, silence(model, [1], 0)(idx).logits)


@pytest.mark.parametrize("shape", [(5,), (1, 4), (3, 4), (4, 2), (), (2, 4, 1)])
def test_a_mask_of_another_shape_is_refused(shape):
    words = rf"expert_mask has shape \({str(shape)[1:-1]}\), this model wants \(4,\)"
    with pytest.raises(ConfigError, match=words):
        model_of()(ids(), expert_mask=torch.ones(shape))
    with pytest.raises(ConfigError, match="this model wants no experts"):
        shaken(SHAPE)(ids(), expert_mask=torch.ones(4))


# --- settings, counts, checkpoints ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"n_experts": 0}, "n_experts=0 must be at least 1"),
        ({"n_experts": 4.0}, "n_experts=4.0 must be a whole number"),
        ({"top_k": 0}, "top_k=0 must be at least 1"),
        ({"top_k": 5}, "top_k=5 is more than n_experts=4"),
        ({"top_k": True}, "top_k=True must be a whole number"),
        ({"n_inner": 0}, "n_inner=0"),
        ({"every": 0}, "every=0"),
        ({"first_dense": -1}, "first_dense=-1 must be at least 0"),
        ({"n_shared": -1}, "n_shared=-1"),
        ({"shared_gate": True}, "n_shared=0"),
        ({"scores": "relu"}, "scores='relu' must be one of softmax, sigmoid"),
        ({"routed_scaling_factor": 0.0}, "routed_scaling_factor=0.0 must be above 0"),
        ({"straight_through": True, "top_k": 2}, "straight_through is for top_k=1; with top_k=2"),
        ({"top_p": 0.0}, "top_p=0.0 must be above 0 and at most 1"),
        ({"top_p": 1.1}, "top_p=1.1"),
        ({"top_p": 0.5, "scores": "sigmoid"}, "top_p=0.5.*needs scores='softmax'"),
        ({"n_groups": 3}, "n_experts=4 is not divisible by n_groups=3"),
        ({"n_groups": 0}, "n_groups=0"),
        ({"top_groups": 2}, "top_groups=2 of n_groups=1"),
        ({"n_groups": 4, "top_groups": 1, "top_k": 2}, "hold 1 of the 4 experts, and top_k=2"),
        ({"top_groups": 0}, "top_groups=0"),
        ({"router_hidden": 0}, "router_hidden=0"),
        ({"jitter": 1.0}, "jitter=1.0 must be at least 0 and below 1"),
        ({"expert_dropout": -0.1}, "expert_dropout=-0.1"),
        ({"capacity_factor": 0.0}, "capacity_factor=0.0 must be above 0"),
        ({"balance": "luck"}, "balance='luck' must be one of loss, bias, none"),
        ({"balance_weight": -1.0}, "balance_weight=-1.0"),
        ({"balance_weight": math.nan}, "balance_weight=nan"),
        ({"balance_level": "token"}, "balance_level='token'"),
        ({"bias_rate": -1e-3}, "bias_rate=-0.001"),
        ({"z_weight": -1.0}, "z_weight=-1.0"),
        ({"cv_weight": -1.0}, "cv_weight=-1.0"),
        ({"dispatch": "magic"}, "dispatch='magic' must be one of auto, loop, split, grouped_mm"),
        ({"expert_choice": True}, "would see the future.*allow_leak=True"),
    ],
)
def test_bad_settings(changes, words):
    with pytest.raises(ConfigError, match=words):
        MoEConfig(**changes)


@pytest.mark.parametrize(
    ("moe", "expected"),
    [
        ({}, [0, 1, 2, 3, 4, 5]),
        ({"every": 2}, [1, 3, 5]),
        ({"every": 3}, [2, 5]),
        ({"first_dense": 1}, [1, 2, 3, 4, 5]),
        ({"first_dense": 1, "every": 2}, [2, 4]),
        ({"first_dense": 5}, [5]),
    ],
)
def test_which_blocks_have_experts(moe, expected):
    shape = config(replace(SHAPE, n_layer=6), **moe)
    assert [i for i in range(6) if shape.is_moe(i)] == expected
    blocks = TinyGPT(shape).blocks
    assert [i for i, block in enumerate(blocks) if isinstance(block.ffn, MoE)] == expected
    assert not any(replace(shape, moe=None).is_moe(i) for i in range(6))


@pytest.mark.parametrize("moe", [{"every": 3}, {"first_dense": 2}])
def test_experts_in_no_block_are_refused(moe):
    with pytest.raises(ConfigError, match="no block would have experts: n_layer=2"):
        config(**moe)


def test_settings_survive_json():
    shape = config(LLAMA, **MODES["deepseek"])
    assert from_dict(ModelConfig, to_dict(shape)) == shape
    assert from_dict(ModelConfig, to_dict(SHAPE)) == SHAPE
    values = to_dict(shape)
    values["moe"]["n_expert"] = 4
    with pytest.raises(ConfigError, match="MoEConfig has no setting n_expert"):
        from_dict(ModelConfig, values)


@pytest.mark.parametrize("mode", ["deepseek", "noisy", "shared"])
def test_a_checkpoint_gives_back_the_same_logits(mode, tmp_path):
    model, idx = model_of(**MODES[mode]), ids()
    tokenizer = CharTokenizer("".join(chr(48 + i) for i in range(65)))
    save_checkpoint(tmp_path / "saved", Checkpoint(model, tokenizer, {}, {}, {}))
    loaded = load_checkpoint(tmp_path / "saved").model.eval()
    assert loaded.config == model.config
    assert torch.equal(loaded(idx).logits, model(idx).logits)
    assert same_state(loaded, model)


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
    model(ids(1, 1)).logits.square().sum().backward()
    rows = [p.grad.flatten(1).abs().amax(1) for n, p in model.named_parameters() if "experts" in n]
    assert rows
    assert all((row > 0).sum() == top_k for row in rows)


@pytest.mark.parametrize("dispatch", ["loop", "split"])
@pytest.mark.parametrize(
    "moe", [{}, {"top_k": 2, "n_shared": 1, "shared_gate": True, "n_inner": 24}, {"every": 2}]
)
def test_flops_equal_torchs_own_counter(moe, dispatch):
    model = TinyGPT(config(replace(SHAPE, n_embd=32), **moe, dispatch=dispatch))
    idx = ids(2)
    with FlopCounterMode(display=False) as forward:
        loss = model(idx, idx, return_attention=True).loss
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    assert forward.get_total_flops() == idx.numel() * flops_per_token(model, training=False)
    both = forward.get_total_flops() + backward.get_total_flops()
    assert both == idx.numel() * flops_per_token(model)


# --- the start, and the optimizers ---------------------------------------------------------------


def test_experts_start_as_dense_layers_do():
    torch.manual_seed(0)
    model = TinyGPT(config(replace(SHAPE, n_embd=128, n_layer=8), n_shared=1, noisy=True))
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
    model, idx = TinyGPT(config(replace(SHAPE, zero_init=True), n_shared=1)), ids()
    x = model.wte(idx) + model.wpe.weight[:24]
    close(model(idx).logits, model.lm_head(model.ln_f(x)))


def test_muon_takes_the_experts_and_adamw_the_router():
    """A router's rows are directions to compare with, not a matrix to orthogonalise."""
    model = model_of(n_shared=1, router_hidden=8, noisy=True)
    adamw, muon = make_optimizers(model, TrainConfig(optimizer="muon", weight_decay=0.3))
    names = {id(p): name for name, p in model.named_parameters()}

    def of(params):
        return {names[id(p)].removeprefix("blocks.0.ffn.") for p in params}

    (group,) = muon.param_groups
    wanted = {f"experts.{n}.weight" for n in ("c_fc", "c_proj")}
    wanted |= {f"shared.{n}.weight" for n in ("c_fc", "c_proj")}
    assert {name for name in of(group["params"]) if not name.startswith("blocks")} == wanted
    decayed, free = (of(g["params"]) for g in adamw.param_groups)
    assert {"router.proj.weight", "router.hidden.weight", "router.noise.weight"} <= decayed
    assert {"experts.c_fc.bias", "experts.c_proj.bias"} <= free  # although they look like matrices
    assert [g["weight_decay"] for g in adamw.param_groups] == [0.3, 0.0]
    groups = [g for o in (adamw, muon) for g in o.param_groups]
    assert sum(len(g["params"]) for g in groups) == len(names)


def test_the_preset_learns(corpus):
    torch.manual_seed(0)
    preset = PRESETS["tiny-moe"]
    model = TinyGPT(replace(preset.model, vocab_size=corpus.tokenizer.vocab_size))
    start = [r.proj.weight.detach().clone() for r in routers(model)]
    training = replace(preset.train, max_steps=60, eval_interval=60, warmup_steps=10, batch_size=8)
    trainer = Trainer(model, corpus, training)
    trainer.fit(progress=False)
    assert trainer.metrics.rows[-1]["val_lm_loss"] < 2.2
    assert trainer.metrics.rows[-1]["load_cv"] < 1
    for router, before in zip(routers(model), start, strict=True):
        assert (router.proj.weight - before).norm() > 0.1 * before.norm()


# --- on a GPU ------------------------------------------------------------------------------------


def capability() -> tuple[int, int]:
    return torch.cuda.get_device_capability() if torch.cuda.is_available() else (0, 0)


hopper = pytest.mark.skipif(
    capability() < (9, 0), reason="before Hopper, grouped_mm itself asks for the groups' sizes"
)
ampere = pytest.mark.skipif(capability() < (8, 0), reason="grouped_mm wants an Ampere GPU")
ON_CUDA = ["top-1", "capacity, top-2", "top-p", "deepseek", "noisy", "shared"]


@pytest.mark.cuda
@hopper
@pytest.mark.parametrize("mode", ON_CUDA)
def test_an_update_on_cuda_never_waits_for_the_device(mode):
    """Neither routing nor dispatch, nor their gradients, nor the biases ask what was chosen."""
    moe = {"expert_dropout": 0.1, "z_weight": 0.01, "cv_weight": 0.01} | MODES[mode]
    model = model_of(replace(SHAPE, n_embd=64, dropout=0.1), **moe).cuda().train()
    optimizers = make_optimizers(model, TrainConfig(optimizer="muon"))
    idx = ids(8).cuda()
    targets = idx.roll(-1, 1)

    def update() -> None:
        model.zero_grad()
        with torch.autocast("cuda", torch.bfloat16):
            loss = model(idx, targets).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        rebalance(model)

    for _ in range(2):  # what is set up once may wait
        update()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        update()
    finally:
        torch.cuda.set_sync_debug_mode("default")


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
        context = Context()
        with torch.autocast("cuda", torch.bfloat16, enabled=half):
            y = layer(x, context)
        (y.float() * normal(4, 50, width, seed=3).cuda()).sum().backward()
        (routing,) = context.routing
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


@pytest.mark.cuda
@ampere
def test_cuda_trains_experts_in_bf16(corpus, small, tmp_path, monkeypatch):
    called = []
    for name in DISPATCHES:
        monkeypatch.setattr(Experts, name, spy(getattr(Experts, name), called, name))
    torch.manual_seed(0)
    model = TinyGPT(replace(small, moe=MoEConfig(top_k=2, balance="bias")))
    training = replace(QUICK, lr=1e-2)
    trainer = Trainer(model, corpus, training, tmp_path / "run")
    trainer.fit(progress=False)
    assert set(called) == {"grouped_mm"}
    assert trainer.metrics.rows[-1]["val_lm_loss"] < 2.5
    there = evaluate(model, corpus.val, precision="fp32")
    loaded = load_checkpoint(latest_checkpoint(tmp_path / "run")).model
    assert evaluate(loaded, corpus.val, precision="fp32") == pytest.approx(there, rel=1e-3)
    resumed = Trainer.resume(tmp_path / "run", corpus, replace(training, max_steps=50))
    resumed.fit(progress=False)
    assert all(r.bias.is_cuda and r.bias.abs().max() > 0 for r in routers(resumed.model))


@pytest.mark.cuda
@hopper
def test_cuda_compiles_experts(corpus, small):
    torch.manual_seed(0)
    model = TinyGPT(replace(small, moe=MoEConfig(top_k=2)))
    trainer = Trainer(model, corpus, replace(QUICK, compile=True, lr=1e-2))
    trainer.fit(progress=False)
    assert trainer.metrics.rows[-1]["val_lm_loss"] < 2.5
