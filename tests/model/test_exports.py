"""Models of ours that a class of transformers can hold, and those that none can."""

from dataclasses import replace

import pytest
import torch

from tinygpt import ModelConfig, MoEConfig
from tinygpt.errors import ConfigError
from tinygpt.model import read_pretrained, write_pretrained

from ..parity import as_theirs
from ..tools import LLAMA, SHAPE, close, model_of, random_ids, shaken

QK = replace(LLAMA, qk_norm=True)
UNEVEN = {"n_embd": 20, "n_head": 3, "head_dim": 8}
TWO = {"top_k": 2, "norm_topk_prob": True}
MIXTURES = {
    "mixtral": (LLAMA, TWO, "mixtral"),
    "straight through": (LLAMA, {"straight_through": True}, "mixtral"),
    "straight through, two": (LLAMA, {"straight_through": True, "top_k": 2}, "mixtral"),
    "a factor": (LLAMA, TWO | {"routed_scaling_factor": 2.5}, "mixtral"),
    "biases of zero": (LLAMA, TWO | {"balance": "bias"}, "mixtral"),
    "training only": (LLAMA, TWO | {"noisy": True, "jitter": 0.1, "capacity_factor": 1}, "mixtral"),
    "top-1 by its probability": (LLAMA, {}, "qwen2_moe"),
    "some blocks": (LLAMA, TWO | {"first_dense": 1}, "qwen2_moe"),
    "shared": (LLAMA, TWO | {"n_shared": 2, "n_inner": 12}, "qwen2_moe"),
    "shared, gated": (LLAMA, {"n_shared": 1, "shared_gate": True}, "qwen2_moe"),
    "biases of q, k, v": (replace(LLAMA, qkv_bias=True), TWO, "qwen2_moe"),
    "heads that do not divide": (replace(LLAMA, **UNEVEN), TWO, "mixtral"),
    "norms": (replace(QK, n_head=4, n_kv_head=2), {"top_k": 3}, "qwen3_moe"),
    "norms, biases, some blocks": (replace(QK, attn_bias=True), TWO | {"every": 2}, "qwen3_moe"),
}
DENSE = {
    "gpt2": (SHAPE, "gpt2"),
    "gpt2 without biases": (replace(SHAPE, attn_bias=False, mlp_bias=False), "gpt2"),
    "gpt2 with some": (replace(SHAPE, attn_bias=False, qkv_bias=True), "gpt2"),
    "llama": (replace(LLAMA, mlp_bias=True, attn_bias=True), "llama"),
    "llama, biases of all but q, k, v": (replace(LLAMA, attn_bias=True, qkv_bias=False), "llama"),
    "llama, all but one bias": (replace(LLAMA, qkv_bias=True, mlp_bias=True), "llama"),
    "qwen2, wide heads": (replace(LLAMA, qkv_bias=True, head_dim=10), "qwen2"),
    "qwen2, heads that do not divide": (replace(LLAMA, qkv_bias=True, **UNEVEN), "qwen2"),
    "qwen3": (QK, "qwen3"),
    "qwen3, heads that do not divide": (replace(QK, **UNEVEN), "qwen3"),
    "qwen3, biases of q, k, v": (replace(QK, qkv_bias=True), "qwen3"),
}
MODELS = {name: (lambda c=c: shaken(c), kind) for name, (c, kind) in DENSE.items()}


def quiet(shape: ModelConfig, moe: dict):
    """A mixture whose routers have no biases."""
    model = model_of(shape, **moe)
    for name, tensor in model.named_buffers():
        assert name.endswith("router.bias")
        tensor.zero_()
    return model


MODELS |= {n: (lambda s=s, m=m: quiet(s, m), kind) for n, (s, m, kind) in MIXTURES.items()}


@pytest.mark.parametrize("name", MODELS)
def test_the_class_that_a_model_is_written_for_gives_its_logits(tmp_path, name):
    make, kind = MODELS[name]
    model, idx = make(), random_ids()
    theirs = as_theirs(model)
    assert theirs.config.model_type == kind
    with torch.inference_mode():
        expected = model(idx).logits
        close(theirs(idx).logits, expected, 2e-5)
        write_pretrained(model, tmp_path)
        close(read_pretrained(tmp_path)(idx).logits, expected, 2e-5)


REFUSED = {
    "a GPT-2 with experts": (SHAPE, {}, "GPT-2 with experts is in no class .* norm='rmsnorm'"),
    "relu2": (replace(LLAMA, mlp="relu2"), None, "mlp='relu2' is in no class"),
    "half a Llama": (replace(LLAMA, norm="layernorm"), None, "norm='layernorm' with position"),
    "bigrams": (replace(LLAMA, bigrams=99), None, "bigrams=99 is in no class .* with bigrams=0"),
    "token shift": (replace(SHAPE, token_shift=True), None, "token_shift is in no class"),
    "norms in GPT-2": (replace(SHAPE, qk_norm=True), None, "GPT-2 with qk_norm, n_kv_head or"),
    "Llama's heads": (replace(LLAMA, **UNEVEN), None, "20 is not divisible .* qkv_bias or qk_norm"),
    "sigmoid": (LLAMA, {"scores": "sigmoid"}, "scores='sigmoid' is in no class"),
    "top-p": (LLAMA, {"top_k": 2, "top_p": 0.5}, "top_p=0.5 is in no class .* with None it is"),
    "groups": (LLAMA, {"n_groups": 2, "top_groups": 1}, "keeps to groups"),
    "turns": (LLAMA, {"forced_balance": True}, "forced_balance=True is in no class"),
    "biases of experts": (replace(LLAMA, mlp_bias=True), {}, "a mixture with mlp_bias"),
    "biases of attention": (replace(LLAMA, attn_bias=True), {}, "a mixture with attn_bias"),
    "shared with norms": (QK, {"n_shared": 1}, "n_shared=1 with qk_norm"),
    "routers' biases": (LLAMA, {"balance": "bias"}, "blocks.0.ffn.* chosen with biases"),
    "Qwen3 with biases": (replace(QK, mlp_bias=True), None, "mlp_bias with qk_norm is in no class"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_no_class_holds_is_refused_and_nothing_written(tmp_path, name):
    """Written all the same, most of these would load without an error, and say something else."""
    shape, moe, message = REFUSED[name]
    model = shaken(shape) if moe is None else model_of(shape, **moe)
    with pytest.raises(ConfigError, match=message):
        write_pretrained(model, tmp_path)
    assert not list(tmp_path.iterdir())


def test_every_setting_of_a_mixture_is_written_or_refused():
    """A setting that is new has to be thought of here."""
    written = {"n_experts", "top_k", "n_inner", "every", "first_dense", "n_shared", "shared_gate"}
    written |= {"norm_topk_prob", "routed_scaling_factor", "straight_through"}
    refused = {"scores", "top_p", "n_groups", "top_groups", "forced_balance"}
    training = {"noisy", "jitter", "expert_dropout", "capacity_factor", "balance", "bias_rate"}
    training |= {"balance_weight", "z_weight", "cv_weight", "dispatch"}
    assert vars(MoEConfig()).keys() == written | refused | training
