"""Lines of named values, losses of a training, and means with their intervals."""

import textwrap
from collections.abc import Sequence
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, MaxNLocator, NullFormatter, ScalarFormatter

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
    legend_beside,
    one_panel,
    row_of_panels,
    title_first,
)

if TYPE_CHECKING:
    import pandas as pd

TITLE = 46  # characters of a title's line, which has to end before the legend


def _baselines(axes: Axes, heights: dict[str, float] | None) -> None:
    """A dotted line at each height, its name beside its right end, where no curve can cross it."""
    for label, height in (heights or {}).items():
        axes.axhline(height, color=GREY, linewidth=1, linestyle=":")
        at = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
        axes.annotate(label, (1, height), (4, 0), va="center", fontsize=8, color=GREY, **at)


def _plain_log_ticks(axes: Axes) -> None:
    axes.yaxis.set_major_locator(FixedLocator([1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100]))
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_formatter(NullFormatter())


def plot_training(
    frame: "pd.DataFrame", baselines: dict[str, float] | None = None, title: str = ""
) -> Picture:
    """Loss and perplexity against epochs, for train and validation; `baselines` in nats."""
    figure, (left, right) = row_of_panels(9, 3.4, 2)
    for axes, name in ((left, "lm_loss"), (right, "perplexity")):
        for split, colour, style in (("train", BLUE, "-"), ("val", ORANGE, "--")):
            values = frame[f"{split}_{name}"]
            axes.plot(
                frame["epoch"], values, style, color=colour, label=split, marker="o", markersize=3.5
            )
        axes.set_xlabel("epoch")
    left.set_ylabel("loss (nats per character)")
    right.set_ylabel("perplexity (log scale)")
    right.set_yscale("log")
    _plain_log_ticks(right)
    _baselines(left, baselines)
    _baselines(right, {label: np.exp(nats) for label, nats in (baselines or {}).items()})
    left.legend(loc="upper right", bbox_to_anchor=(1, 0.93))  # below the line of uniform
    figure.suptitle(title)
    words = _training_in_words(frame)
    figure.alt = f"{title_first(title, 'A training')}: {words}{_heights_in_words(baselines)}."
    return figure


def _training_in_words(frame: "pd.DataFrame") -> str:
    first, last = frame.iloc[0], frame.iloc[-1]
    words = [
        f"{name} from {first[column]:.3f} to {last[column]:.3f} nats per character"
        for name, column in (("training", "train_lm_loss"), ("validation", "val_lm_loss"))
    ]
    words = f"loss over {last['epoch']:.2f} epochs, {', '.join(words)}"
    if frame["val_lm_loss"].notna().any():
        best = frame.loc[frame["val_lm_loss"].idxmin()]
        words += f", lowest {best['val_lm_loss']:.3f} after {best['epoch']:.2f}"
    return words


def _heights_in_words(heights: dict[str, float] | None) -> str:
    told = ", ".join(f"{label} {height:.3g}" for label, height in (heights or {}).items())
    return f"; dotted: {told}" if told else ""


def plot_convergence(frame: "pd.DataFrame", title: str = "") -> Picture:
    """A training by its log, against updates: losses in nats per token, the learning rate, the
    gradient norm and, of experts, how unevenly they are used.

    A dot marks the evaluation with the lowest validation loss.
    """
    other = {"lr": "learning rate", "grad_norm": "gradient norm", "load_cv": "load CV of experts"}
    other = {name: label for name, label in other.items() if frame[name].notna().any()}
    count = 1 + len(other)
    figure, (losses, *panels) = row_of_panels(3.2 * count, 3.0, count)
    for split, colour, style in (("train", BLUE, "-"), ("val", ORANGE, "--")):
        losses.plot(frame["step"], frame[f"{split}_lm_loss"], style, color=colour, label=split)
    losses.set_ylabel("loss (nats per token)")
    figure.alt = _mark_best(losses, frame)
    losses.legend()
    for axes, (name, label) in zip(panels, other.items(), strict=True):
        axes.plot(frame["step"], frame[name], color=GREEN)
        axes.set(ylabel=label, ylim=(0, None))
    for axes in figure.axes:
        axes.set(xlabel="updates", xlim=losses.get_xlim())
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    figure.suptitle(title, fontsize=10)
    return figure


