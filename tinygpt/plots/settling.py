"""How routing settles in training, and what experts have come to do when it ends."""

from collections.abc import Sequence
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np

from .base import BLUE, TALLEST, Picture, heat, legend_beside, one_panel, row_of_panels
from .routing import expert_colour

if TYPE_CHECKING:
    import pandas as pd


def _settling(means: "pd.DataFrame") -> str:
    steps = sorted(means["step"].unique())
    first, middle, last = (means[means["step"] == steps[i]] for i in (0, len(steps) // 2, -1))
    words = [
        f"layer {layer} makes {100 * middle['saturation'][layer]:.0f} % of its final choices, "
        f"{100 * middle['saturation_by_chance'][layer]:.0f} % by chance, and its MaxVio goes from "
        f"{first['max_violation'][layer]:.2f} to {last['max_violation'][layer]:.2f}"
        for layer in means.index.unique()
    ]
    return f"After {middle['step'].iloc[0]:,} of {steps[-1]:,} updates " + "; ".join(words) + "."


def plot_routing_over_training(frame: "pd.DataFrame") -> Picture:
    """How routers settle, from the rows of `routing_over_training`: saturation against the last
    router, dotted what the loads alone would give, and MaxVio; a line per layer.

    Of several runs in one table, such as seeds, the mean.
    """
    figure, (left, right) = row_of_panels(9, 3.2, 2)
    means = frame.groupby(["layer", "step"]).mean(numeric_only=True).reset_index("step")
    for layer, mark in zip(means.index.unique(), cycle("os^Dvx"), strict=False):
        colour, rows = expert_colour(layer), means.loc[[layer]]
        style = {"color": colour, "marker": mark, "markersize": 4, "label": f"layer {layer}"}
        left.plot(rows["step"], rows["saturation"], **style)
        chance = rows["saturation_by_chance"]
        left.plot(rows["step"], chance, ":", c=colour, linewidth=1, label=f"{layer} by chance")
        right.plot(rows["step"], rows["max_violation"], **style)
    left.set(ylabel="saturation", ylim=(0, 1.03))
    right.set_ylabel("MaxVio (max / mean load − 1)")
    right.set_ylim(bottom=0)
    for axes in (left, right):
        axes.set_xlabel("updates")
    legend_beside(figure, left.get_lines())
    figure.alt = _settling(means)
    return figure


def plot_co_activation(table: np.ndarray, title: str = "") -> Picture:
    """Of the tokens of each expert (row), the share that also went to each other one (column).

    From `co_activation`, `(E, E)`; an expert without tokens has an empty row.
    """
    shares = np.array(table, dtype=float)
    np.fill_diagonal(shares, np.nan)  # an expert is always with itself
    E = len(shares)
    names, size = list(map(str, range(E))), min(TALLEST, max(3.4, 0.34 * E))
    figure, axes = one_panel(size * 1.15, size)
    heat(axes, shares, names, names, annotate=E <= 8)
    axes.set(xlabel="also went to expert", ylabel="of the tokens of expert")
    axes.set_title(title, fontsize=10)
    known = np.nan_to_num(shares, nan=-1.0)
    i, j = np.unravel_index(known.argmax(), known.shape)
    figure.alt = (
        f"The closest of {E} experts are {i} and {j}: {100 * shares[i, j]:.0f} % of the tokens of "
        f"{i} also go to {j}; the mean over all pairs is {100 * np.nanmean(shares):.0f} %."
    )
    return figure


def plot_specialisation(frame: "pd.DataFrame", labels: Sequence[str]) -> Picture:
    """How much of a label, such as the "class", a token's expert tells when training has ended.

    From the rows of `routing_over_training` whose step is the last: a bar for each layer, the mean
    of all runs in the table, and a dot for each run. A panel for each label.
    """
    final = frame[frame["step"] == frame["step"].max()]
    layers, words = sorted(final["layer"].unique()), []
    top = 110 * max(final[f"{label}_share"].max() for label in labels)
    figure, panels = row_of_panels(2.4 + 0.55 * len(layers) * len(labels), 2.8, len(labels))
    for axes, label in zip(panels, labels, strict=True):
        means = final.groupby("layer")[f"{label}_share"].mean()
        axes.bar(range(len(layers)), 100 * means, color=BLUE, width=0.65)
        places = [layers.index(layer) for layer in final["layer"]]
        axes.plot(places, 100 * final[f"{label}_share"], "o", color="black", markersize=2.5)
        axes.set_xticks(range(len(layers)), layers)
        axes.set(xlabel="layer", ylim=(0, top))
        axes.set_title(label, fontsize=10)
        found = (f"{100 * mean:.0f} % in layer {layer}" for layer, mean in means.items())
        words.append(f"of the {label} {', '.join(found)}")
    panels[0].set_ylabel("told by the expert (%)")
    figure.alt = f"A token's expert tells {'; '.join(words)}."
    return figure
