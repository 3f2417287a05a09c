from dataclasses import replace

import pytest
import torch
from transformers import MixtralConfig, MixtralForCausalLM, Qwen2MoeConfig, Qwen2MoeForCausalLM
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3Config, DeepseekV3MoE
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from tinygpt import ModelConfig, TinyGPT
from tinygpt.model import MLP, MoE, balance_loss, expert_width

from ..parity import attention_weights
from ..tools import LLAMA, close, layer_of, model_of, normal, random_ids, routing_of


def their_options(c: ModelConfig) -> dict:
    return {
        "vocab_size": c.vocab_size,
        "max_position_embeddings": c.block_size,
        "hidden_size": c.n_embd,
        "num_hidden_layers": c.n_layer,
        "num_attention_heads": c.n_head,
        "num_key_value_heads": c.kv_heads,
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
        names = attention_weights(block.attn) | {
            "input_layernorm.weight": block.ln_1.weight,
            "post_attention_layernorm.weight": block.ln_2.weight,
        }
        ffn = expert_weights if isinstance(block.ffn, MoE) else dense_weights
        names |= {f"mlp.{name}": value for name, value in ffn(block.ffn).items()}
        weights |= {f"model.layers.{i}.{name}": value for name, value in names.items()}
    return weights


def as_mixtral(model: TinyGPT):

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
    shape = replace(LLAMA, n_head=4, n_kv_head=2)
    return model_of(shape, n_experts=8, top_k=2, norm_topk_prob=True, n_inner=12)


def qwen2_moe(norm: bool, every: int = 1) -> TinyGPT:
    shape = replace(LLAMA, n_head=4, n_kv_head=2, qkv_bias=True)
    moe = {"n_experts": 5, "top_k": 3, "n_inner": 12, "n_shared": 2, "shared_gate": True}
    return model_of(shape, **moe, norm_topk_prob=norm, every=every)


PAIRS = {
    "mixtral": lambda: (m := mixtral(), as_mixtral(m)),
    "qwen2-moe": lambda: (m := qwen2_moe(norm=False), as_qwen2_moe(m)),
    "qwen2-moe, normed": lambda: (m := qwen2_moe(norm=True), as_qwen2_moe(m)),
    "qwen2-moe, every other": lambda: (m := qwen2_moe(norm=False, every=2), as_qwen2_moe(m)),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_a_whole_model_equals_transformers(pair):
    (model, theirs), idx = PAIRS[pair](), random_ids()
    with torch.inference_mode():
        close(model(idx).logits, theirs(idx).logits)
        loss = theirs(idx, labels=idx).loss
    close(model(idx[:, :-1], idx[:, 1:]).lm_loss, loss)


@pytest.mark.parametrize("pair", ["mixtral", "qwen2-moe", "qwen2-moe, normed"])
def test_a_block_equals_transformers_in_outputs_and_gradients(pair):
    model, theirs = PAIRS[pair]()
    ours, theirs = model.blocks[0].ffn, theirs.model.layers[0].mlp
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
