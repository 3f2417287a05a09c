"""What the benchmarks found: the cost of a token against sizes, and tricks of training."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import StrMethodFormatter

from ..measure import SURE
from .base import BLUE, GREY, KINDS, ORANGE, SKY, TALLEST, Picture, row_of_panels, spread

if TYPE_CHECKING:
    import pandas as pd

BESIDE = {"textcoords": "offset points", "va": "center", "fontsize": 8}


def _label_ends(axes: Axes, x: float, ends: list[tuple[float, str]]) -> None:
    """Texts to the right of where lines end, moved up where two would lie on each other."""
    heights, texts = zip(*sorted(ends), strict=True)
    places = np.exp(spread(np.log(heights), gap=np.log(1.4)))
    for place, text in zip(places, texts, strict=True):
        axes.annotate(text, (x, place), (6, 0), **BESIDE)


def _cost_lines(axes: Axes, varied: str, part: "pd.DataFrame") -> str:
    """One panel of `plot_scaling`; its slopes in words."""
    ends, sizes = [], part["size"].unique()
    looks = zip(part.groupby("what", sort=False), KINDS, strict=False)
    for (what, line), (colour, style, marker) in looks:
        cost, last = line["us_per_token"], line.iloc[-1]
        axes.loglog(line["size"], cost, style, c=colour, marker=marker, markersize=4, label=what)
        slopes = f"{last['slope_us_per_token']:.2f} ({last['slope_mflop_per_token']:.2f})"
        ends.append((last["us_per_token"], slopes.replace("-", "−"), what))
    _label_ends(axes, sizes[-1], [end[:2] for end in ends])
    shown = sizes[:: 1 + len(sizes) // 6]
    axes.set_xticks(shown, shown)
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    axes.tick_params(labelsize=8)
    axes.set_xlabel(varied)
    slopes = ", ".join(f"{what} {slopes}" for _, slopes, what in ends)
    return f"Against {varied} from {sizes[0]} to {sizes[-1]}: {slopes}"


def plot_scaling(frame: "pd.DataFrame") -> Picture:
    """The cost of a token against each size that varied, log-log, from the rows of `benchmark
    scale`: a panel for each size, a line for each kind of work.

    Where a line ends stand its slope and, in brackets, that of its FLOPs.
    """
    parts = list(frame.groupby("varied", sort=False))
    figure, panels = row_of_panels(3.2 * len(parts), 3.6, len(parts))
    found = [_cost_lines(axes, *part) for axes, part in zip(panels, parts, strict=True)]
    low, high = frame["us_per_token"].min(), frame["us_per_token"].max()
    for axes in panels:
        axes.set_ylim(low / 1.4, high * 1.4)
    panels[0].set_ylabel("microseconds per token")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    figure.suptitle("At the end of a line: its slope (and that of its FLOPs)", fontsize=10)
    figure.alt = f"Cost of a token, with slopes (and those of FLOPs). {'. '.join(found)}."
    return figure


def plot_tricks(frame: "pd.DataFrame", goal: float) -> Picture:
    """What each recipe of `benchmark time-to-loss` changes: its loss after equally many updates,
    with 95 % intervals, and its seconds to the goal; the quickest on top.

    Blue is better, orange worse, grey where Holm's correction leaves no difference.
    """
    frame = frame.sort_values("seconds_to_goal", ascending=False, na_position="first")
    figure, (left, right) = row_of_panels(9, min(TALLEST, 0.6 + 0.21 * len(frame)), 2)
    places, bounds = np.arange(len(frame)), frame["half_interval"]
    known = frame["p_holm"] < SURE
    colours = np.where(~known, GREY, np.where(frame["change"] < 0, BLUE, ORANGE))
    left.hlines(places, frame["change"] - bounds, frame["change"] + bounds, colors=colours)
    left.scatter(frame["change"], places, c=colours, s=18, zorder=3)
    left.axvline(0, color=GREY, linewidth=1)
    left.set_xlabel("change of the loss at equal updates (nats)")
    right.barh(places, frame["seconds_to_goal"], color=SKY, height=0.7)
    for place, seconds in zip(places, frame["seconds_to_goal"], strict=True):
        words = "not known" if np.isnan(seconds) else f"{seconds:.1f}"
        right.annotate(words, (np.nan_to_num(seconds), place), (3, 0), **BESIDE)
    right.set_xlabel(f"seconds to a loss of {goal}")
    left.set_yticks(places, frame["recipe"], fontsize=8)
    right.set_yticks(places, [])
    for axes in (left, right):
        axes.set_ylim(-0.7, len(frame) - 0.3)
    seconds, clear = frame["seconds_to_goal"], frame["recipe"][known & (frame["change"] < 0)]
    figure.alt = (
        f"{len(frame)} recipes reach {goal} in {seconds.min():.1f} to {seconds.max():.1f} seconds. "
        f"Clearly better at equal updates: {', '.join(clear) or 'none'}."
    )
    return figure
