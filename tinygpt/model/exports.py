"""Which class of transformers holds a model, what has to be rewritten for that, or why none does.

C channels, F feed-forward width, E experts
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..checks import check
from ..config import ModelConfig, MoEConfig
from .families import CLASSES
from .gpt import TinyGPT, own_tensors

_NO_CLASS = "is in no class of transformers"


def family(config: ModelConfig) -> str:
    """The class that gives the logits of such a model: a key of `CLASSES`.

    `ConfigError` says why there is none, and what has one.
    """
    c = config
    check(not c.bigrams, f"bigrams={c.bigrams} {_NO_CLASS}; train with bigrams=0")
    check(not c.token_shift, f"token_shift {_NO_CLASS}; train without it")
    shape = (c.norm, c.position, c.mlp)
    if shape == ("layernorm", "learned", "gelu"):
        return _as_gpt2(c)
    check(
        shape == ("rmsnorm", "rope", "swiglu"),
        f"norm={c.norm!r} with position={c.position!r} and mlp={c.mlp!r} {_NO_CLASS}: GPT-2 has "
        f"layernorm, learned and gelu, Llama and its like rmsnorm, rope and swiglu",
    )
    if c.moe is not None:
        return _as_mixture(c, c.moe)
    if c.qk_norm:
        check(not c.mlp_bias, f"mlp_bias with qk_norm {_NO_CLASS}; train without one of them")
        return "qwen3"
    if has_qkv_bias(c) and not (c.attn_bias or c.mlp_bias):
        return "qwen2"
    check(
        c.n_embd % c.n_head == 0,
        f"a Llama whose n_embd={c.n_embd} is not divisible by n_head={c.n_head} {_NO_CLASS}; with "
        f"qkv_bias or qk_norm, and no other biases, it is a Qwen, which may have such heads",
    )
    return "llama"


def has_qkv_bias(c: ModelConfig) -> bool:
    """Whether queries, keys and values have biases."""
    return c.attn_bias if c.qkv_bias is None else c.qkv_bias


def _as_gpt2(c: ModelConfig) -> str:
    check(
        c.moe is None,
        f"a GPT-2 with experts {_NO_CLASS}: Mixtral, Qwen2-MoE and Qwen3-MoE have norm='rmsnorm', "
        f"position='rope', mlp='swiglu', and no biases in their experts",
    )
    check(
        not c.qk_norm and c.kv_heads == c.n_head and c.head_size * c.n_head == c.n_embd,
        f"GPT-2 with qk_norm, n_kv_head or head_dim {_NO_CLASS}; Llama and its like have them",
    )
    return "gpt2"


def _as_mixture(c: ModelConfig, moe: MoEConfig) -> str:
    check(not c.mlp_bias, f"a mixture with mlp_bias {_NO_CLASS}; train with mlp_bias=False")
    for name, built in (("scores", "softmax"), ("top_p", None), ("forced_balance", False)):
        value = getattr(moe, name)
        check(value == built, f"a mixture with {name}={value!r} {_NO_CLASS}; with {built!r} it is")
    check(
        moe.top_groups in (None, moe.n_groups),
        f"a router that keeps to groups (top_groups={moe.top_groups}) {_NO_CLASS} that is written "
        f"here; train with top_groups=None",
    )
    check(
        c.qk_norm or not c.attn_bias,
        f"a mixture with attn_bias {_NO_CLASS}, but for Qwen3-MoE with qk_norm; Qwen2-MoE has "
        f"qkv_bias",
    )
    if c.qk_norm:
        check(
            not moe.n_shared,
            f"n_shared={moe.n_shared} with qk_norm {_NO_CLASS}: Qwen2-MoE has shared experts",
        )
        return "qwen3_moe"
    everywhere = all(map(c.is_moe, range(c.n_layer)))
    as_mixtral = everywhere and not moe.n_shared and not has_qkv_bias(c) and sums_to_one(moe)
    return "mixtral" if as_mixtral else "qwen2_moe"


def sums_to_one(moe: MoEConfig) -> bool:
    """Whether the weights of a token's experts add up to 1, before `routed_scaling_factor`."""
    return moe.norm_topk_prob or moe.straight_through


def write_config(config: ModelConfig, end: int | None = None) -> dict[str, Any]:
    """The config.json of a model whose settings `family` takes; `end` is the id that ends a text.

    Values that are missing would be those of one large model: so all are there.
    """
    kind = family(config)
    shape = _gpt2_values(config) if kind == "gpt2" else _llama_values(config)
    moe = {} if config.moe is None else _moe_values(kind, config, config.moe)
    return {
        "model_type": kind,
        "architectures": [CLASSES[kind]],
        "vocab_size": config.vocab_size,
        "tie_word_embeddings": config.tie_embeddings,
        "bos_token_id": end,  # not the classes' own, which here are letters
        "eos_token_id": end,
        **shape,
        **moe,
    }


