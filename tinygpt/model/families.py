"""The classes of transformers that a `TinyGPT` can be one of, and their config.json.

GPT-2; Llama, Qwen2, Qwen3; the mixtures Mixtral, Qwen2-MoE, Qwen3-MoE.
"""

from dataclasses import replace
from typing import Any

from ..config import ModelConfig, MoEConfig
from ..errors import CheckpointError, ConfigError

CLASSES = {
    "gpt2": "GPT2LMHeadModel",
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "mixtral": "MixtralForCausalLM",
    "qwen2_moe": "Qwen2MoeForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
}
ONLY = {  # what is built here of what the classes can be told; a missing value is fine, too
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "hidden_act": ("silu", "swish"),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
    "partial_rotary_factor": (1,),
    "quantization_config": (),
}


def read_config(values: dict[str, Any]) -> ModelConfig:
    """The settings that a config.json describes.

    Where it is silent the class's own default holds. `CheckpointError` for what is not built here.
    """
    kind = values.get("model_type")
    if kind not in list(CLASSES):  # it may be a list
        raise _unreadable(f"model_type={kind!r:.99} is none of {', '.join(CLASSES)}")
    for name, built in ONLY.items():
        value = values.get(name)
        if value is not None and value not in built:
            raise _unreadable(f"{name}={value!r:.99} is not built here, only {built or 'none'}")
    try:
        return _gpt2(values) if kind == "gpt2" else _llama(kind, values)
    except KeyError as error:
        raise _unreadable(f"it does not say {error.args[0]}") from error
    except (ConfigError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise _unreadable(f"{error!s:.500}") from error


def _unreadable(reason: str) -> CheckpointError:
    return CheckpointError(f"config.json cannot be read as a model of this package: {reason}")


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def _gpt2(values: dict[str, Any]) -> ModelConfig:
    return ModelConfig(
        vocab_size=values["vocab_size"],
        block_size=values["n_positions"],
        n_layer=values["n_layer"],
        n_head=values["n_head"],
        n_embd=values["n_embd"],
        n_inner=values.get("n_inner"),
        dropout=_or(values.get("resid_pdrop"), 0.1),
        norm_eps=_or(values.get("layer_norm_epsilon"), 1e-5),
        tie_embeddings=_or(values.get("tie_word_embeddings"), True),
    )


def _llama(kind: str, values: dict[str, Any]) -> ModelConfig:
    config = ModelConfig(
        vocab_size=values["vocab_size"],
        block_size=values["max_position_embeddings"],
        n_layer=values["num_hidden_layers"],
        n_head=values["num_attention_heads"],
        n_embd=values["hidden_size"],
        n_inner=values["intermediate_size"],
        n_kv_head=values.get("num_key_value_heads") if kind == "llama" else _kv_heads(values),
        head_dim=_or(values.get("head_dim"), 128 if kind == "qwen3" else None),
        norm="rmsnorm",
        norm_eps=_or(values.get("rms_norm_eps"), 1e-5 if kind == "mixtral" else 1e-6),
        position="rope",
        rope_theta=_rope_theta(values, 1e6 if kind == "mixtral" else 1e4),
        mlp="swiglu",
        qk_norm=kind in ("qwen3", "qwen3_moe"),
        tie_embeddings=_or(values.get("tie_word_embeddings"), False),
        attn_bias="qwen2" not in kind and _or(values.get("attention_bias"), False),
        qkv_bias=True if "qwen2" in kind and _or(values.get("qkv_bias"), True) else None,
        mlp_bias=kind == "llama" and _or(values.get("mlp_bias"), False),
    )
    _check_window(kind, values, config)
    experts = {"mixtral": _mixtral, "qwen2_moe": _qwen_moe, "qwen3_moe": _qwen_moe}
    moe = experts[kind](values, config) if kind in experts else None
    return plain(replace(config, moe=moe))


def plain(config: ModelConfig) -> ModelConfig:
    """The same settings, where those that say what would hold anyway are None."""
    return replace(
        config,
        n_kv_head=None if config.n_kv_head == config.n_head else config.n_kv_head,
        head_dim=None if config.n_embd == config.head_size * config.n_head else config.head_dim,
    )


def _kv_heads(values: dict[str, Any]) -> int | None:
    return values["num_key_value_heads"]  # the classes' defaults are numbers of one large model


def _rope_theta(values: dict[str, Any], default: float) -> float:
    """From `rope_scaling`, else `rope_parameters`, or as it was written before there were any."""
    rope = values.get("rope_scaling") or values.get("rope_parameters") or {}
    if (
        not isinstance(rope, dict)
        or (rope.get("rope_type") or rope.get("type")) not in (None, "default")
        or rope.get("partial_rotary_factor", 1) != 1
    ):
        raise ValueError(f"rotary positions of the kind {rope} are not built here")
    return float(_or(rope.get("rope_theta"), _or(values.get("rope_theta"), default)))


def _check_window(kind: str, values: dict[str, Any], config: ModelConfig) -> None:
    if not _has_windows(kind, values, config.n_layer):
        return
    window = values.get("sliding_window", None if kind == "mixtral" else 4096)
    if window is not None and window < config.block_size:
        raise ValueError(
            f"sliding_window={window} lets no token see all of its context of "
            f"{config.block_size}, which is not built here; with max_position_embeddings={window} "
            f"it would"
        )


def _has_windows(kind: str, values: dict[str, Any], n_layer: int) -> bool:
    """Whether any layer looks through the sliding window; the Qwen classes differ in which do."""
    if kind == "llama" or (kind != "mixtral" and not values.get("use_sliding_window")):
        return False
    if kind in ("mixtral", "qwen3_moe"):  # all of them
        return True
    types, border = values.get("layer_types"), values.get("max_window_layers", 28)
    if types is not None:
        return "sliding_attention" in types
    return border > 0 if kind == "qwen2_moe" else border < n_layer  # below it, or from it on


def _mixtral(values: dict[str, Any], config: ModelConfig) -> MoEConfig:
    K = values["num_experts_per_tok"]
    return MoEConfig(
        n_experts=values["num_local_experts"], top_k=K, balance="loss", **_sum_is_one(K)
    )


def _qwen_moe(values: dict[str, Any], config: ModelConfig) -> MoEConfig:
    K, width = values["num_experts_per_tok"], values["moe_intermediate_size"]
    every, first_dense = _pattern(_with_experts(values, config.n_layer))
    shared = values["shared_expert_intermediate_size"] if "qwen2" in values["model_type"] else 0
    if shared % width:
        raise ValueError(
            f"shared_expert_intermediate_size={shared} is no multiple of "
            f"moe_intermediate_size={width}, as shared experts are here"
        )
    return MoEConfig(
        n_experts=_or(values.get("num_experts"), values.get("num_local_experts")),
        top_k=K,
        n_inner=width,
        every=every,
        first_dense=first_dense,
        n_shared=shared // width,
        shared_gate=shared > 0,
        balance="loss",
        **(_sum_is_one(K) if values.get("norm_topk_prob") else {}),
    )


def _sum_is_one(K: int) -> dict[str, bool]:
    """A single weight of 1 teaches a router only so."""
    return {"straight_through": True} if K == 1 else {"norm_topk_prob": True}


def _with_experts(values: dict[str, Any], n_layer: int) -> list[bool]:
    """Which blocks have experts."""
    dense, step = values.get("mlp_only_layers") or [], _or(values.get("decoder_sparse_step"), 1)
    return [i not in dense and (i + 1) % step == 0 for i in range(n_layer)]


def _pattern(has: list[bool]) -> tuple[int, int]:
    """`every` and `first_dense` of `MoEConfig` that give experts to these blocks."""
    if True in has:
        first = has.index(True)
        every = ([*has[first + 1 :], True]).index(True) + 1
        for start in range(max(0, first + 1 - every), first + 1):
            if [i >= start and (i - start + 1) % every == 0 for i in range(len(has))] == has:
                return every, start
    raise ValueError(
        f"experts in the blocks {[i for i, it in enumerate(has) if it]} are no pattern"
    )
