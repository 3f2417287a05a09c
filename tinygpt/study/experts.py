"""Models with and without experts, at three sizes."""

from dataclasses import replace

from ..config import MoEConfig
from ..presets import PRESETS
from .arms import FLOPS, SECONDS, TOTAL, Arm, Comparison, Design, named

_TOP_1 = MoEConfig(n_experts=4)
_TOP_2 = MoEConfig(n_experts=8, top_k=2, norm_topk_prob=True)
_SHARED = MoEConfig(n_experts=7, n_shared=1)
_X10 = {"moe": _TOP_1, "like": "top-1", "router_scale": 10.0}

ARMS = named(
    Arm("dense", "dense"),
    Arm("top-1", "top-1 of 4 experts", moe=_TOP_1),
    Arm("top-2", "top-2 of 8 experts half as wide", width=0.5, moe=_TOP_2),
    Arm("shared", "a shared expert + top-1 of 7 half as wide", width=0.5, moe=_SHARED),
    Arm("dense-total", "dense 4 times as wide", width=4.0),
    Arm("dense-seconds-1", "dense given top-1's seconds", like="dense", seconds_of="top-1"),
    Arm("dense-seconds-2", "dense given top-2's seconds", like="dense", seconds_of="top-2"),
    Arm("frozen", "top-1 with a frozen router", moe=_TOP_1, like="top-1", frozen=True),
    Arm("learned-x10", "top-1 with a router started at x 10", **_X10),
    Arm("frozen-x10", "top-1 with a router frozen at x 10", **_X10, frozen=True),
    Arm(
        "frozen-x10-detached",
        "top-1 with a router frozen at x 10 and detached",
        **_X10,
        frozen=True,
        detached=True,
    ),
)

ROUTER = "with all but the router alike"
MIXTURES = ("top-1", "top-2", "shared")
COMPARISONS = (
    *(Comparison(arm, "dense", FLOPS) for arm in MIXTURES),
    Comparison("top-1", "dense-seconds-1", SECONDS),
    Comparison("top-2", "dense-seconds-2", SECONDS),
    *(Comparison(arm, "dense-total", TOTAL) for arm in MIXTURES),
    Comparison("top-1", "frozen", ROUTER),
    Comparison("top-1", "learned-x10", ROUTER),
    Comparison("learned-x10", "frozen-x10", ROUTER),
    Comparison("learned-x10", "frozen-x10-detached", ROUTER),
)

_TINY, _LAPTOP = PRESETS["tiny"], PRESETS["laptop"]
NOTEBOOK = Design(
    "notebook",
    ARMS,
    COMPARISONS,
    _TINY.model,
    _TINY.train,
    seeds=12,
    looks=10,
    factors=(0.5, 1.0, 2.0, 4.0, 8.0),
    rounds=300,
)
LAPTOP = Design(
    "laptop",
    ARMS,
    COMPARISONS,
    _LAPTOP.model,
    replace(_LAPTOP.train, max_steps=1000),
    seeds=3,
    sweep_updates=250,
    sweep_seeds=2,
    rounds=40,
    usual=("dense", "top-2", "dense-total", "dense-seconds-2"),  # hours of a core as it is
)
BABY = Design(
    "baby",
    ARMS,
    COMPARISONS,
    replace(_LAPTOP.model, n_layer=6, n_head=6, n_embd=384),
    replace(_LAPTOP.train, batch_size=64, max_steps=2000),
    seeds=3,
    sweep_updates=500,
    sweep_seeds=2,
    cuda_only=True,
    usual=("dense", "top-1", "top-2", "dense-total", "dense-seconds-1", "dense-seconds-2"),
)
