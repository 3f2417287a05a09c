"""Figures, as functions of arrays and tables that return a matplotlib `Figure`.

Colours are those of Okabe and Ito (2008), which stay apart for colour-blind readers.
"""

import io
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import seaborn as sns
from matplotlib.collections import PatchCollection
from matplotlib.colors import PowerNorm, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import (
    FixedLocator,
    MaxNLocator,
    NullFormatter,
    ScalarFormatter,
    StrMethodFormatter,
)

if TYPE_CHECKING:
    import pandas as pd

BLUE, ORANGE, GREEN, PINK = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
SKY, VERMILION, GREY = "#56B4E9", "#D55E00", "#767676"
EXPERT_COLOURS = (BLUE, ORANGE, GREEN, PINK, VERMILION, SKY, "#F0E442", GREY)  # then again
CHARACTER_FONT = "DejaVu Sans Mono"  # comes with matplotlib
HEAT = "cividis"
KINDS = ((BLUE, "-", "o"), (VERMILION, "--", "s"), (GREEN, "-.", "^"))  # told apart without colour


class Picture(Figure):
    """A figure that a notebook shows as it is, without pyplot or a magic command.

    `alt` says what is to be seen, for those who do not see it.
    """

    alt = ""

    def save(self, path: str | Path) -> None:
        """Write it as PNG or SVG, whichever the name says, with `alt` as its title."""
        self.savefig(path, dpi=2 * self.dpi, facecolor="white", metadata={"Title": self.alt})

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=self.dpi, facecolor="white")
        return buffer.getvalue()


def visible(piece: str) -> str:
    """A character or token as it is labelled in figures: spaces and line ends get signs."""
    return piece.translate(str.maketrans(" \n\t", "␣⏎⇥"))


def plot_training(
    frame: "pd.DataFrame", baselines: dict[str, float] | None = None, title: str = ""
) -> Figure:
    """Loss and perplexity against epochs, for train and validation; `baselines` in nats."""
    figure, (left, right) = _figure(9, 3.4, columns=2)
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
    for label, value in (baselines or {}).items():
        for axes, height in ((left, value), (right, np.exp(value))):
            axes.axhline(height, color=GREY, linewidth=1, linestyle=":")
            axes.annotate(
                label,
                (1, height),
                xycoords=("axes fraction", "data"),
                xytext=(-3, 2),
                textcoords="offset points",
                ha="right",
                fontsize=8,
                color=GREY,
            )
    left.legend(loc="upper center", bbox_to_anchor=(0.5, 0.93))  # the labels stand on the right
    figure.suptitle(title)
    return figure


def plot_bars(
    labels: Sequence[str], values: Sequence[float], ylabel: str, title: str = ""
) -> Figure:
    """One bar per character (or word)."""
    figure, axes = _figure(9, 2.8)
    axes.bar(range(len(labels)), values, color=BLUE)
    axes.set_xticks(range(len(labels)), [visible(label) for label in labels])
    axes.tick_params(axis="x", labelfontfamily=CHARACTER_FONT, labelsize=8)
    axes.set_xlim(-0.7, len(labels) - 0.3)
    axes.set_ylabel(ylabel)
    axes.set_title(title)
    return figure


def plot_table(
    table: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    xlabel: str = "",
    ylabel: str = "",
    title: str = "",
    size: float = 5.5,
    annotate: bool = False,
    vmax: float | None = None,
) -> Figure:
    """A heat map of a matrix with characters along both sides."""
    figure, axes = _figure(size * 1.15, size)
    _heat(axes, table, rows, columns, vmax, annotate=annotate, cbar=True)
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
    return figure


