"""Which expert takes which character, and how many each one gets."""

from collections.abc import Sequence

import numpy as np
from matplotlib.collections import PatchCollection
from matplotlib.colors import to_rgba
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator

from .base import (
    BLUE,
    CHARACTER,
    GREEN,
    GREY,
    ORANGE,
    PINK,
    SKY,
    TALLEST,
    VERMILION,
    Picture,
    heat,
    legend_beside,
    one_panel,
    row_of_panels,
    title_first,
    visible,
)

EXPERT_COLOURS = (BLUE, ORANGE, GREEN, PINK, VERMILION, SKY, "#F0E442", GREY)  # then again


def ends_line(pieces: Sequence[str], i: int) -> bool:
    """Whether the next character or token stands on a new line; several line ends take one."""
    after = "".join(pieces[i + 1 : i + 2])
    return pieces[i].endswith("\n") and not after.startswith("\n")


def tint(weight: float) -> float:
    """Opacity of a tile for a weight from 0 to 1; black letters stay readable on the darkest."""
    return 0.12 + 0.6 * weight


def expert_colour(expert: int) -> str:
    """The same in all pictures; from the ninth expert on they begin again."""
    return EXPERT_COLOURS[expert % len(EXPERT_COLOURS)]


def _places(text: str, columns: int) -> list[tuple[int, int]]:
    """Row and column of each character on a page; blank lines take no room."""
    places, row, column = [], 0, 0
    for i in range(len(text)):
        if column == columns:
            row, column = row + 1, 0
        places.append((row, column))
        row, column = (row + 1, 0) if ends_line(text, i) else (row, column + 1)
    return places


def _tile(row: int, column: int, chosen: np.ndarray, weight: float, n_experts: int) -> list[Patch]:
    """The background of one character, its edge in full colour, and the line below."""
    left, width = column - 0.46, 0.92
    if chosen[0] >= n_experts:
        return [Rectangle((left, row - 0.45), width, 0.9, facecolor="none", edgecolor=GREY)]
    colour = expert_colour(chosen[0])
    parts = [(row - 0.45, 0.9, to_rgba(colour, tint(weight))), (row - 0.45, 0.08, colour)]
    if len(chosen) > 1 and chosen[1] < n_experts:
        parts.append((row + 0.38, 0.09, expert_colour(chosen[1])))
    return [Rectangle((left, top), width, h, facecolor=c, linewidth=0) for top, h, c in parts]


def plot_routing(
    text: str,
    experts: np.ndarray,
    weights: np.ndarray,
    n_experts: int,
    title: str = "",
    columns: int = 64,
) -> Picture:
    """A page of text whose tiles have the colour, and below each character the number, of its
    expert; the paler, the smaller its weight. A line under a tile is the second expert.

    experts and weights are `(T,)` or `(T, K)`, the first choice first; numbers from `n_experts` on
    mean that there is no expert. Lines are cut after so many columns.
    """
    experts, weights = (np.asarray(x).reshape(len(text), -1) for x in (experts, weights))
    places = _places(text, columns)
    n_rows, n_columns = np.max(places, axis=0) + 1
    figure, axes = one_panel(0.145 * n_columns + 0.9, 0.34 * n_rows + 0.35)
    tiles = []
    for (row, column), character, chosen, w in zip(places, text, experts, weights, strict=True):
        tiles += _tile(row, column, chosen, min(1.0, float(w[0])), n_experts)
        number = str(chosen[0]) if chosen[0] < n_experts else "–"
        axes.text(column, row - 0.1, visible(character), fontsize=9, color="#111111", **CHARACTER)
        axes.text(column, row + 0.26, number, fontsize=6, color="#111111", **CHARACTER)
    axes.add_collection(PatchCollection(tiles, match_original=True))
    axes.set(xlim=(-0.6, n_columns - 0.4), ylim=(n_rows - 0.4, -0.6))
    axes.set_axis_off()
    axes.set_title(title, fontsize=10)
    swatches = [Patch(color=expert_colour(e), label=f"expert {e}") for e in range(n_experts)]
    legend_beside(figure, swatches, handlelength=1.0)
    shares = np.bincount(experts[:, 0], minlength=n_experts)[:n_experts] / len(text)
    figure.alt = (
        f"{title_first(title, 'The expert of each character')}: of {len(text)} characters as first "
        f"choice {_shares_in_words(shares)}."
    )
    return figure


