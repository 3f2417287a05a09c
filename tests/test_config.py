import json
import math
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass, replace
from types import NoneType
from typing import get_args, get_type_hints

import pytest

from tinygpt import PRESETS, DecodingConfig, ModelConfig, MoEConfig, TinyGPT, TrainConfig
from tinygpt import config as module
from tinygpt.config import check_value, from_dict, to_dict
from tinygpt.errors import ConfigError
from tinygpt.files import ROOT
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
        (
            {"straight_through": True, "top_k": 2, "norm_topk_prob": True},
            "straight_through and norm_topk_prob both divide the weights by their sum",
        ),
        ({"top_p": 0.0}, "top_p=0.0 must be above 0 and at most 1"),
        ({"top_p": 1.1}, "top_p=1.1"),
        ({"top_p": 0.5, "scores": "sigmoid"}, "top_p=0.5.*needs scores='softmax'"),
        ({"n_groups": 3}, "n_experts=4 is not divisible by n_groups=3"),
        ({"n_groups": 0}, "n_groups=0"),
        ({"top_groups": 2}, "top_groups=2 of n_groups=1"),
        ({"n_groups": 4, "top_groups": 1, "top_k": 2}, "hold 1 of the 4 experts, and top_k=2"),
        ({"top_groups": 0}, "top_groups=0"),
        ({"jitter": 1.0}, "jitter=1.0 must be at least 0 and below 1"),
        ({"expert_dropout": -0.1}, "expert_dropout=-0.1"),
        ({"capacity_factor": 0.0}, "capacity_factor=0.0 must be above 0"),
        ({"balance": "luck"}, "balance='luck' must be one of loss, bias, none"),
        ({"balance_weight": -1.0}, "balance_weight=-1.0"),
        ({"balance_weight": math.nan}, "balance_weight=nan"),
        ({"bias_rate": -1e-3}, "bias_rate=-0.001"),
        ({"z_weight": -1.0}, "z_weight=-1.0"),
        ({"cv_weight": -1.0}, "cv_weight=-1.0"),
        ({"dispatch": "magic"}, "dispatch='magic' must be one of auto, loop, split, grouped_mm"),
        ({"balance_weight": math.inf}, "balance_weight=inf must be a finite number"),
        ({"capacity_factor": "1.0"}, "capacity_factor='1.0' must be a finite number, or None"),
        ({"noisy": 1}, "noisy=1 must be True or False"),
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


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"n_embd": 30}, "n_embd=30 is not divisible by n_head=4"),
        ({"n_kv_head": 3}, "n_head=4 is not divisible by n_kv_head=3"),
        ({"n_kv_head": 8}, "n_head=4 is not divisible by n_kv_head=8"),
        ({"n_kv_head": 0}, "n_kv_head=0 must be at least 1, or None"),
        ({"head_dim": 5, "position": "rope"}, "but head_dim = 5 is odd; take an even head_dim"),
        ({"qkv_bias": 1}, "qkv_bias=1 must be True or False, or None"),
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
        ({"position": "rope", "n_embd": 12}, "but n_embd / n_head = 3 is odd"),
        ({"moe": {"n_experts": 4}}, "moe={'n_experts': 4} must be a MoEConfig, or None"),
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


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"temperature": "0.8"}, "temperature='0.8' must be a finite number .0: the most probable"),
        ({"temperature": math.inf}, "temperature=inf must be a finite number"),
        ({"frequency": math.inf}, "frequency=inf must be a finite number .0: off"),
        ({"presence": math.nan}, "presence=nan must be a finite number .0: off"),
        ({"top_k": 2.0}, "top_k=2.0 must be a whole number, or None .0 or None: off"),
        ({"top_p": 0}, "top_p=0 must be above 0 and at most 1 .1: off"),
        ({"min_p": 1.5}, "min_p=1.5 must be between 0 and 1 .0: off"),
        ({"repetition_window": 0}, "repetition_window=0 must be at least 1, or None"),
        ({"banned": ["a"]}, "banned=.'a'. must be a text"),
        ({"stop": "ab"}, "stop='ab' must be a tuple of texts .stop takes several texts"),
        ({"stop": [1]}, "stop=.1,. must be a tuple of texts"),
    ],
)
def test_bad_decoding_settings(changes, words):
    with pytest.raises(ConfigError, match=words):
        DecodingConfig(**changes)


KINDS = (MoEConfig, ModelConfig, TrainConfig, DecodingConfig)
FIELDS = [(kind, field.name) for kind in KINDS for field in fields(kind)]

# values that are wrong for a field of this type, whatever its range
WRONG = {
    int: [32.0, 1.5, True, False, "3", [3], (3,), {}, math.nan, math.inf, b"3"],
    float: ["0.8", True, False, [0.5], (0.5,), {}, math.nan, math.inf, -math.inf, 10**400, 1j],
    bool: [0, 1, 1.0, "True", "", [], math.nan],
    str: [0, 1.0, True, ["a"], ("a",), {}, b"a", math.nan],
    tuple: ["ab", "", 0, True, {}, {"a": 1}, ("a", 1), ("a", None), [1], math.nan],
    MoEConfig: [{}, {"n_experts": 4}, True, 4, "moe", [], ModelConfig(), MoEConfig, math.nan],
}