def _mark_best(axes: Axes, frame: "pd.DataFrame") -> str:
    """A dot at the lowest validation loss; gives what the curves come to, in words."""
    first, last = frame.iloc[0], frame.iloc[-1]
    words = f"after {last['step']:,.0f} updates train {last['train_lm_loss']:.3f}"
    words += f" and validation {last['val_lm_loss']:.3f} nats per token"
    if frame["val_lm_loss"].notna().any():
        best = frame.loc[frame["val_lm_loss"].idxmin()]
        label = f"best: {best['val_lm_loss']:.3f} at {best['step']:,.0f}"
        axes.plot(
            best["step"], best["val_lm_loss"], "o", color=VERMILION, markersize=5, label=label
        )
        words += f"; {label}"
    return f"Loss from {first['val_lm_loss']:.3f} on: {words}."


def plot_lines(
    x: Sequence[float],
    lines: dict[str, Sequence[float]],
    xlabel: str,
    ylabel: str,
    title: str = "",
    baselines: dict[str, float] | None = None,
) -> Picture:
    """Several named lines over one axis; `baselines` are dotted heights with a name."""
    figure, axes = one_panel(6.5, 3.4)
    colours = cycle((BLUE, ORANGE, GREEN, PINK, SKY, VERMILION))
    looks = zip(lines.items(), colours, cycle(LINE_STYLES), strict=False)
    for (label, values), colour, style in looks:
        axes.plot(x, values, linestyle=style, color=colour, label=label)
    _baselines(axes, baselines)
    if all(isinstance(value, int) for value in x):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel=xlabel, ylabel=ylabel, title=textwrap.fill(title, TITLE))
    legend_beside(figure, axes.get_lines()[: len(lines)])
    told = "; ".join(_line_in_words(x, label, values) for label, values in lines.items())
    axis = f"{ylabel} against {xlabel} from {_place(x[0])} to {_place(x[-1])}"
    figure.alt = f"{title_first(title, 'Lines')}: {axis}. {told}{_heights_in_words(baselines)}."
    return figure


def _line_in_words(x: Sequence[float], label: str, values: Sequence[float]) -> str:
    """Where a line begins and ends, and its highest and lowest values where these lie between."""
    y = np.asarray(values, dtype=float)
    known = np.flatnonzero(np.isfinite(y))
    if not len(known):
        return f"{label}: no values"
    words = f"{label} from {y[known[0]]:.3g} to {y[known[-1]]:.3g}"
    for name, i in (("highest", np.nanargmax(y)), ("lowest", np.nanargmin(y))):
        if i not in (known[0], known[-1]):
            words += f", {name} {y[i]:.3g} at {_place(x[i])}"
    return words


def _place(x: float | str) -> str:
    """A place on the axis: a number, or a name."""
    return x if isinstance(x, str) else f"{x:.4g}"


def plot_intervals(
    columns: dict[str, dict[str, tuple[float, float, float]]],
    reference: str | None = None,
    title: str = "",
) -> Picture:
    """Means with their confidence intervals: `{column: {row: (mean, low, high)}}`.

    One panel per column; a dotted line marks the mean of the row called `reference`.
    """
    names = list(next(iter(columns.values())))
    figure, panels = row_of_panels(9.4, min(TALLEST, 0.26 * len(names) + 1.1), len(columns))
    for axes, (label, rows) in zip(panels, columns.items(), strict=True):
        for y, name in enumerate(names):
            mean, low, high = rows[name]
            colour = ORANGE if name == reference else BLUE
            axes.plot([low, high], [y, y], color=colour, linewidth=2, solid_capstyle="butt")
            axes.plot(mean, y, "s" if name == reference else "o", color=colour, markersize=3.5)
        if reference is not None:
            axes.axvline(rows[reference][0], color=ORANGE, linewidth=1, linestyle=":")
        axes.set_title(label, fontsize=9)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_yticks(range(len(names)), names if axes is panels[0] else [])
        axes.tick_params(labelsize=8)
        axes.grid(axis="y", color="#EEEEEE")
        axes.set_axisbelow(True)
    figure.suptitle(title, fontsize=10)
    told = "; ".join(_column_in_words(*column, reference) for column in columns.items())
    figure.alt = f"{title_first(title, 'Means')}, with their confidence intervals. {told}."
    return figure


def _column_in_words(
    label: str, rows: dict[str, tuple[float, float, float]], reference: str | None
) -> str:
    """The highest and the lowest mean of a panel, and the reference."""
    order = sorted(rows, key=lambda name: -rows[name][0])
    shown = order if len(order) <= 3 else [order[0], order[-1]]
    shown += [reference] if reference is not None and reference not in shown else []
    words = ("{} {:.3g} ({:.3g} to {:.3g})".format(name, *rows[name]) for name in shown)
    return f"{label}{', highest, lowest' * (len(order) > 3)}: {', '.join(words)}"
