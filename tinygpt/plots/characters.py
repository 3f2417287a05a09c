"""Values per character: bars, tables, a page of text, and a distribution under filters."""

from collections.abc import Sequence

import numpy as np

from .base import (
    BLUE,
    CHARACTER,
    CHARACTER_FONT,
    GREY,
    HEAT,
    TALLEST,
    Picture,
    extremes,
    heat,
    one_panel,
    row_of_panels,
    spoken,
    title_first,
    visible,
)


def plot_bars(
    labels: Sequence[str], values: Sequence[float], ylabel: str, title: str = ""
) -> Picture:
    """One bar per character (or word)."""
    figure, axes = one_panel(9, 2.8)
    axes.bar(range(len(labels)), values, color=BLUE)
    axes.set_xticks(range(len(labels)), [visible(label) for label in labels])
    axes.tick_params(axis="x", labelfontfamily=CHARACTER_FONT, labelsize=8)
    axes.set_xlim(-0.7, len(labels) - 0.3)
    axes.set_ylabel(ylabel)
    axes.set_title(title)
    told = extremes([spoken(label) for label in labels], values, 5)
    figure.alt = f"{title_first(title, 'Bars')}, {ylabel}, {len(labels)} bars: {told}."
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
) -> Picture:
    """A heat map of a matrix with characters along both sides."""
    size = min(size, TALLEST)
    figure, axes = one_panel(size * 1.15, size)
    heat(axes, table, rows, columns, (0.0, vmax), annotate=annotate)
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
    cells = [f"row {spoken(row)} column {spoken(column)}" for row in rows for column in columns]
    told = extremes(cells, np.ravel(table))
    figure.alt = (
        f"{title_first(title, 'Heat map')}: {len(rows)} rows{f' ({ylabel})' * bool(ylabel)} by "
        f"{len(columns)} columns{f' ({xlabel})' * bool(xlabel)}: {told}."
    )
    return figure


def plot_page(
    text: str, values: Sequence[float], label: str, title: str = "", vmax: float | None = None
) -> Picture:
    """A page of text, each character on a tile whose colour shows its value (NaN: no tile)."""
    lines, cells = text.split("\n"), []
    row = column = 0
    for character, value in zip(text, values, strict=True):
        cells.append((row, column, character, value))
        row, column = (row + 1, 0) if character == "\n" else (row, column + 1)
    grid = np.full((len(lines), max(map(len, lines)) + 1), np.nan)
    for row, column, _, value in cells:
        grid[row, column] = value
    figure, axes = one_panel(0.12 * grid.shape[1] + 0.9, 0.22 * grid.shape[0] + 0.4)
    top = vmax or max(1e-9, np.nanmax(grid))
    picture = axes.imshow(grid, cmap=HEAT, vmin=0, vmax=top, aspect="auto")
    for row, column, character, value in cells:
        colour = "black" if value > 0.5 * top else "white" if value == value else GREY
        shown = visible(character).replace("␣", " ")
        axes.text(column, row, shown, color=colour, fontsize=9.5, **CHARACTER)
    figure.colorbar(picture, ax=axes, label=label, fraction=0.03, pad=0.01)
    axes.set_axis_off()
    axes.set_title(title, fontsize=10)
    figure.alt = f"{title_first(title, 'A page of text')}: {_page_in_words(text, values, label)}."
    return figure


def _page_in_words(text: str, values: Sequence[float], label: str) -> str:
    """The mean of the values, and where the largest are, with what stands before them."""
    values = np.asarray(values, dtype=float)
    places = [f"{spoken(c)} after “{visible(text[max(0, i - 8) : i])}”" for i, c in enumerate(text)]
    known = values[np.isfinite(values)]
    mean = f"mean {known.mean():.2f}; " if len(known) else ""
    return f"{label}, of {len(known)} characters: {mean}{extremes(places, values)}"


def plot_filters(
    stages: Sequence[tuple[str, Sequence[float]]],
    characters: Sequence[str],
    count: int = 20,
    title: str = "",
) -> Picture:
    """The next-character distribution after each step, one column `(name, probabilities)` per step.

    The rows are the `count` most probable characters of the first column. A hatched bar is what a
    character had before it was cut; above each column stand its entropy and effective choices.
    """
    distributions = np.array([np.asarray(p, dtype=float) for _, p in stages])  # (stages, V)
    told = []
    order = np.argsort(-distributions[0], kind="stable")[:count]
    figure, panels = row_of_panels(1.75 * len(stages) + 0.9, 0.21 * len(order) + 1.2, len(stages))
    before, rows = distributions[0], np.arange(len(order))
    for axes, (name, _), p in zip(panels, stages, distributions, strict=True):
        cut = p[order] == 0
        axes.barh(rows[~cut], p[order][~cut], color=BLUE)
        axes.barh(rows[cut], before[order][cut], color="white", edgecolor=GREY, hatch="////")
        entropy = -(p[p > 0] * np.log(p[p > 0])).sum() + 0.0
        kept = f"{np.count_nonzero(p)} characters"
        effect = f"$H$ {entropy:.2f}, $e^H$ {np.exp(entropy):.1f}"
        first = f"{spoken(characters[p.argmax()])} {p.max():.2f}"
        told.append(f"{name}: {kept}, entropy {entropy:.2f} nats, most probable {first}")
        axes.set_title(f"{name}\n{kept}\n{effect}", fontsize=9)
        axes.set_xlim(0, 1.04 * distributions.max())
        axes.set_ylim(len(order) - 0.4, -0.6)
        axes.set_yticks(rows, [visible(characters[i]) for i in order] if axes is panels[0] else [])
        axes.tick_params(axis="y", labelfontfamily=CHARACTER_FONT, labelsize=9, length=0)
        axes.tick_params(axis="x", labelsize=8)
        before = np.where(p > 0, p, before)
    figure.supxlabel("probability", fontsize=9)
    figure.suptitle(title, fontsize=10)
    figure.alt = f"{title_first(title, 'Next character')}, after each step. {'; '.join(told)}."
    return figure


INPUT, TARGET = "#DCEEFA", "#FCEBCB"


def plot_window(pieces: Sequence[str]) -> Picture:
    """A window of T + 1 tokens: its inputs in one row, its targets, shifted by one, below them."""
    T = len(pieces) - 1
    widest = max(len(visible(piece)) for piece in pieces)
    figure, axes = one_panel(0.7 + T * max(0.33, 0.11 * widest), 1.1)
    for y, name, row, colour in ((1, "x", pieces[:-1], INPUT), (0, "y", pieces[1:], TARGET)):
        axes.bar(range(T), 0.9, width=0.92, bottom=y, color=colour, edgecolor="#BBBBBB")
        axes.text(-0.8, y + 0.45, name, ha="right", va="center", fontweight="bold")
        for t, piece in enumerate(row):
            axes.text(t, y + 0.45, visible(piece), fontsize=10, **CHARACTER)
    axes.set(xlim=(-1.6, T - 0.4), ylim=(-0.05, 2))
    axes.set_axis_off()
    examples = (
        f"after “{visible(''.join(pieces[: t + 1]))}” comes “{visible(pieces[t + 1])}”"
        for t in range(T)
    )
    figure.alt = f"A window of {T} inputs and {T} targets: {', '.join(examples)}."
    return figure
