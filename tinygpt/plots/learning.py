"""How weights are learned: the path of one of them down its loss."""

from collections.abc import Sequence

from .base import GREY, KINDS, Picture, row_of_panels, title_first

AT = {"textcoords": "offset points", "ha": "center", "fontsize": 8}
Path = Sequence[tuple[float, float]]  # the weight and the loss after each step


def plot_descent(
    weights: Sequence[float],
    losses: Sequence[float],
    paths: dict[str, Path],
    xlabel: str,
    ylabel: str = "loss (nats)",
    title: str = "",
) -> Picture:
    """The loss as a function of one weight, and in a panel each the steps of several descents.

    A dot stands at every step, numbered from the start, 0.
    """
    figure, panels = row_of_panels(9, 3.1, len(paths))
    for axes, (label, path), (colour, _, marker) in zip(panels, paths.items(), KINDS, strict=False):
        axes.plot(weights, losses, color=GREY, linewidth=1)
        axes.plot(*zip(*path, strict=True), marker, linestyle=":", color=colour, markersize=5)
        for step, place in enumerate(path):
            axes.annotate(str(step), place, (0, 6), **AT)
        axes.set(xlabel=xlabel, title=label, xlim=(weights[0], weights[-1]))
        axes.set_ylim(panels[0].get_ylim())
        axes.title.set_fontsize(9)
    panels[0].set_ylabel(ylabel)
    figure.suptitle(title, fontsize=10)
    told = "; ".join(_path_in_words(label, path) for label, path in paths.items())
    figure.alt = f"{title_first(title, 'Descents')}, {ylabel} after each step. {told}."
    return figure


def _path_in_words(label: str, path: Path) -> str:
    return f"{label}: {', '.join(f'{loss:.3g}' for _, loss in path)}"