def plot_attention(
    maps: np.ndarray,
    pieces: Sequence[str],
    titles: Sequence[str],
    size: float = 2.7,
    limits: tuple[float, float] = (0.0, 1.0),
) -> Picture:
    """Attention maps `(n, T, T)` side by side on one scale, tokens on both axes.

    What a query may not see is hatched. Scores from before the softmax are drawn alike, with their
    own `limits`. Each map is `size` inches wide.
    """
    figure, panels = _figure(size * len(maps) + 0.6, size + 0.3, columns=len(maps))
    panels = np.atleast_1d(panels)
    for axes, values, title in zip(panels, _without_future(maps), titles, strict=True):
        _heat(axes, values, pieces, pieces, limits[1], cbar=axes is panels[-1], vmin=limits[0])
        axes.tick_params(labelsize=min(11 if len(pieces) <= 12 else 8, 60 * size / len(pieces)))
        axes.patch.set(facecolor="#F4F4F4", edgecolor="#C8C8C8", hatch="/////")
        axes.set_title(title)
    panels[0].set_ylabel("reads (query)")
    panels[0].set_xlabel("is read (key)")
    figure.set_layout_engine("compressed")  # for panels that are square
    figure.alt = _attention_in_words(maps, titles)
    return figure


def plot_all_heads(maps: Sequence[np.ndarray], title: str = "") -> Picture:
    """A thumbnail for each head, a row for each layer, from maps `(H, T, T)` per layer.

    One scale from 0 to 1 for all, on which small weights are spread out. Where a map is larger
    than its thumbnail, a point shows the largest weight of its place. What a query may not see is
    white.
    """
    tiles = np.stack([[thumbnail(head) for head in _without_future(layer)] for layer in maps])
    L, H, size, _ = tiles.shape
    tiles = np.pad(tiles, [(0, 0), (0, 0), (0, GUTTER), (0, GUTTER)], constant_values=np.nan)
    wall = tiles.swapaxes(1, 2).reshape(L * (size + GUTTER), H * (size + GUTTER))
    inches = min(1.5, 9 / H)
    figure, axes = _figure(inches * H + 1.4, inches * L + 0.7)
    picture = axes.imshow(wall, cmap=HEAT, norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
    centres = (np.arange(max(L, H)) + 0.5) * (size + GUTTER) - GUTTER / 2
    axes.set_xticks(centres[:H], [f"head {h}" for h in range(H)] if H <= 8 else range(H))
    axes.set_yticks(centres[:L], [f"layer {n}" for n in range(L)])
    axes.tick_params(length=0, labelsize=9, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)
    ticks = [0, 0.05, 0.2, 0.5, 1]
    figure.colorbar(picture, ax=axes, label="weight", fraction=0.03, pad=0.01, ticks=ticks)
    axes.set_title(title, fontsize=10)
    figure.set_layout_engine("compressed")
    names = [f"layer {n}, head {h}" for n in range(L) for h in range(H)]
    figure.alt = _attention_in_words(np.concatenate(maps), names)
    return figure


GUTTER, THUMBNAIL = 3, 96  # points between thumbnails, and at most along each side of one


def thumbnail(head: np.ndarray, points: int = THUMBNAIL) -> np.ndarray:
    """A map `(T, T)` in so many points a side at most, each the largest value of its place."""
    edges = np.linspace(0, len(head), min(len(head), points), endpoint=False).astype(int)
    return np.fmax.reduceat(np.fmax.reduceat(head, edges, axis=0), edges, axis=1)


def _without_future(maps: np.ndarray) -> np.ndarray:
    """Maps `(n, T, T)`, NaN after the diagonal where the mask has left nothing."""
    maps = np.asarray(maps, dtype=float)
    future = np.triu(np.ones(maps.shape[1:], dtype=bool), k=1)
    return np.where(future & ((maps == 0) | np.isneginf(maps)), np.nan, maps)


def _attention_in_words(maps: np.ndarray, titles: Sequence[str]) -> str:
    """How far each map `(T, T)` looks back on average, and its weight on the token before."""
    maps, t = np.asarray(maps, dtype=float), np.arange(len(maps[0]))
    if np.isneginf(maps).any() or (maps < 0).any():
        ends = maps[np.isfinite(maps)].min(), maps[np.isfinite(maps)].max()
        return f"Attention scores over {len(t)} tokens, from {ends[0]:.1f} to {ends[1]:.1f}."
    back = (maps * (t[:, None] - t)).sum(-1).mean(-1)
    before = maps.diagonal(-1, 1, 2).mean(-1) if len(t) > 1 else np.zeros(len(maps))
    found = [f"{name} {b:.1f} ({w:.2f})" for name, b, w in zip(titles, back, before, strict=True)]
    return (
        f"Attention maps over {len(t)} tokens. How many tokens each looks back on average (and its "
        f"weight on the token before): {'; '.join(found)}."
    )


HEAD_FIGURES = {
    "entropy": "entropy (nats)",
    "distance": "distance back",
    "previous_token": "on the token before",
    "same_token": "on the same token before",
    "speaker_line": "on the speaker's name",
}


def plot_heads(heads: "pd.DataFrame", even: dict[str, float] | None = None) -> Picture:
    """A dot per head for each figure of `measure_heads`, by arm; `even` of `measure_even`.

    heads has a column `arm`; within an arm, from left to right, stand its layers, first to last.
    """
    shown = [name for name in HEAD_FIGURES if heads[name].notna().any()]
    arms, L = list(dict.fromkeys(heads["arm"])), heads["layer"].max() + 1
    figure, panels = _figure(1.9 * len(shown) + 0.4, 3.0, columns=len(shown))
    for axes, name in zip(np.atleast_1d(panels), shown, strict=True):
        for (i, arm), (colour, _, marker) in zip(enumerate(arms), cycle(KINDS), strict=False):
            mine = heads[heads["arm"] == arm]
            x = i + 0.7 * ((mine["layer"] + 0.5) / L - 0.5)
            axes.plot(x, mine[name], marker, color=colour, alpha=0.6, markersize=4.5, mew=0)
        if even is not None:
            axes.axhline(even[name], color=GREY, linewidth=1, linestyle=":")
        axes.set_title(HEAD_FIGURES[name], fontsize=9)
        axes.set_xticks(range(len(arms)), arms)
        axes.set(xlim=(-0.5, len(arms) - 0.5), ylim=(0, None))
        axes.tick_params(labelsize=8)
    figure.alt = _heads_in_words(heads, shown, arms, even)
    return figure


def _heads_in_words(
    heads: "pd.DataFrame", shown: list[str], arms: list[str], even: dict[str, float] | None
) -> str:
    ranges = []
    for name in shown:
        by_arm = heads.groupby("arm")[name].agg(["min", "max"])
        words = [
            f"{arm} {low:.2f} to {high:.2f}" for arm, low, high in by_arm.loc[arms].itertuples()
        ]
        words += [] if even is None else [f"attending alike to all {even[name]:.2f}"]
        ranges.append(f"{HEAD_FIGURES[name]}: {', '.join(words)}")
    return f"Figures of attention heads, smallest to largest by arm. {'. '.join(ranges)}."


def plot_page(
    text: str, values: Sequence[float], label: str, title: str = "", vmax: float | None = None
) -> Figure:
    """A page of text, each character on a tile whose colour shows its value (NaN: no tile)."""
    lines, cells = text.split("\n"), []
    row = column = 0
    for character, value in zip(text, values, strict=True):
        cells.append((row, column, character, value))
        row, column = (row + 1, 0) if character == "\n" else (row, column + 1)
    grid = np.full((len(lines), max(map(len, lines)) + 1), np.nan)
    for row, column, _, value in cells:
        grid[row, column] = value
    figure, axes = _figure(0.12 * grid.shape[1] + 0.9, 0.22 * grid.shape[0] + 0.4)
    top = vmax or max(1e-9, np.nanmax(grid))
    picture = axes.imshow(grid, cmap=HEAT, vmin=0, vmax=top, aspect="auto")
    for row, column, character, value in cells:
        colour = "black" if value > 0.5 * top else "white" if value == value else GREY
        axes.text(
            column,
            row,
            visible(character).replace("␣", " "),
            color=colour,
            ha="center",
            va="center",
            fontsize=9.5,
            family=CHARACTER_FONT,
        )
    figure.colorbar(picture, ax=axes, label=label, fraction=0.03, pad=0.01)
    axes.set_axis_off()
    axes.set_title(title, fontsize=10)
    return figure


def plot_lines(
    x: Sequence[float],
    lines: dict[str, Sequence[float]],
    xlabel: str,
    ylabel: str,
    title: str = "",
    baselines: dict[str, float] | None = None,
) -> Figure:
    """Several named lines over one axis."""
    figure, axes = _figure(6.5, 3.4)
    colours = cycle((BLUE, ORANGE, GREEN, PINK, SKY, VERMILION))
    styles = cycle(("-", "--", "-.", ":"))
    for (label, values), colour, style in zip(lines.items(), colours, styles, strict=False):
        axes.plot(x, values, style, color=colour, label=label)
    for label, height in (baselines or {}).items():
        axes.axhline(height, color=GREY, linewidth=1, linestyle=":")
        axes.text(x[-1], height, label, ha="right", va="bottom", fontsize=8, color=GREY)
    if all(isinstance(value, int) for value in x):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
    axes.legend()
    return figure


def plot_filters(
    stages: Sequence[tuple[str, Sequence[float]]],
    characters: Sequence[str],
    count: int = 20,
    title: str = "",
) -> Figure:
    """The next-character distribution after each step, one column `(name, probabilities)` per step.

    The rows are the `count` most probable characters of the first column. A hatched bar is what a
    character had before it was cut; above each column stand its entropy and effective choices.
    """
    distributions = np.array([np.asarray(p, dtype=float) for _, p in stages])  # (stages, V)
    order = np.argsort(-distributions[0], kind="stable")[:count]
    figure, panels = _figure(1.75 * len(stages) + 0.9, 0.21 * len(order) + 1.2, columns=len(stages))
    before, first = distributions[0], np.atleast_1d(panels)[0]
    for axes, (name, _), p in zip(np.atleast_1d(panels), stages, distributions, strict=True):
        cut = p[order] == 0
        rows = np.arange(len(order))
        axes.barh(rows[~cut], p[order][~cut], color=BLUE)
        axes.barh(rows[cut], before[order][cut], color="white", edgecolor=GREY, hatch="////")
        entropy = -(p[p > 0] * np.log(p[p > 0])).sum() + 0.0
        kept = f"{np.count_nonzero(p)} characters"
        effect = f"$H$ {entropy:.2f}, $e^H$ {np.exp(entropy):.1f}"
        axes.set_title(f"{name}\n{kept}\n{effect}", fontsize=9)
        axes.set_xlim(0, 1.04 * distributions.max())
        axes.set_ylim(len(order) - 0.4, -0.6)
        axes.set_yticks(rows, [visible(characters[i]) for i in order] if axes is first else [])
        axes.tick_params(axis="y", labelfontfamily=CHARACTER_FONT, labelsize=9, length=0)
        axes.tick_params(axis="x", labelsize=8)
        before = np.where(p > 0, p, before)
    figure.supxlabel("probability", fontsize=9)
    figure.suptitle(title, fontsize=10)
    return figure


def plot_intervals(
    columns: dict[str, dict[str, tuple[float, float, float]]],
    reference: str | None = None,
    title: str = "",
) -> Figure:
    """Means with their confidence intervals: `{column: {row: (mean, low, high)}}`.

    One panel per column; a dotted line marks the mean of the row called `reference`.
    """
    names = list(next(iter(columns.values())))
    figure, panels = _figure(9.4, 0.26 * len(names) + 1.1, columns=len(columns))
    for axes, (label, rows) in zip(np.atleast_1d(panels), columns.items(), strict=True):
        for y, name in enumerate(names):
            mean, low, high = rows[name]
            colour = ORANGE if name == reference else BLUE
            axes.plot([low, high], [y, y], color=colour, linewidth=2, solid_capstyle="butt")
            axes.plot(mean, y, "s" if name == reference else "o", color=colour, markersize=3.5)
        if reference is not None:
            axes.axvline(rows[reference][0], color=ORANGE, linewidth=1, linestyle=":")
        axes.set_title(label, fontsize=9)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_yticks(range(len(names)), names if axes is np.atleast_1d(panels)[0] else [])
        axes.tick_params(labelsize=8)
        axes.grid(axis="y", color="#EEEEEE")
        axes.set_axisbelow(True)
    figure.suptitle(title, fontsize=10)
    return figure


def plot_routing(
    text: str,
    experts: np.ndarray,
    weights: np.ndarray,
    n_experts: int,
    title: str = "",
    columns: int = 64,
) -> Figure:
    """A page of text whose tiles have the colour, and below each character the number, of its
    expert; the paler, the smaller its weight. A line under a tile is the second expert.

    experts and weights are `(T,)` or `(T, K)`, the first choice first; numbers from `n_experts` on
    mean that there is no expert. Lines are cut after so many columns.
    """
    experts, weights = (np.asarray(x).reshape(len(text), -1) for x in (experts, weights))
    places = _places(text, columns)
    n_rows, n_columns = np.max(places, axis=0) + 1
    figure, axes = _figure(0.145 * n_columns + 0.9, 0.34 * n_rows + 0.35)
    tiles = []
    for (row, column), character, chosen, w in zip(places, text, experts, weights, strict=True):
        tiles += _tile(row, column, chosen, min(1.0, float(w[0])), n_experts)
        number = str(chosen[0]) if chosen[0] < n_experts else "–"
        style = {"ha": "center", "va": "center", "family": CHARACTER_FONT, "color": "#111111"}
        axes.text(column, row - 0.1, visible(character), fontsize=9, **style)
        axes.text(column, row + 0.26, number, fontsize=6, **style)
    axes.add_collection(PatchCollection(tiles, match_original=True))
    axes.set(xlim=(-0.6, n_columns - 0.4), ylim=(n_rows - 0.4, -0.6))
    axes.set_axis_off()
    axes.set_title(title, fontsize=10)
    swatches = [Patch(color=_expert_colour(e), label=f"expert {e}") for e in range(n_experts)]
    figure.legend(
        handles=swatches, loc="outside right upper", handlelength=1, fontsize=8, frameon=False
    )
    return figure


def plot_loads(loads: np.ndarray, labels: Sequence[str], title: str = "") -> Figure:
    """Each expert's share of the tokens, loads `(R, E)`; a panel for each of R labels (layers).

    The dashed line is an even load.
    """
    loads = np.atleast_2d(np.asarray(loads, dtype=float))
    n_experts = loads.shape[1]
    width = max(2.4, 0.22 * n_experts) * len(loads) + 0.6
    figure, panels = _figure(width, 2.5, columns=len(loads))
    for axes, load, label in zip(np.atleast_1d(panels), loads, labels, strict=True):
        bars = axes.bar(range(n_experts), load, color=list(map(_expert_colour, range(n_experts))))
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
    np.atleast_1d(panels)[0].set_ylabel("share of tokens")
    figure.suptitle(title, fontsize=10)
    return figure


def plot_routing_over_training(frame: "pd.DataFrame") -> Picture:
    """How routers settle, from the rows of `routing_over_training`: saturation against the last
    router, dotted what the loads alone would give, and MaxVio; a line per layer.

    Of several runs in one table, such as seeds, the mean.
    """
    figure, (left, right) = _figure(9, 3.2, columns=2)
    means = frame.groupby(["layer", "step"]).mean(numeric_only=True).reset_index("step")
    for layer, mark in zip(means.index.unique(), cycle("os^Dvx"), strict=False):
        colour, rows = _expert_colour(layer), means.loc[[layer]]
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
    figure.legend(*left.get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    figure.alt = _settling(means)
    return figure


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


def plot_co_activation(table: np.ndarray, title: str = "") -> Picture:
    """Of the tokens of each expert (row), the share that also went to each other one (column).

    From `co_activation`, `(E, E)`; an expert without tokens has an empty row.
    """
    shares = np.array(table, dtype=float)
    np.fill_diagonal(shares, np.nan)  # an expert is always with itself
    E = len(shares)
    names, size = list(map(str, range(E))), max(3.4, 0.34 * E)
    figure, axes = _figure(size * 1.15, size)
    _heat(axes, shares, names, names, vmax=None, annotate=E <= 8)
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
    figure, panels = _figure(1.2 + 0.55 * len(layers) * len(labels) + 1.2, 2.8, len(labels))
    for axes, label in zip(np.atleast_1d(panels), labels, strict=True):
        means = final.groupby("layer")[f"{label}_share"].mean()
        axes.bar(range(len(layers)), 100 * means, color=BLUE, width=0.65)
        places = [layers.index(layer) for layer in final["layer"]]
        axes.plot(places, 100 * final[f"{label}_share"], "o", color="black", markersize=2.5)
        axes.set_xticks(range(len(layers)), layers)
        axes.set(xlabel="layer", ylim=(0, top))
        axes.set_title(label, fontsize=10)
        found = (f"{100 * mean:.0f} % in layer {layer}" for layer, mean in means.items())
        words.append(f"of the {label} {', '.join(found)}")
    np.atleast_1d(panels)[0].set_ylabel("told by the expert (%)")
    figure.alt = f"A token's expert tells {'; '.join(words)}."
    return figure


def plot_scaling(frame: "pd.DataFrame") -> Picture:
    """The cost of a token against each size that varied, log-log, from the rows of `benchmark
    scale`: a panel for each size, a line for each kind of work.

    Where a line ends stand its slope and, in brackets, that of its FLOPs.
    """
    panels = list(frame.groupby("varied", sort=False))
    figure, columns = _figure(3.2 * len(panels), 3.6, columns=len(panels))
    columns = np.atleast_1d(columns)
    found = [_cost_lines(axes, *panel) for axes, panel in zip(columns, panels, strict=True)]
    low, high = frame["us_per_token"].min(), frame["us_per_token"].max()
    for axes in columns:
        axes.set_ylim(low / 1.4, high * 1.4)
    columns[0].set_ylabel("microseconds per token")
    handles, names = columns[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    figure.suptitle("At the end of a line: its slope (and that of its FLOPs)", fontsize=10)
    figure.alt = f"Cost of a token, with slopes (and those of FLOPs). {'. '.join(found)}."
    return figure


def _cost_lines(axes, varied: str, part: "pd.DataFrame") -> str:
    """One panel of `plot_scaling`; its slopes in words."""
    ends, sizes = [], part["size"].unique()
    for (what, line), (colour, style, marker) in zip(
        part.groupby("what", sort=False), KINDS, strict=False
    ):
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


def plot_tricks(frame: "pd.DataFrame", goal: float) -> Picture:
    """What each recipe of `benchmark time-to-loss` changes: its loss after equally many updates,
    with 95 % intervals, and its seconds to the goal; the quickest on top.

    Blue is better, orange worse, grey where the interval covers 0.
    """
    frame = frame.sort_values("seconds_to_goal", ascending=False, na_position="first")
    figure, (left, right) = _figure(9, 0.6 + 0.21 * len(frame), columns=2)
    places, bounds = np.arange(len(frame)), frame["half_interval"]
    known = frame["change"].abs() > bounds
    colours = np.where(~known, GREY, np.where(frame["change"] < 0, BLUE, ORANGE))
    left.hlines(places, frame["change"] - bounds, frame["change"] + bounds, colors=colours)
    left.scatter(frame["change"], places, c=colours, s=18, zorder=3)
    left.axvline(0, color=GREY, linewidth=1)
    left.set_xlabel("change of the loss at equal updates (nats)")
    right.barh(places, frame["seconds_to_goal"], color=SKY, height=0.7)
    for place, seconds in zip(places, frame["seconds_to_goal"], strict=True):
        words = "not known" if np.isnan(seconds) else f"{seconds:.1f}"
        right.annotate(
            words, (np.nan_to_num(seconds), place), (3, 0), textcoords="offset points", fontsize=8
        ).set_verticalalignment("center")
    right.set_xlabel(f"seconds to a loss of {goal}")
    left.set_yticks(places, frame["recipe"], fontsize=8)
    right.set_yticks(places, [])
    for axes in (left, right):
        axes.set_ylim(-0.7, len(frame) - 0.3)
    seconds, clear = frame["seconds_to_goal"], frame[known]["recipe"][frame["change"] < 0]
    figure.alt = (
        f"{len(frame)} recipes reach {goal} in {seconds.min():.1f} to {seconds.max():.1f} seconds. "
        f"Clearly better at equal updates: {', '.join(clear) or 'none'}."
    )
    return figure


def _label_ends(axes, x: float, ends: list[tuple[float, str]]) -> None:
    """Texts to the right of where lines end, moved up where two would lie on each other."""
    lowest = 0.0
    for height, text in sorted(ends):
        lowest = max(height, lowest)
        axes.annotate(
            text, (x, lowest), (6, 0), textcoords="offset points", va="center", fontsize=8
        )
        lowest *= 1.4


def _places(text: str, columns: int) -> list[tuple[int, int]]:
    """Row and column of each character on a page; blank lines take no room."""
    places, row, column = [], 0, 0
    for i in range(len(text)):
        if column == columns:
            row, column = row + 1, 0
        places.append((row, column))
        row, column = (row + 1, 0) if ends_line(text, i) else (row, column + 1)
    return places


def ends_line(pieces: Sequence[str], i: int) -> bool:
    """Whether the next character or token stands on a new line; several line ends take one."""
    after = "".join(pieces[i + 1 : i + 2])
    return pieces[i].endswith("\n") and not after.startswith("\n")


def _tile(row: int, column: int, chosen: np.ndarray, weight: float, n_experts: int) -> list[Patch]:
    """The background of one character, its edge in full colour, and the line below."""
    left, width = column - 0.46, 0.92
    if chosen[0] >= n_experts:
        return [Rectangle((left, row - 0.45), width, 0.9, facecolor="none", edgecolor=GREY)]
    colour = _expert_colour(chosen[0])
    parts = [(row - 0.45, 0.9, to_rgba(colour, tint(weight))), (row - 0.45, 0.08, colour)]
    if len(chosen) > 1 and chosen[1] < n_experts:
        parts.append((row + 0.38, 0.09, _expert_colour(chosen[1])))
    return [Rectangle((left, top), width, h, facecolor=c, linewidth=0) for top, h, c in parts]


def tint(weight: float) -> float:
    """Opacity of a tile for a weight from 0 to 1; black letters stay readable on the darkest."""
    return 0.12 + 0.6 * weight


def _expert_colour(expert: int) -> str:
    return EXPERT_COLOURS[expert % len(EXPERT_COLOURS)]


def _figure(width: float, height: float, columns: int = 1) -> tuple[Figure, np.ndarray]:
    """A figure outside pyplot's global list, so that nothing has to be closed."""
    with sns.axes_style("ticks"):
        figure = Picture(figsize=(width, height), layout="constrained", dpi=100)
        axes = figure.subplots(1, columns)
    sns.despine(figure)
    return figure, axes


def _heat(axes, table, rows, columns, vmax, annotate=False, cbar=True, vmin=0.0) -> None:
    table = np.asarray(table, dtype=float)
    sns.heatmap(
        table,
        ax=axes,
        cmap=HEAT,
        vmin=vmin,
        vmax=vmax,
        cbar=cbar,
        square=True,
        annot=annotate,
        fmt=".2f",
        mask=np.isnan(table),
        xticklabels=False,  # seaborn takes long to place many
        yticklabels=False,
        rasterized=table.size > 10_000,  # an SVG of so many squares would be slow
    )
    axes.set_xticks(np.arange(len(columns)) + 0.5, [visible(c) for c in columns])
    axes.set_yticks(np.arange(len(rows)) + 0.5, [visible(c) for c in rows])
    axes.set_facecolor("#DDDDDD")  # what is masked
    size = 11 if len(rows) <= 12 else 8 if len(rows) <= 34 else 6
    axes.tick_params(labelfontfamily=CHARACTER_FONT, labelsize=size, length=0)
    axes.tick_params(axis="x", rotation=0)
    axes.tick_params(axis="y", rotation=0)


def _plain_log_ticks(axes) -> None:
    axes.yaxis.set_major_locator(FixedLocator([1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100]))
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_formatter(NullFormatter())
