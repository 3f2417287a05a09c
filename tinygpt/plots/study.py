"""The figures of a study: losses against what they cost, and the differences between arms."""

from collections.abc import Mapping
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes

from ..measure import SURE
from .base import (
    BLUE,
    GREEN,
    GREY,
    LINE_STYLES,
    ORANGE,
    PINK,
    SKY,
    TALLEST,
    VERMILION,
    Picture,
    one_panel,
    spread,
)

if TYPE_CHECKING:
    import pandas as pd

BUDGETS = {
    "step": "updates",
    "tokens": "tokens seen in training",
    "flops": "training FLOPs",
    "seconds": "seconds of updates",
}
COLOURS = (BLUE, VERMILION, GREEN, PINK, ORANGE, SKY, GREY)  # 7, and 4 styles: 28 arms stay apart
SHOWN = 0.3  # the part of the training before this is left out: there losses fall by whole nats


def _name_ends(axes: Axes, ends: list[tuple[float, float, str, str]]) -> None:
    """Names at the right edge, as high as their lines end, but none on another."""
    ends, (low, high), right = sorted(ends), axes.get_ylim(), axes.get_xlim()[1]
    heights = np.array([end[0] for end in ends])
    places = spread(heights, gap=(high - low) / 20)
    places -= (places - heights).mean()
    for place, (_, _, name, colour) in zip(places, ends, strict=True):
        axes.text(right, place, name, va="center", fontsize=8, color=colour)


def _span(counts: "pd.Series") -> str:
    low, high = counts.min(), counts.max()
    counted = str(low) if low == high else f"{low} to {high}"
    return f"{counted} seed" if counted == "1" else f"{counted} seeds"


def plot_study_curves(
    evaluations: "pd.DataFrame", ms: Mapping[str, float], budget: str = "step"
) -> Picture:
    """Validation loss of each arm against a budget: step, tokens, flops or seconds.

    A line is the mean over seeds, its band goes from the lowest to the highest; a second scale has
    the perplexity, the exponential of the loss. `evaluations` are rows of the table of that name,
    of the arms to be shown; `ms` are milliseconds per update by arm. A study gives both:
    `details("evaluations")` and `ms()`.
    """
    seconds = evaluations["step"] * evaluations["arm"].map(ms) / 1e3
    frame = evaluations.assign(seconds=seconds)
    figure, axes = one_panel(8, 4)
    lines, ends = zip(cycle(COLOURS), cycle(LINE_STYLES), strict=False), []
    for (arm, rows), (colour, style) in zip(frame.groupby("arm", sort=False), lines, strict=False):
        rows = rows[rows["step"] >= SHOWN * rows["step"].max()]
        x, losses = rows.groupby("step")[budget].first(), rows.groupby("step")["val_loss"]
        axes.fill_between(x, losses.min(), losses.max(), color=colour, alpha=0.2, linewidth=0)
        axes.plot(x, losses.mean(), linestyle=style, color=colour)
        ends.append((losses.mean().iloc[-1], x.iloc[-1], arm, colour))
    _name_ends(axes, ends)
    axes.set(xlabel=BUDGETS[budget], ylabel="validation loss (nats)")
    perplexity = axes.secondary_yaxis(-0.13, functions=(np.exp, _log))
    perplexity.set_ylabel("perplexity")
    axes.spines["right"].set_visible(False)
    seeds = frame.groupby("arm")["seed"].nunique()
    told = "; ".join(f"{arm} {loss:.4f} at {at:,.4g}" for loss, at, arm, _ in sorted(ends))
    figure.alt = (
        f"Validation loss against {BUDGETS[budget]}, means of {_span(seeds)}. Where the "
        f"lines end, from the lowest: {told}."
    )
    return figure


def plot_seeds(losses: Mapping[str, Mapping[int, float]], unit: str = "token") -> Picture:
    """A dot for each run and a line at the mean, a row per arm: losses by arm and seed, as
    `study.losses_of` gives them, in nats per `unit`."""
    figure, axes = one_panel(8, min(TALLEST, 0.9 + 0.34 * len(losses)))
    told = []
    for place, (arm, runs) in enumerate(losses.items()):
        values = np.array([*runs.values()])
        axes.plot(values, np.full(len(values), place), "o", color=BLUE, alpha=0.6, markersize=5)
        axes.plot(values.mean(), place, "|", color=VERMILION, markersize=16, markeredgewidth=2)
        told.append(f"{arm} {values.mean():.3f} from {values.min():.3f} to {values.max():.3f}")
    axes.set_yticks(range(len(losses)), [*losses], fontsize=9)
    axes.set_ylim(len(losses) - 0.5, -0.5)
    axes.set_xlabel(f"validation loss (nats per {unit}): a dot is a run, a line the mean")
    figure.alt = f"Validation loss of each arm, the mean and its runs: {'; '.join(told)}."
    return figure


def plot_differences(differences: "pd.DataFrame") -> Picture:
    """Loss of one arm minus that of another, with 95 % intervals, from `study.differences`.

    Left of zero the first is better. A filled dot is a difference that Holm's correction leaves.
    """
    figure, axes = one_panel(8, min(TALLEST, 0.9 + 0.34 * len(differences)))
    axes.axvline(0, color=GREY, linewidth=1)
    names, found = [], []
    for place, row in enumerate(differences.itertuples()):
        sure = row.p_holm < SURE
        colour = (BLUE if row.difference < 0 else VERMILION) if sure else GREY
        axes.plot([row.low, row.high], [place, place], color=colour, linewidth=2)
        axes.plot(row.difference, place, "o", color=colour, mfc=colour if sure else "white")
        names.append(f"{row.first} − {row.second}")
        words = f"{row.first} minus {row.second} {row.difference:+.4f}"
        found.append(words if sure else f"{words} (no difference detected)")
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel("difference of the loss (nats): left of 0 the first is better")
    right = axes.secondary_yaxis("right")
    right.set_yticks(range(len(names)), differences["equal"], fontsize=8, color=GREY)
    right.tick_params(length=0)
    right.spines["right"].set_visible(False)
    figure.alt = f"Differences of the loss in nats, with 95 % intervals: {'; '.join(found)}."
    return figure


def _log(perplexity: np.ndarray) -> np.ndarray:
    """The loss; matplotlib also asks for that of 0."""
    return np.log(np.maximum(perplexity, 1e-9))
