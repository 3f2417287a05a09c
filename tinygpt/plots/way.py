"""One token's way through a model: a row for each station, with its numbers.

All lengths are in inches: the figure is one panel, measured so.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize

from .base import CHARACTER, HEAT, Picture, one_panel, spoken, title_first, visible

if TYPE_CHECKING:
    from ..measure import Way

SIGNED = "PuOr_r"  # blue-violet below zero, orange above
LEFT, WIDTH, RIGHT = 1.35, 6.5, 1.75  # of names, of what is drawn, of numbers
STRIP, TILE, GAP = 0.24, 0.5, 0.08
MOST = 12  # tiles in a row


def plot_way(way: "Way", pieces: Sequence[str], names: Sequence[str], title: str = "") -> Picture:
    """What a token's place holds at each station, from its vector to the next token.

    `pieces` are the tokens up to its own, `names` those of the vocabulary. A strip is a vector, a
    cell for each channel; beside it stand its first numbers and the size of a channel (root mean
    square). Queries, keys, values and scores are those of one head. At the end stand the most
    probable next tokens.
    """
    p = _softmax(way.logits)
    figure, axes = one_panel(LEFT + WIDTH + RIGHT, _height(way) + 0.3)
    y = 0.0
    for name, x in way.stream.items():
        if name == f"+ attention {way.layer}":
            y = _head(axes, y, way, pieces)
        y = _strip(axes, y, name, x)
    best = np.argsort(-p, kind="stable")[:MOST]
    numbers = [(f"{way.logits[i]:.1f}", f"{p[i]:.2f}") for i in best]
    _tiles(axes, y, "next: logit, p", [names[i] for i in best], numbers, p[best])
    axes.set(xlim=(-LEFT, WIDTH + RIGHT), ylim=(_height(way), 0), title=title)
    axes.title.set_fontsize(10)
    axes.set_axis_off()
    figure.alt = _in_words(way, pieces, names, p, title)
    return figure


def _height(way: "Way") -> float:
    return (len(way.stream) + 3) * (STRIP + GAP) + 2 * (TILE + GAP)


def _head(axes: Axes, y: float, way: "Way", pieces: Sequence[str]) -> float:
    """Query, key and value of the token, and how its query fits the keys of all up to it."""
    name = f"{way.layer}.{way.head}"  # layer.head, as in the notebooks
    for what in ("query", "key", "value"):
        values = getattr(way, what)
        below = _strip(axes, y, f"{what} {name}", values)
        _inside(axes, y, values)
        y = below
    last = slice(-MOST, None)
    numbers = [(f"{s:.1f}", f"{w:.2f}") for s, w in zip(way.scores, way.weights, strict=True)]
    return _tiles(axes, y, f"score, weight {name}", pieces[last], numbers[last], way.weights[last])


def _strip(axes: Axes, y: float, name: str, x: np.ndarray) -> float:
    """A row of cells, as wide as there is room; gives where the next row begins."""
    place = {"extent": (0, WIDTH, y + STRIP, y), "aspect": "auto", "interpolation": "nearest"}
    limit = np.abs(x).max() or 1.0  # each has a scale of its own
    axes.imshow(x[None], cmap=SIGNED, vmin=-limit, vmax=limit, **place)
    _name(axes, y + STRIP / 2, name)
    first = "  ".join(f"{value:.2f}" for value in x[:2])
    beside = {"va": "center", "fontsize": 7.5, "color": "#333333"}
    axes.text(WIDTH + 0.1, y + STRIP / 2, f"{first} …  size {_size(x):.2f}", **beside)
    return y + STRIP + GAP


def _inside(axes: Axes, y: float, x: np.ndarray) -> None:
    """The numbers of a strip, where its cells are wide enough."""
    width = WIDTH / len(x)
    if width < 0.3:
        return
    strong = np.abs(x) > 0.6 * np.abs(x).max()
    for i, value in enumerate(x):
        looks = {"color": "white" if strong[i] else "black", "fontsize": 7}
        axes.text(
            (i + 0.5) * width, y + STRIP / 2, f"{value:.1f}", ha="center", va="center", **looks
        )


def _tiles(
    axes: Axes,
    y: float,
    name: str,
    pieces: Sequence[str],
    numbers: Sequence[tuple[str, str]],
    shades: np.ndarray,
) -> float:
    """A row of tokens with two numbers below each; the brighter, the larger its shade."""
    width, colours = WIDTH / MOST, colormaps[HEAT](Normalize(0, 1)(np.asarray(shades)))
    for i, (piece, colour, (upper, lower)) in enumerate(zip(pieces, colours, numbers, strict=True)):
        axes.bar((i + 0.5) * width, TILE, 0.94 * width, y, color=colour)
        dark = {"color": "black" if shades[i] > 0.5 else "white"}
        middle = (i + 0.5) * width
        axes.text(middle, y + 0.11, visible(piece), fontsize=9, **CHARACTER, **dark)
        axes.text(middle, y + 0.27, upper, fontsize=7, ha="center", va="center", **dark)
        axes.text(middle, y + 0.41, lower, fontsize=7, ha="center", va="center", **dark)
    _name(axes, y + TILE / 2, name)
    return y + TILE + GAP


def _name(axes: Axes, y: float, name: str) -> None:
    axes.text(-0.08, y, name, ha="right", va="center", fontsize=8.5)


def _size(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(x))))


def _softmax(logits: np.ndarray) -> np.ndarray:
    p = np.exp(logits - logits.max())
    return p / p.sum()


def _in_words(
    way: "Way", pieces: Sequence[str], names: Sequence[str], p: np.ndarray, title: str
) -> str:
    sizes = ", ".join(f"{name} {_size(x):.2f}" for name, x in way.stream.items())
    read = way.weights.argmax()
    return (
        f"{title_first(title, 'The way of a token')}: “{spoken(pieces[-1])}” at place {way.place}. "
        f"Size of its vector: {sizes}. Head {way.layer}.{way.head} reads “{spoken(pieces[read])}” "
        f"at place {read} most, {way.weights[read]:.2f}. Most probable next: "
        f"“{spoken(names[p.argmax()])}”, {p.max():.2f}."
    )