def _gpt2_values(c: ModelConfig) -> dict[str, Any]:
    return {
        "n_positions": c.block_size,
        "n_embd": c.n_embd,
        "n_layer": c.n_layer,
        "n_head": c.n_head,
        "n_inner": c.inner_size,
        "layer_norm_epsilon": c.norm_eps,
        "activation_function": "gelu_new",
        "embd_pdrop": c.dropout,
        "resid_pdrop": c.dropout,
        "attn_pdrop": 0.0,
    }


def _llama_values(c: ModelConfig) -> dict[str, Any]:
    return {
        "max_position_embeddings": c.block_size,
        "hidden_size": c.n_embd,
        "intermediate_size": c.inner_size,
        "num_hidden_layers": c.n_layer,
        "num_attention_heads": c.n_head,
        "num_key_value_heads": c.kv_heads,
        "head_dim": c.head_size,
        "hidden_act": "silu",
        "rms_norm_eps": c.norm_eps,
        "rope_theta": c.rope_theta,  # for readers of before transformers 5
        "rope_parameters": {"rope_type": "default", "rope_theta": c.rope_theta},
        "sliding_window": None,
        "attention_bias": c.attn_bias,
        "mlp_bias": c.mlp_bias,
        "attention_dropout": 0.0,
    }


def _moe_values(kind: str, c: ModelConfig, moe: MoEConfig) -> dict[str, Any]:
    width = moe.n_inner or c.inner_size
    common = {"num_experts_per_tok": moe.top_k, "output_router_logits": False}
    if kind == "mixtral":
        return common | {"num_local_experts": moe.n_experts, "intermediate_size": width}
    return common | {
        "num_experts": moe.n_experts,
        "norm_topk_prob": sums_to_one(moe),
        "moe_intermediate_size": width,
        "shared_expert_intermediate_size": moe.n_shared * width,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [i for i in range(c.n_layer) if not c.is_moe(i)],
        "qkv_bias": has_qkv_bias(c),
    }


# --- what a class cannot be told, put into the weights -------------------------------------------


def as_theirs(model: TinyGPT) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Settings and weights that give the same logits, and that the model's class can hold.

    Where a class has biases for all or none, those that are missing are zeros; a factor on the
    experts' weights goes into the experts; Qwen2-MoE always has a shared expert with a gate.
    `ConfigError` if there is no class.
    """
    config, kind = model.config, family(model.config)
    state = own_tensors(model)
    if "qwen2" not in kind and (kind == "gpt2" or config.attn_bias or has_qkv_bias(config)):
        _add_biases(state, ".attn.c_")
        config = replace(config, attn_bias=True, qkv_bias=None)
    if kind == "gpt2":
        _add_biases(state, ".ffn.c_")
        config = replace(config, mlp_bias=True)
    if config.moe is None:
        return config, state
    moe = replace(config.moe, routed_scaling_factor=1.0)
    if kind == "qwen2_moe":
        moe = replace(moe, n_shared=max(1, moe.n_shared), shared_gate=True)
    for layer in filter(config.is_moe, range(config.n_layer)):
        _rewrite(state, f"blocks.{layer}.ffn.", config.moe, moe.n_shared > 0)
    return replace(config, moe=moe), state


def _add_biases(state: dict[str, Tensor], where: str) -> None:
    """Zeros in the place of biases that are not there."""
    for name in [name for name in state if where in name and name.endswith("weight")]:
        bias = name.removesuffix("weight") + "bias"
        state.setdefault(bias, state[name].new_zeros(len(state[name])))


def _rewrite(state: dict[str, Tensor], at: str, moe: MoEConfig, shared: bool) -> None:
    """The tensors of one layer with experts, whose names begin with `at`."""
    bias = state.pop(f"{at}router.bias", None)
    check(
        bias is None or not bias.any(),
        f"the experts of {at}experts are chosen with biases (balance='bias'), which no class of "
        f"transformers that is written here has; train with balance='loss' or 'none'",
    )
    state.pop(f"{at}router.noise.weight", None)  # of training only
    down = state[f"{at}experts.c_proj.weight"]  # (E, C, F)
    if moe.routed_scaling_factor != 1:
        state[f"{at}experts.c_proj.weight"] = down * moe.routed_scaling_factor
    if shared and not moe.n_shared:
        up = state[f"{at}experts.c_fc.weight"]
        state[f"{at}shared.c_fc.weight"] = torch.zeros_like(up[0])
        state[f"{at}shared.c_proj.weight"] = torch.zeros_like(down[0])
    if shared and not moe.shared_gate:  # a sigmoid of 0 halves what is doubled here
        state[f"{at}shared_gate.weight"] = down.new_zeros(1, down.shape[1])
        state[f"{at}shared.c_proj.weight"] = 2 * state[f"{at}shared.c_proj.weight"]
