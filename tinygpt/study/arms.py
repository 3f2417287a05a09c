"""What a study compares, and its design: models, how they are trained, and how often."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from ..config import ModelConfig, MoEConfig, TrainConfig
from ..model import Router, TinyGPT


@dataclass(frozen=True)
class Arm:
    """One of the models compared: the design's own, but for its feed-forward layers.

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
    budget: float = 1.0  # times the design's updates

    @property
    def tuned_as(self) -> str:
        """The arm for which its learning rate was found."""
        return self.like or self.name

    def config(self, shape: ModelConfig) -> ModelConfig:
        """The model's configuration, from that of the design."""
        inner = round(self.width * shape.inner_size)
        if self.moe is None:
            return replace(shape, n_inner=inner)
        return replace(shape, moe=replace(self.moe, n_inner=inner))

    def recipe(self, usual: TrainConfig) -> TrainConfig:
        """How it is trained: as all are, unless a kind of arm says otherwise."""
        return usual

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


# what both arms of a comparison have as much of
FLOPS, TOTAL = "at equal active parameters and training FLOPs", "at equal total parameters"
SECONDS = "in equal seconds"


@dataclass(frozen=True)
class Comparison:
    """Two arms, and in words what both have as much of.

    paired: a seed moves both alike, as where both begin with the same trained weights. Then they
    are judged by the differences of runs with the same seed; else as if their seeds were others.
    """

    first: str
    second: str
    equal: str = ""
    paired: bool = False


@dataclass(frozen=True)
class Design:
    """The arms of a study, on which text, how large they are, how they are trained, how often.

    The validation loss is measured `looks` times in each run, evenly spread, and once before it.
    Learning rates are tried out as `factors` of the recipe's, with fewer updates if so said, each
    with `sweep_seeds` seeds; a single factor is taken as it is.
    """

    name: str
    arms: Mapping[str, Arm]  # by name, the first is what costs are compared with
    comparisons: tuple[Comparison, ...]
    model: ModelConfig
    train: TrainConfig
    seeds: int
    corpus: str = "tinyshakespeare"
    tokenizer: str | None = None  # a name, see `make_tokenizer`; None: characters
    looks: int = 20
    factors: tuple[float, ...] = (0.5, 1.0, 2.0)
    sweep_updates: int | None = None
    sweep_seeds: int = 4
    rounds: int = 100  # steps of each arm, in turns, for the time of an update
    cuda_only: bool = False
    usual: tuple[str, ...] = ()  # the arms that are made unless others are asked for; (): all


def named(*arms: Arm) -> dict[str, Arm]:
    """Arms by their names."""
    return {arm.name: arm for arm in arms}
