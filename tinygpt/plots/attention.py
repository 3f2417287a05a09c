"""Attention: maps of some heads, thumbnails of all, and figures per head as dots."""

from collections.abc import Sequence
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import PowerNorm

from .base import GREY, HEAT, KINDS, TALLEST, Picture, heat, one_panel, row_of_panels

if TYPE_CHECKING:
    import pandas as pd


def _without_future(maps: np.ndarray) -> np.ndarray:
    """Maps `(n, T, T)`, NaN after the diagonal where the mask has left nothing."""
    maps = np.asarray(maps, dtype=float)
    future = np.triu(np.ones(maps.shape[1:], dtype=bool), k=1)
    return np.where(future & ((maps == 0) | np.isneginf(maps)), np.nan, maps)


GUTTER, THUMBNAIL = 3, 96  # points between thumbnails, and at most along each side of one


def thumbnail(head: np.ndarray, points: int = THUMBNAIL) -> np.ndarray:
    """A map `(T, T)` in so many points a side at most, each the largest value of its place."""
    edges = np.linspace(0, len(head), min(len(head), points), endpoint=False).astype(int)
    return np.fmax.reduceat(np.fmax.reduceat(head, edges, axis=0), edges, axis=1)


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
    figure, panels = row_of_panels(size * len(maps) + 0.6, size + 0.3, len(maps))
    for axes, values, title in zip(panels, _without_future(maps), titles, strict=True):
        heat(axes, values, pieces, pieces, limits, cbar=axes is panels[-1])
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
    inches = min(1.5, 9 / H, (TALLEST - 0.7) / L)
    figure, axes = one_panel(inches * H + 1.4, inches * L + 0.7)
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


HEAD_FIGURES = {
    "entropy": "entropy (nats)",
    "distance": "distance back",
    "previous_token": "on the token before",
    "same_token": "on the same token before",
    "speaker_line": "on the speaker's name",
}


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


def plot_heads(heads: "pd.DataFrame", even: dict[str, float] | None = None) -> Picture:
    """A dot per head for each figure of `measure_heads`, by arm; `even` of `measure_even`.

    heads has a column `arm`; within an arm, from left to right, stand its layers, first to last.
    """
    shown = [name for name in HEAD_FIGURES if heads[name].notna().any()]
    arms, L = list(dict.fromkeys(heads["arm"])), heads["layer"].max() + 1
    figure, panels = row_of_panels(1.9 * len(shown) + 0.4, 3.0, len(shown))
    for axes, name in zip(panels, shown, strict=True):
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
