"""The learning rate over a run that is made longer or shorter: it never jumps.

A run has one round of its schedule. Where it gets another number of updates before the learning
rate has begun to fall, the round's end moves; later the round stays as it is, and what goes beyond
it is a further one, which rises once more (Loshchilov and Hutter 2017; Ibrahim et al. 2024): that
learns more than to go on at the low end.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

from ..config import TrainConfig
from ..errors import CheckpointError
from .optim import lr_factor

SHAPE = ("schedule", "warmup_steps", "min_lr_ratio", "decay_fraction")


@dataclass(frozen=True)
class Round:
    """A schedule over the updates from `start` to `end`: from a share of the run's peak learning
    rate up to another, `peak`, and down."""

    start: int
    end: int
    share: float
    peak: float
    config: TrainConfig  # with the round's own warmup_steps and decay_fraction

    def factor(self, step: int) -> float:
        """The share of the peak learning rate at an update of the round."""
        factor, low = lr_factor(step - self.start, self.length, self.config), self.low
        if step - self.start < self.config.warmup_steps:
            return self.share + (self.peak - self.share) * factor
        if self.peak <= low:  # nothing to fall by
            return self.peak
        return factor - (1 - self.peak) * (factor - low) / (1 - low)

    def falls_from(self) -> float:
        """The update at which the learning rate begins to fall."""
        warmup = self.config.warmup_steps
        after = {
            "constant": math.inf,
            "cosine": warmup,
            "wsd": max(warmup, (1 - self.config.decay_fraction) * self.length),
        }
        return self.start + after[self.config.schedule]

    @property
    def length(self) -> int:
        """How many updates it has."""
        return self.end - self.start

    @property
    def low(self) -> float:
        """The share at which it ends."""
        return 1.0 if self.config.schedule == "constant" else self.config.min_lr_ratio


def first_round(max_steps: int, config: TrainConfig) -> list[Round]:
    """The rounds of a new run."""
    return [Round(0, max_steps, 0.0, 1.0, config)]


def factor_at(rounds: list[Round], step: int) -> float:
    """The share of the peak learning rate at an update of a run."""
    return [r for r in rounds if r.start <= step][-1].factor(step)


def resumed_rounds(
    state: dict[str, Any], before: TrainConfig, config: TrainConfig, was: int, end: int
) -> tuple[list[Round], str]:
    """The rounds of a run that is resumed with other settings, and what that means in words.

    It `was` to make so many updates, unless its `state` says otherwise, and now is to end at `end`.
    """
    step, was = state["step"], state.get("max_steps", was)
    numbers = state.get("rounds")  # an older checkpoint has none: there was one, over all updates
    rounds = first_round(was, before) if numbers is None else from_numbers(numbers, before)
    if end <= step:
        return rounds, "; nothing is left to do" if end != was else ""
    if any(getattr(before, name) != getattr(config, name) for name in SHAPE):
        return reshaped(rounds, step, end, config)
    return moved_end(rounds, step, end, config) if end != was else (rounds, "")


def moved_end(
    rounds: list[Round], step: int, end: int, config: TrainConfig
) -> tuple[list[Round], str]:
    """The rounds of a run that stands at `step` and now is to end at `end`; what that means."""
    *earlier, last = [r for r in rounds if r.start < end]
    if last.falls_from() < step:
        if end <= last.end:
            return [*earlier, last], f"; the run ends before its schedule does, at step {last.end}"
        again = _round_from(last.end, end, last.factor(last.end), config)
        words = f"; from step {last.end} to {end} the learning rate rises and falls once more"
        return [*earlier, last, again], words
    moved = replace(last, end=end)
    if moved.falls_from() >= step:
        return [*earlier, moved], f"; the schedule now ends at step {end}"
    down = replace(last.config, warmup_steps=0, decay_fraction=1.0)
    fall = Round(step, end, last.peak, last.peak, down)
    return [*earlier, last, fall], "; the learning rate falls from here on"


def reshaped(
    rounds: list[Round], step: int, end: int, config: TrainConfig
) -> tuple[list[Round], str]:
    """The rounds of a run that goes on from `step` by the schedule of other settings."""
    if step == 0:
        return first_round(end, config), "; the schedule is the new one"
    share = factor_at(rounds, step - 1)
    words = f"; the learning rate goes on by the new schedule, from {share:.3g} of its peak"
    return [*rounds, _round_from(step, end, share, config)], words


def to_numbers(rounds: list[Round]) -> list[list[float]]:
    """Rounds as JSON-ready values."""
    return [
        [r.start, r.end, r.share, r.peak, r.config.warmup_steps, r.config.decay_fraction]
        for r in rounds
    ]


def from_numbers(numbers: Any, config: TrainConfig) -> list[Round]:
    """The rounds that `to_numbers` wrote; `CheckpointError` if it did not."""
    try:
        rounds = [
            Round(*place, replace(config, warmup_steps=warmup, decay_fraction=fraction))
            for *place, warmup, fraction in numbers
        ]
        sound = [0 <= r.start < r.end and 0 <= r.share <= 1 and 0 <= r.peak <= 1 for r in rounds]
        if rounds[0].start == 0 and all(sound):
            return rounds
    except (TypeError, ValueError, IndexError):
        pass
    raise CheckpointError(f"a checkpoint's rounds {numbers!r:.99} are none; remove its folder")


def _round_from(start: int, end: int, share: float, config: TrainConfig) -> Round:
    """A round that rises no faster than a run does at its start, for a fifth of it at most."""
    usual = config.warmup_steps or TrainConfig.warmup_steps
    rise = min(usual, max(1, (end - start) // 5))
    peak = min(1.0, share + (1 - share) * rise / usual)  # rounding may lift it above
    return Round(start, end, share, peak, replace(config, warmup_steps=rise))
