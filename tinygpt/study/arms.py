"""The models that are compared, and the sizes at which they are."""

from dataclasses import dataclass, field, replace

import torch

from ..config import ModelConfig, MoEConfig, TrainConfig
from ..model import Router, TinyGPT
from ..presets import PRESETS


@dataclass(frozen=True)
class Arm:
    """One of the models compared: the size's own, but for its feed-forward layers.

    `width` is that of the layer, or of one expert, in widths of the dense layer. A frozen router
    never learns; with a detached input the stream that it reads cannot learn to be routed either,
    and experts get tokens as a random matrix has it.
    """

    name: str
    words: str
    width: float = 1.0
    moe: MoEConfig | None = None
    router_scale: float = 1.0  # times the usual start of the router's weights
    frozen: bool = False
    detached: bool = False
    like: str | None = None  # the arm whose learning rate it takes; None: it has one of its own
    seconds_of: str | None = None  # the arm for whose seconds it is trained; None: equal updates

    @property
    def tuned_as(self) -> str:
        """The arm for which its learning rate was found."""
        return self.like or self.name

    def config(self, shape: ModelConfig) -> ModelConfig:
        """The model's configuration, from that of the size."""
        inner = round(self.width * shape.inner_size)
        if self.moe is None:
            return replace(shape, n_inner=inner)
        return replace(shape, moe=replace(self.moe, n_inner=inner))

    def build(self, shape: ModelConfig) -> TinyGPT:
        """The model as it is before the first update, drawn from torch's global generator."""
        model = TinyGPT(self.config(shape))
        for router in (module for module in model.modules() if isinstance(module, Router)):
            with torch.no_grad():
                router.proj.weight.mul_(self.router_scale)
            router.proj.weight.requires_grad_(not self.frozen)
            if self.detached:
                router.register_forward_pre_hook(lambda _, inputs: (inputs[0].detach(),))
        return model


_TOP_1 = MoEConfig(n_experts=4)
_TOP_2 = MoEConfig(n_experts=8, top_k=2, norm_topk_prob=True)
_SHARED = MoEConfig(n_experts=7, n_shared=1)
_X10 = {"moe": _TOP_1, "like": "top-1", "router_scale": 10.0}

ARMS = {
    arm.name: arm
    for arm in (
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
}


@dataclass(frozen=True)
class Size:
    """How large the models are, how they are trained, and how often.

    The validation loss is measured `looks` times in each run, evenly spread, and once before it.
    Learning rates are tried out as `factors` of the recipe's, with fewer updates if so said, each
    with `sweep_seeds` seeds.
    """

    name: str
    model: ModelConfig
    train: TrainConfig
    seeds: int
    looks: int = 20
    factors: tuple[float, ...] = (0.5, 1.0, 2.0)
    sweep_updates: int | None = None
    sweep_seeds: int = 4
    rounds: int = 100  # steps of each arm, in turns, for the time of an update
    cuda_only: bool = False
    arms: tuple[str, ...] = field(default=tuple(ARMS))  # unless others are asked for


_LAPTOP = PRESETS["laptop"]
SIZES = {
    size.name: size
    for size in (
        Size(
            "notebook",
            PRESETS["tiny"].model,
            PRESETS["tiny"].train,
            seeds=12,
            looks=10,
            factors=(0.5, 1.0, 2.0, 4.0, 8.0),
            rounds=300,
        ),
        Size(
            "laptop",
            _LAPTOP.model,
            replace(_LAPTOP.train, max_steps=1000),
            seeds=3,
            sweep_updates=250,
            sweep_seeds=2,
            rounds=40,
            arms=("dense", "top-2", "dense-total", "dense-seconds-2"),  # hours of a core as it is
        ),
        Size(
            "baby",
            replace(_LAPTOP.model, n_layer=6, n_head=6, n_embd=384),
            replace(_LAPTOP.train, batch_size=64, max_steps=2000),
            seeds=3,
            sweep_updates=500,
            sweep_seeds=2,
            cuda_only=True,
            arms=("dense", "top-1", "top-2", "dense-total", "dense-seconds-1", "dense-seconds-2"),
        ),
    )
}