def hinted(kind: type, name: str) -> tuple[type, bool]:
    """The plain type of a field, and whether it may be None."""
    hint = get_type_hints(kind)[name]
    inner = get_args(hint)
    if NoneType in inner:
        (hint,) = set(inner) - {NoneType}
    plain = {"Literal": str, "tuple": tuple}.get(getattr(hint, "__name__", ""), hint)
    return plain, NoneType in inner


def test_no_configuration_is_forgotten():
    here = [value for name, value in vars(module).items() if name.endswith("Config")]
    assert {kind for kind in here if is_dataclass(kind)} == set(KINDS)


@pytest.mark.parametrize(("kind", "name"), FIELDS)
def test_every_field_refuses_what_is_of_another_type(kind, name):
    plain, optional = hinted(kind, name)
    for value in WRONG[plain] + [None] * (not optional):
        with pytest.raises(ConfigError, match=f"^{name}=.* must be "):
            kind(**{name: value})
        with pytest.raises(ConfigError, match=f"^{name}=.* must be "):
            check_value(kind, name, value)


@pytest.mark.parametrize(("kind", "name"), FIELDS)
def test_every_field_takes_its_default_and_what_its_type_allows(kind, name):
    plain, optional = hinted(kind, name)
    check_value(kind, name, getattr(kind(), name))
    if optional:
        check_value(kind, name, None)
    if plain is float:
        check_value(kind, name, 0.5)
        with suppress(ConfigError):
            check_value(kind, name, 0)
            return
        check_value(kind, name, 1)  # where 0 is out of range, 1 is not


def test_a_whole_number_is_a_number():
    config = ModelConfig(dropout=0, rope_theta=500)
    assert config == ModelConfig(dropout=0.0, rope_theta=500.0)
    assert from_dict(ModelConfig, through_json(config)) == config


def test_stop_texts_can_be_a_list_and_become_a_tuple():
    config = DecodingConfig(stop=["a", "b"])
    assert config == DecodingConfig(stop=("a", "b"))
    assert hash(config) == hash(DecodingConfig(stop=("a", "b")))


def through_json(config) -> dict:
    return json.loads(json.dumps(to_dict(config)))


@pytest.mark.parametrize(
    "config",
    [
        *(part for preset in PRESETS.values() for part in (preset.model, preset.train)),
        moe_config(LLAMA, **MODES["deepseek"]),
        DecodingConfig(stop=("\n\n", "END"), top_k=3),
        *(kind() for kind in KINDS),
    ],
)
def test_settings_survive_json(config):
    assert from_dict(type(config), through_json(config)) == config


@pytest.mark.parametrize("wrong", ["n_expert", "MOE"])
def test_unknown_settings_are_named(wrong):
    values = to_dict(PRESETS["modern"].model) | {wrong: 4}
    with pytest.raises(ConfigError, match=f"ModelConfig has no setting {wrong}; was it written by"):
        from_dict(ModelConfig, values)
    with pytest.raises(ConfigError, match=f"MoEConfig has no setting {wrong}"):
        from_dict(ModelConfig, to_dict(moe_config()) | {"moe": {wrong: 4}})


@pytest.mark.parametrize("values", [[], None, "tiny", 3])
def test_settings_that_are_no_table(values):
    with pytest.raises(ConfigError, match="ModelConfig is read from a dict"):
        from_dict(ModelConfig, values)


def test_tables_and_lists_become_what_the_hints_say():
    @dataclass(frozen=True)
    class NewConfig:
        inner: MoEConfig | None = None
        names: tuple[str, ...] = ()

    values = {"inner": to_dict(MoEConfig(n_experts=3)), "names": ["a", "b"]}
    assert from_dict(NewConfig, values) == NewConfig(MoEConfig(n_experts=3), ("a", "b"))


def test_settings_of_an_older_version():
    """They hold what is gone since, switched off; switched on, the run cannot be had."""
    model = moe_config(n_experts=6)
    values = through_json(model)
    values["moe"] |= {"expert_choice": False, "allow_leak": False}
    assert from_dict(ModelConfig, values) == model
    values["moe"] |= {"expert_choice": True, "allow_leak": True}
    words = "expert_choice=True is no setting of MoEConfig any more; use the version of tinygpt"
    with pytest.raises(ConfigError, match=words):
        from_dict(ModelConfig, values)
    with pytest.raises(TypeError, match="expert_choice"):
        MoEConfig(expert_choice=False)


@pytest.mark.parametrize(
    ("run", "preset", "changes"),
    [
        ("laptop-dense", "laptop", {"seed": 3}),
        ("laptop-moe", "laptop-moe", {"seed": 1, "max_eval_tokens": None}),
    ],
)
def test_settings_of_the_shipped_runs(run, preset, changes):
    path = ROOT / "checkpoints" / run / "config.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    assert from_dict(ModelConfig, values["model"]) == PRESETS[preset].model
    used = replace(PRESETS[preset].train, **changes)
    assert from_dict(TrainConfig, values["train"]) == used


def test_config_errors_are_value_errors():
    with pytest.raises(ValueError, match="n_head"):
        ModelConfig(n_head=5)


def test_swiglu_keeps_the_feed_forward_layer_about_as_large():
    gelu, swiglu = ModelConfig(n_embd=384), ModelConfig(n_embd=384, mlp="swiglu")
    assert gelu.inner_size == 1536
    assert abs(3 * swiglu.inner_size - 2 * gelu.inner_size) <= 3 * 8
    assert ModelConfig(n_embd=1, n_head=1, mlp="swiglu").inner_size == 8
