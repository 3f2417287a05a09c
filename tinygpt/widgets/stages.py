"""A distribution on its way through the sampling steps, as arrays."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ..config import DecodingConfig
from ..decoding import Processor, draw, process, processors
from ..text import Tokenizer

ROWS = 20  # tokens that get a row of their own
MANY = 2_000  # tokens; beyond, exponential noise for each of them and each draw takes too long


@dataclass(frozen=True)
class Stage:
    """The distribution after a step of the chain; `step` is None for the model's own."""

    step: Processor | None
    p: np.ndarray  # (V,)
    kept: np.ndarray  # (V,) False: cut, here or earlier

    @property
    def kind(self) -> str | None:
        """The name of the step, whatever its value."""
        return self.step.name if self.step else None

    @property
    def label(self) -> str:
        """The step in words."""
        return self.step.label if self.step else "model itself"

    @cached_property
    def entropy(self) -> float:
        """In nats; its exponential is the effective number of choices."""
        p = self.p[self.p > 0]
        return float(-(p * np.log(p)).sum()) + 0.0  # never -0


def stages(
    logits: Tensor, tokens: Tensor, config: DecodingConfig, tokenizer: Tokenizer
) -> list[Stage]:
    """The model's own distribution, from logits `(V,)` after tokens `(T,)`, and each step's."""
    logits, tokens = logits[None].float(), tokens[None]
    found = [_stage(None, logits)]
    for step in processors(config, tokenizer):
        logits = process(logits, tokens, tokens.shape[1], [step])
        found.append(_stage(step, logits))
    return found


def _stage(step: Processor | None, logits: Tensor) -> Stage:
    p = logits[0].double().softmax(dim=-1)
    return Stage(step, p.numpy(), (logits[0] > -torch.inf).numpy())


def fate(found: Sequence[Stage], token: int) -> str:
    """Which step cut a token, or that it was kept."""
    for stage in found:
        if not stage.kept[token]:
            return f"cut by {stage.label}"
    return "kept"


def rows(p: np.ndarray, written: int | None, count: int = ROWS) -> np.ndarray:
    """The tokens to show, most probable first; the written one is always among them."""
    order = np.argsort(-p, kind="stable")
    if len(order) <= count + 2:  # a row for two others would save nothing
        return order
    shown = order[:count]
    if written is not None and written not in shown:
        shown = np.append(shown[:-1], written)
    return shown


def sample(p: np.ndarray, times: int, seed: int) -> np.ndarray:
    """How often each token came up among so many draws, `(V,)`."""
    generator = torch.Generator().manual_seed(seed)
    if len(p) > MANY:
        drawn = torch.from_numpy(p).multinomial(times, replacement=True, generator=generator)
        return drawn.bincount(minlength=len(p)).numpy()
    logits = torch.from_numpy(p).log().float()[None]  # one row for all draws
    return draw(logits, [generator] * times).bincount(minlength=len(p)).numpy()
