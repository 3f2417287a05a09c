"""One layer's experts in the course of training, drawn as HTML."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..measure import CLASSES, classes, mutual_information, variation
from ..plots import BLUE, ORANGE, VERMILION
from .routing_chart import alphabet
from .routing_figures import crosstab, parts


def curve(steps: Sequence[int], values: Sequence[float], here: int, title: str, top: float) -> str:
    """A line over the steps from 0 to `top`, with a mark at one of them."""
    width, height = 300, 90
    span = max(1, steps[-1] - steps[0])
    x = [width * (step - steps[0]) / span for step in steps]
    y = [height * (1 - value / max(top, 1e-9)) for value in values]
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    i = steps.index(here)
    anchor = "start" if x[i] < 40 else "end" if x[i] > width - 40 else "middle"
    colour = BLUE if "load" in title else ORANGE
    return (
        f"<svg width='{width + 60}' height='{height + 34}' viewBox='-34 -12 {width + 60} "
        f"{height + 34}' role='img' aria-label='{title}: {values[0]:.2f} at step {steps[0]}, "
        f"{values[i]:.2f} at step {here}, {values[-1]:.2f} at step {steps[-1]}'>"
        f"<path d='M0 0V{height}H{width}' fill='none' stroke='#999'/>"
        f"<text x='-5' y='4' text-anchor='end'>{top:.2f}</text>"
        f"<text x='-5' y='{height + 4}' text-anchor='end'>0</text>"
        f"<text x='0' y='{height + 15}'>step {steps[0]}</text>"
        f"<text x='{width}' y='{height + 15}' text-anchor='end'>{steps[-1]}</text>"
        f"<polyline points='{points}' fill='none' stroke='{colour}' stroke-width='2'/>"
        f"<path d='M{x[i]:.1f} 0V{height}' stroke='#222' stroke-dasharray='2 3'/>"
        f"<circle cx='{x[i]:.1f}' cy='{y[i]:.1f}' r='4.5' fill='#fff' stroke='{VERMILION}' "
        f"stroke-width='2.5'/><text x='{x[i]:.1f}' y='{y[i] - 8:.1f}' text-anchor='{anchor}' "
        f"style='font-weight:bold;fill:#222;paint-order:stroke;stroke:#fff;stroke-width:3px'>"
        f"{values[i]:.2f}</text></svg>"
    )


def history(
    tables: dict[int, Tensor], step: int, pieces: Sequence[str], unit: str = "character"
) -> str:
    """One layer's counts `(V, E)` by step: what each expert takes at `step`, and the way there."""
    steps = list(tables)
    uneven = [variation(table.sum(0)) for table in tables.values()]
    told = [mutual_information(table) for table in tables.values()]
    by_class = torch.zeros(len(CLASSES), tables[step].shape[1])
    by_class.index_add_(0, classes(pieces), tables[step].float())
    load = curve(steps, uneven, step, "load CV", max(uneven))
    information = curve(steps, told, step, "mutual information", max(told))
    rows = "".join(
        f"<tr><td>{s}</td><td>{u:.3f}</td><td>{t:.3f}</td></tr>"
        for s, u, t in zip(steps, uneven, told, strict=True)
    )
    side = parts(
        ("Load: coefficient of variation", load),
        (f"What the expert tells of its {unit} (nats)", information),
        ("Character classes", crosstab(by_class, CLASSES)),
        (f"Who takes most of each {unit}", alphabet(tables[step], pieces)),
    )
    return (
        f"{side}<details><summary>The lines as a table</summary><div tabindex='0'>"
        f"<table class='cross plain'><thead><tr><th>step</th><th>load CV</th>"
        f"<th>mutual information (nats)</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div></details>"
    )
