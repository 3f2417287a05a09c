from dataclasses import replace

import pytest
import torch
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3Config, DeepseekV3MoE
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from tinygpt import TinyGPT
from tinygpt.model import MLP, MoE, balance_loss

from ..parity import as_theirs
from ..tools import LLAMA, close, layer_of, model_of, normal, random_ids, routing_of


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


def mixtral() -> TinyGPT:
    shape = replace(LLAMA, n_head=4, n_kv_head=2)
    return model_of(shape, n_experts=8, top_k=2, norm_topk_prob=True, n_inner=12)


def qwen2_moe(norm: bool, every: int = 1) -> TinyGPT:
    shape = replace(LLAMA, n_head=4, n_kv_head=2, qkv_bias=True)
    moe = {"n_experts": 5, "top_k": 3, "n_inner": 12, "n_shared": 2, "shared_gate": True}
    return model_of(shape, **moe, norm_topk_prob=norm, every=every)


MODELS = {
    "mixtral": mixtral,
    "qwen2-moe": lambda: qwen2_moe(norm=False),
    "qwen2-moe, normed": lambda: qwen2_moe(norm=True),
    "qwen2-moe, every other": lambda: qwen2_moe(norm=False, every=2),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_whole_model_equals_transformers(name):
    model, idx = MODELS[name](), random_ids()
    theirs = as_theirs(model)
    with torch.inference_mode():
        close(model(idx).logits, theirs(idx).logits)
        loss = theirs(idx, labels=idx).loss
    close(model(idx[:, :-1], idx[:, 1:]).lm_loss, loss)


@pytest.mark.parametrize("name", ["mixtral", "qwen2-moe", "qwen2-moe, normed"])
def test_a_block_equals_transformers_in_outputs_and_gradients(name):
    model = MODELS[name]()
    ours, theirs = model.blocks[0].ffn, as_theirs(model).model.layers[0].mlp
    x, direction = normal(2, 9, 16).requires_grad_(), normal(2, 9, 16, seed=3)
    close(ours(x)[0], theirs(x))
    wanted = [theirs.gate.weight, theirs.experts.gate_up_proj, theirs.experts.down_proj]
    expected = torch.autograd.grad((theirs(x) * direction).sum(), [x, *wanted])
    found = [ours.router.proj.weight, ours.experts.c_fc.weight, ours.experts.c_proj.weight]
    actual = torch.autograd.grad((ours(x)[0] * direction).sum(), [x, *found])
    for a, b in zip(actual, expected, strict=True):
        close(a, b)


def test_deepseeks_routing_and_block_equal_transformers():
    """Sigmoid scores, biases for choosing only, groups, and a factor on the weights."""

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
    close(ours(x)[0], theirs(x))


@pytest.mark.parametrize("top_k", [1, 2, 3])
@pytest.mark.parametrize("padded", [False, True])
def test_balance_loss_is_transformers_over_k(top_k, padded):
    """Theirs is k at balance, ours 1; theirs pools the layers, so one layer is compared."""

    logits = normal(3, 10, 5) * 2
    valid = torch.arange(10) < torch.tensor([[10], [4], [7]]) if padded else None
    theirs = load_balancing_loss_func((logits.flatten(0, 1),), 5, top_k, valid)
    close(balance_loss(routing_of(logits, top_k), valid), theirs / top_k)
