"""How large the presets are, counted from tensors without numbers."""

from dataclasses import replace
from functools import cache

import pytest
from transformers import GPT2Config, GPT2LMHeadModel

from tinygpt import ModelConfig, TinyGPT
from tinygpt.files import ROOT
from tinygpt.measure import ParameterCount, count_parameters, flops_per_token, training_memory
from tinygpt.presets import PRESETS
from tinygpt.runtime import shapes_only

EXACT = {  # in all; active; active without tables and head
    "baby": (10_674_816, 10_674_816, 10_624_896),
    "baby-moe": (31_926_912, 10_693_248, 10_643_328),
    "ptbr-dense": (190_571_520, 190_571_520, 113_376_768),
    "ptbr-dense-active": (126_815_232, 126_815_232, 49_620_480),
    "ptbr-moe-4x1": (190_636_032, 126_852_096, 49_657_344),
    "ptbr-moe-6x1": (211_924_992, 123_328_512, 46_133_760),
    "ptbr-moe-8x2": (219_045_888, 133_982_208, 56_787_456),
    "sparse-158m": (158_623_744, 70_543_360, 18_949_120),
    "sparse-158m-512": (158_754_816, 70_674_432, 18_949_120),
    "sparse-158m-1024": (159_016_960, 70_936_576, 18_949_120),
    "sparse-158m-2048": (159_541_248, 71_460_864, 18_949_120),
    "sparse-158m-dense-active": (70_494_208, 70_494_208, 18_899_968),
    "sparse-158m-dense-total": (158_574_592, 158_574_592, 106_980_352),
    "sparse-512m": (519_373_824, 156_042_240, 78_061_056),
    "sparse-1b": (1_019_681_280, 276_503_040, 159_531_264),
    "gpt2": (124_439_808, 124_439_808, 85_056_000),
    "gpt2-medium": (354_823_168, 354_823_168, 302_311_424),
    "gpt2-large": (774_030_080, 774_030_080, 708_390_400),
    "gpt2-xl": (1_557_611_200, 1_557_611_200, 1_475_561_600),
    "gpt2-moe": (521_197_824, 181_182_720, 141_798_912),
}


@cache
def shaped(config: ModelConfig) -> TinyGPT:
    with shapes_only():
        return TinyGPT(config)


def count(name: str) -> ParameterCount:
    return count_parameters(shaped(PRESETS[name].model))


@pytest.mark.parametrize("name", EXACT)
def test_parameters(name):
    found = count(name)
    assert (found.total, found.active, found.active_inside) == EXACT[name]


@pytest.mark.parametrize(("name", "million"), [("sparse-512m", 512), ("sparse-1b", 1000)])
def test_the_larger_sparse_models_are_as_large_as_their_names_say(name, million):
    assert count(name).total == pytest.approx(million * 1e6, rel=0.03)


@pytest.mark.parametrize(
    ("dense", "mixture"),
    [("ptbr-dense-active", "ptbr-moe-4x1"), ("sparse-158m-dense-active", "sparse-158m")],
)
def test_a_twin_of_equal_active_size_lacks_the_router_alone(dense, mixture):
    """In parameters and, where each of them is used once, in FLOPs."""
    model, twin = shaped(PRESETS[mixture].model), shaped(PRESETS[dense].model)
    routers = [p.numel() for name, p in model.named_parameters() if "router" in name]
    assert len(routers) == model.config.n_layer
    assert count_parameters(model).active - sum(routers) == count_parameters(twin).active
    assert flops_per_token(model) - 6 * sum(routers) == flops_per_token(twin)


def test_a_twin_of_equal_total_size_lacks_the_router_alone():
    routers = 6 * 16 * 512
    assert count("sparse-158m").total - routers == count("sparse-158m-dense-total").total


def test_the_published_mixture_by_hand():
    """Tables and head, attention and norms with biases, router and experts without."""
    V, C, T, E, F = 50_257, 512, 256, 16, 1024
    block = 4 * C * C + 4 * C + 2 * 2 * C + E * C + E * 2 * C * F
    assert count("sparse-158m").total == 2 * V * C + T * C + 6 * block + 2 * C
    model = shaped(PRESETS["sparse-158m"].model)
    biased = {name.rsplit(".", 2)[-2] for name, _ in model.named_parameters() if "bias" in name}
    assert biased == {"ln_1", "ln_2", "ln_f", "c_attn", "c_proj"}
    assert not [name for name, _ in model.named_parameters() if "ffn" in name and "bias" in name]


@pytest.mark.parametrize("name", ["gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"])
def test_gpt2s_tensors_are_transformers(name):
    c = PRESETS[name].model
    shape = {"n_layer": c.n_layer, "n_head": c.n_head, "n_embd": c.n_embd}
    with shapes_only():
        theirs = GPT2LMHeadModel(GPT2Config(**shape))
    assert theirs.num_parameters() == count(name).total
    assert c.n_head * 64 == c.n_embd
    ours = {n.replace("blocks", "h").replace("ffn", "mlp") for n in shaped(c).state_dict()}
    assert ours == {n.removeprefix("transformer.") for n in theirs.state_dict()}


def test_upcycled_gpt2_has_the_active_parts_of_gpt2():
    model = PRESETS["gpt2-moe"].model
    assert replace(model, moe=None) == PRESETS["gpt2"].model
    assert model.moe.n_inner == PRESETS["gpt2"].model.inner_size


def test_the_readme_says_how_large_they_are():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = readme.split("<!-- presets -->")[1].split("<!-- end of presets -->")[0]
    told = [line.strip("| ").split(" | ") for line in table.strip().splitlines()[2:]]
    expected = []
    for name, preset in PRESETS.items():
        if preset.tokenizer == "char":
            continue
        found, model = count(name), shaped(preset.model)
        sizes = (found.total, found.active, found.active_inside)
        needed = f"{training_memory(model, preset.train).total / 1e9:.1f} GB"
        expected.append([f"`{name}`", preset.corpus, *(f"{n:,}" for n in sizes), needed])
    assert told == expected
