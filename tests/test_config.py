import math
from dataclasses import replace

import pytest

from tinygpt import PRESETS, ModelConfig, MoEConfig, TinyGPT, TrainConfig
from tinygpt.config import from_dict, to_dict
from tinygpt.errors import ConfigError
from tinygpt.model import MoE

from .tools import LLAMA, MODES, SHAPE, moe_config


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
    shape = moe_config(replace(SHAPE, n_layer=6), **moe)
    assert [i for i in range(6) if shape.is_moe(i)] == expected
    blocks = TinyGPT(shape).blocks
    assert [i for i, block in enumerate(blocks) if isinstance(block.ffn, MoE)] == expected
    assert not any(replace(shape, moe=None).is_moe(i) for i in range(6))


@pytest.mark.parametrize("moe", [{"every": 3}, {"first_dense": 2}])
def test_experts_in_no_block_are_refused(moe):
    with pytest.raises(ConfigError, match="no block would have experts: n_layer=2"):
        moe_config(**moe)


def test_settings_survive_json():
    shape = moe_config(LLAMA, **MODES["deepseek"])
    assert from_dict(ModelConfig, to_dict(shape)) == shape
    assert from_dict(ModelConfig, to_dict(SHAPE)) == SHAPE
    values = to_dict(shape)
    values["moe"]["n_expert"] = 4
    with pytest.raises(ConfigError, match="MoEConfig has no setting n_expert"):
        from_dict(ModelConfig, values)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"n_embd": 30}, "n_embd=30 is not divisible by n_head=4"),
        ({"n_layer": 0}, "n_layer=0 must be at least 1"),
        ({"n_layer": "3"}, "n_layer='3' must be a whole number"),
        ({"block_size": 32.0}, "block_size=32.0 must be a whole number"),
        ({"vocab_size": 0}, "vocab_size=0"),
        ({"block_size": -1}, "block_size=-1"),
        ({"n_inner": 0}, "n_inner=0"),
        ({"dropout": 1.0}, "dropout=1.0 must be at least 0 and below 1"),
        ({"dropout": -0.1}, "dropout=-0.1"),
        ({"norm": "batchnorm"}, "norm='batchnorm' must be one of layernorm, rmsnorm"),
        ({"position": "alibi"}, "position='alibi'"),
        ({"mlp": "relu"}, "mlp='relu' must be one of gelu, swiglu, relu2"),
        ({"position": "rope", "n_embd": 12}, "head size n_embd / n_head = 3 is odd"),
        ({"norm_eps": 0.0}, "norm_eps"),
        ({"rope_theta": 0.0}, "rope_theta"),
    ],
)
def test_bad_model_settings(changes, words):
    with pytest.raises(ConfigError, match=words):
        replace(ModelConfig(), **changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lr": 0.0}, "lr=0.0 must be above 0"),
        ({"muon_lr": -1.0}, "muon_lr=-1.0"),
        ({"max_steps": 0}, "max_steps=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"grad_accum_steps": 0}, "grad_accum_steps=0"),
        ({"grad_clip": 0.0}, "grad_clip=0.0 must be above 0, or None"),
        ({"epochs": -1.0}, "epochs=-1.0"),
        ({"patience": 0}, "patience=0"),
        ({"beta2": 1.0}, "beta2=1.0"),
        ({"schedule": "linear"}, "schedule='linear'"),
        ({"optimizer": "sgd"}, "optimizer='sgd' must be one of adamw, muon"),
        ({"precision": "fp16"}, "precision='fp16'"),
        ({"min_lr_ratio": 2.0}, "min_lr_ratio=2.0"),
        ({"weight_decay": -0.1}, "weight_decay=-0.1"),
        ({"keep_last": 0}, "keep_last=0"),
        ({"sample_prompt": ""}, "sample_prompt is empty"),
    ],
)
def test_bad_training_settings(changes, words):
    with pytest.raises(ConfigError, match=words):
        replace(TrainConfig(), **changes)


def test_settings_survive_json_and_unknown_ones_are_named():
    config = PRESETS["modern"].model
    assert from_dict(ModelConfig, to_dict(config)) == config
    with pytest.raises(ConfigError, match="n_expert"):
        from_dict(ModelConfig, to_dict(config) | {"n_expert": 4})


def test_config_errors_are_value_errors():
    with pytest.raises(ValueError, match="n_head"):
        ModelConfig(n_head=5)


def test_swiglu_keeps_the_feed_forward_layer_about_as_large():
    gelu, swiglu = ModelConfig(n_embd=384), ModelConfig(n_embd=384, mlp="swiglu")
    assert gelu.inner_size == 1536
    assert abs(3 * swiglu.inner_size - 2 * gelu.inner_size) <= 3 * 8
