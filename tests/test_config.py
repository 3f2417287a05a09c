from dataclasses import replace

import pytest

from tinygpt import PRESETS, ModelConfig, TrainConfig
from tinygpt.config import from_dict, to_dict
from tinygpt.errors import ConfigError


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
