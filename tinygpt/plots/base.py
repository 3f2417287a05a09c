"""What the figures share: colours, the figure itself, panels, heat maps, signs for spaces.

Colours are those of Okabe and Ito (2008), which stay apart for colour-blind readers.
"""

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, PINK = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
SKY, VERMILION, GREY = "#56B4E9", "#D55E00", "#767676"
HEAT = "cividis"
LINE_STYLES = ("-", "--", "-.", (0, (6, 1, 1, 1, 1, 1)))  # a dotted line is too faint
KINDS = ((BLUE, "-", "o"), (VERMILION, "--", "s"), (GREEN, "-.", "^"))  # told apart without colour
CHARACTER_FONT = "DejaVu Sans Mono"  # comes with matplotlib
CHARACTER = {"ha": "center", "va": "center", "family": CHARACTER_FONT}  # alone on its tile
TALLEST = 5.6  # inches: what JupyterLab shows at once in a window of 1366 by 768
DPI = 100
SPOKEN = {" ": "space", "\n": "line end", "\t": "tab"}


class Picture(Figure):
    """A figure that a notebook shows as it is, without pyplot or a magic command.

    `alt` says what is to be seen, for those who do not see it. It is shown as an `<img>` with this
    text, since no viewer keeps the text of an image/png output; where there are no images, the text
    is what is shown.
    """

    alt = ""

    def save(self, path: str | Path) -> None:
        """Write it as PNG or SVG, whichever the name says, with `alt` as its title."""
        self.savefig(path, dpi=2 * self.dpi, facecolor="white", metadata={"Title": self.alt})

    @property
    def image(self) -> str:
        """The figure as an HTML element that needs no other file; a tall one is made smaller."""
        dpi = min(self.dpi, self.dpi * TALLEST / self.get_figheight())
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=dpi, facecolor="white")
        data = base64.b64encode(buffer.getvalue()).decode()
        return f'<img alt="{html.escape(self.alt)}" src="data:image/png;base64,{data}">'

    def _repr_mimebundle_(self, **kwargs) -> dict[str, str]:
        return {"text/html": self.image, "text/plain": self.alt or repr(self)}


def row_of_panels(
    width: float, height: float, count: int, ratios: Sequence[float] | None = None
) -> tuple[Picture, list[Axes]]:
    """A figure in inches, outside pyplot's global list, so that nothing has to be closed.

    `ratios` are the widths of the panels, None for equal ones.
    """
    with sns.axes_style("ticks"):
        figure = Picture(figsize=(width, height), layout="constrained", dpi=DPI)
        panels = figure.subplots(1, count, squeeze=False, width_ratios=ratios)
    sns.despine(figure)
    return figure, list(panels[0])


def one_panel(width: float, height: float) -> tuple[Picture, Axes]:
    """`row_of_panels` of one."""
    figure, (axes,) = row_of_panels(width, height, 1)
    return figure, axes


def legend_beside(figure: Picture, handles: Sequence[Artist], handlelength: float = 2.0) -> None:
    """A legend to the right of all panels, where it can lie on nothing that is drawn."""
    looks = {"fontsize": 8, "frameon": False, "handlelength": handlelength}
    figure.legend(handles=handles, loc="outside right upper", **looks)


def spread(heights: Sequence[float], gap: float) -> np.ndarray:
    """Heights in ascending order, raised where one is nearer than `gap` to the one below it."""
    steps = gap * np.arange(len(heights))
    return np.maximum.accumulate(heights - steps) + steps


def visible(piece: str) -> str:
    """A character or token as it is labelled in figures: spaces and line ends get signs."""
    return piece.translate(str.maketrans(" \n\t", "␣⏎⇥"))


def spoken(piece: str) -> str:
    """The same in a sentence: spaces and line ends have names."""
    return SPOKEN.get(piece, visible(piece))


def extremes(names: Sequence[str], values: Sequence[float], most: int = 3) -> str:
    """The highest of some values with their names, and the lowest, in words."""
    values = np.asarray(values, dtype=float)
    order = [i for i in np.argsort(-values, kind="stable") if np.isfinite(values[i])]
    if not order:
        return "no values"
    told = [f"{names[i]} {values[i]:.3g}" for i in order]
    if len(told) <= most + 1:
        return ", ".join(told)
    return f"highest {', '.join(told[:most])}; lowest {told[-1]}"


def title_first(title: str, otherwise: str) -> str:
    """How an alternative text begins: with the title, if there is one, on one line."""
    return " ".join(title.split()) or otherwise


def heat(
    axes: Axes,
    table: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    limits: tuple[float, float | None] = (0.0, None),
    annotate: bool = False,
    cbar: bool = True,
) -> None:
    """A heat map with a name for each row and column; NaN is grey, or what `axes` has behind.

    `limits` are the values of the first and the last colour, None for the largest in the table.
    """
    table = np.asarray(table, dtype=float)
    sns.heatmap(
        table,
        ax=axes,
        cmap=HEAT,
        vmin=limits[0],
        vmax=limits[1],
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
    side = 72 * 0.8 * axes.figure.get_figheight() / len(rows)  # points of a square, or so
    size = min(11 if len(rows) <= 12 else 8, max(4.5, side))
    axes.tick_params(labelfontfamily=CHARACTER_FONT, labelsize=size, length=0)
    axes.tick_params(axis="x", rotation=0)
    axes.tick_params(axis="y", rotation=0)