def _shares_in_words(shares: np.ndarray) -> str:
    """Of each expert, or if there are many, of the fullest and the emptiest."""
    told = [f"expert {e} {100 * share:.0f} %" for e, share in enumerate(shares)]
    if len(told) <= 8:
        return ", ".join(told)
    return f"{told[shares.argmax()]} (the most), {told[shares.argmin()]} (the least)"


def plot_loads(loads: np.ndarray, labels: Sequence[str], title: str = "") -> Picture:
    """Each expert's share of the choices, loads `(R, E)`; a panel for each of R labels (layers).

    The dashed line is an even load.
    """
    loads = np.atleast_2d(np.asarray(loads, dtype=float))
    n_experts = loads.shape[1]
    width = max(2.4, 0.22 * n_experts) * len(loads) + 0.6
    figure, panels = row_of_panels(width, 2.5, len(loads))
    for axes, load, label in zip(panels, loads, labels, strict=True):
        bars = axes.bar(range(n_experts), load, color=list(map(expert_colour, range(n_experts))))
        axes.axhline(1 / n_experts, color="black", linewidth=1, linestyle="--")
        if n_experts <= 8:
            names = [f"{100 * share:.0f} %" for share in load]
            shares = axes.bar_label(bars, names, padding=2, fontsize=8)
            for share in shares:  # not crossed by the line
                share.set_bbox({"facecolor": "white", "linewidth": 0, "pad": 0.8})
        top = 1.15 * max(loads.max(), 1 / n_experts)
        axes.set(xlabel="expert", xlim=(-0.6, n_experts - 0.4), ylim=(0, top))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_title(label, fontsize=10)
    panels[0].set_ylabel("share of the choices")
    figure.suptitle(title, fontsize=10)
    told = (f"{name}: {_shares_in_words(load)}" for name, load in zip(labels, loads, strict=True))
    start = title_first(title, "Share of the choices by expert")
    figure.alt = f"{start}; an even one is {100 / n_experts:.0f} %. {'; '.join(told)}."
    return figure


def plot_expert_distribution(loads: np.ndarray, layers: Sequence[int], title: str = "") -> Picture:
    """Each expert's share of the choices over an even share, loads `(L, E)` in the layers of these
    numbers; beside it the coefficient of variation of each layer, 0 where all get as much.
    """
    loads = np.atleast_2d(np.asarray(loads, dtype=float))
    shares = loads / loads.mean(1, keepdims=True)
    n_layers, n_experts = loads.shape
    height = min(TALLEST, 1.5 + 0.34 * max(n_layers, 3))
    figure, (left, right) = row_of_panels(
        3.2 + min(0.42 * max(n_experts, 6), 9.0), height, 2, (3, 1)
    )
    names = [str(layer) for layer in layers]
    heat(left, shares, names, [str(e) for e in range(n_experts)], annotate=n_experts <= 8)
    left.set(xlabel="expert", ylabel="layer", aspect="auto")
    shown = range(0, n_experts, 1 + n_experts // 33)
    left.set_xticks(np.array(shown) + 0.5, [str(e) for e in shown])
    left.set_title("share of the tokens, over an even share", fontsize=9)
    variation = loads.std(1) / loads.mean(1)
    right.barh(np.arange(n_layers) + 0.5, variation, color=BLUE, height=0.7)
    right.set(xlabel="load CV", ylim=left.get_ylim(), xlim=(0, max(0.1, 1.1 * variation.max())))
    right.set_yticks(np.arange(n_layers) + 0.5, [])
    dead = int((shares < 0.01).sum())
    figure.suptitle(title, fontsize=10)
    figure.alt = (
        f"{n_layers} layers of {n_experts} experts: the fullest gets {shares.max():.2f} of an even "
        f"share, the emptiest {shares.min():.2f}; load CV from {variation.min():.2f} to "
        f"{variation.max():.2f}; {dead} dead experts."
    )
    return figure
