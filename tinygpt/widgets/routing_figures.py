"""What experts do, in figures: bars, tables, sentences and texts, drawn as HTML.

Everything here is a function of its arguments; C classes, E experts, T tokens.
"""

import math
from collections.abc import Sequence

from torch import Tensor

from ..measure import (
    CLASSES,
    dead_experts,
    max_violation,
    mutual_information,
    specialisation,
    variation,
)
from ..model import Routing
from ..plots import tint
from .frame import safe, signed
from .routing_chart import kind, swatch


def loads(load: Tensor) -> str:
    """A bar per expert with its share of the choices `(E,)`, and where an even one would end."""
    even = 1 / len(load)
    scale = max(1.08 * float(load.max()), 1.3 * even)
    rows = [
        _bar(e, share / scale, f"{100 * share:.1f} %", f"<em style='--x:{even / scale:.4f}'></em>")
        for e, share in enumerate(load.tolist())
    ]
    return _bars(rows)


def worth(differences: Sequence[float]) -> str:
    """A bar per expert: how many nats per token are lost without it."""
    scale = max(0.1, *differences)  # next to nothing is to look so
    rows = [_bar(e, max(0, x) / scale, signed(x)) for e, x in enumerate(differences)]
    return _bars(rows)


def _bar(expert: int, share: float, label: str, mark: str = "") -> str:
    bar = f"<div><i class='{kind(expert)}' style='--x:{share:.4f}'></i>{mark}</div>"
    return (
        f"<div class='row'><span class='n'>{swatch(expert)}</span>{bar}<span>{label}</span></div>"
    )


def _bars(rows: list[str]) -> str:
    return f"<div class='loads{' many' * (len(rows) > 12)}'>{''.join(rows)}</div>"


def layers(routings: Sequence[Routing], names: Sequence[int], labels: Tensor, here: int) -> str:
    """A row per layer with experts; `labels` `(T,)` are the classes of the tokens."""
    heads = "load CV", "max violation", "entropy", "of ln E", "tells of class", "unused"
    rows = ""
    for place, (routing, name) in enumerate(zip(routings, names, strict=True)):
        load, entropy = routing.load(), float(routing.entropy())
        told = mutual_information(routing.table(labels[None], len(CLASSES)))
        dead = ", ".join(map(str, dead_experts(load))) or "none"
        share = entropy / math.log(len(load)) if len(load) > 1 else math.nan
        cells = f"{variation(load):.2f}", f"{max_violation(load):.2f}", f"{entropy:.2f} nats"
        cells += f"{100 * share:.0f} %", f"{told:.2f} nats", dead
        cells = "".join(f"<td>{cell}</td>" for cell in cells)
        mark = " class='here'" if place == here else ""
        rows += f"<tr{mark}><th scope='row'>layer {name}</th>{cells}</tr>"
    head = "".join(f"<th>{name}</th>" for name in heads)
    return (
        f"<table class='cross plain'><thead><tr><th></th>{head}</tr></thead>"
        f"<tbody>{rows}</tbody></table>"
    )


def crosstab(table: Tensor, names: Sequence[str]) -> str:
    """Where each class went, in per cent of it, from counts `(C, E)`; empty ones are left out."""
    kept = [i for i in range(len(names)) if table[i].sum() > 0]
    counts, columns = table[kept], [names[i] for i in kept]
    shares = counts.double() / counts.sum(1, keepdim=True)  # (C, E)
    head = "".join(
        f"<th>{safe(name)}<br><small>{int(n):,}</small></th>"
        for name, n in zip(columns, counts.sum(1), strict=True)
    )
    rows = ""
    for e, column in enumerate(shares.T.tolist()):
        cells = "".join(f"<td style='--a:{tint(p):.2f}'>{100 * p:.0f}</td>" for p in column)
        rows += f"<tr class='{kind(e)}'><th scope='row'>{swatch(e)}</th>{cells}</tr>"
    return (
        f"<table class='cross'><thead><tr><th>% of</th>{head}</tr></thead>"
        f"<tbody>{rows}</tbody></table>"
    )


def information(table: Tensor, name: str, unit: str = "character") -> str:
    """What the expert tells of the class, in words; counts `(C, E)`."""
    if not table.any():  # no token with a class went to an expert
        return ""
    told = specialisation(table)
    of = f" of the {told.entropy:.2f} there are ({100 * told.share:.0f} %)"
    return (
        f"<p>The expert tells <b>{told.nats:.2f} nats</b> about the {name}"
        f"{of if told.entropy > 0 else ''}: their mutual information. Chance alone gives about "
        f"{told.chance:.2f} with so few {unit}s.</p>"
    )


def damage(before: Tensor, after: Tensor, mine: Tensor, unit: str = "character") -> str:
    """What is lost, in words: nats per prediction `(T - 1,)` with all experts and without one.

    `mine` marks the predictions that were made at tokens of this expert.
    """
    lost = (after - before).double()
    words = f"{len(lost)} predictions: {before.mean():.3f} nats per {unit} with all experts, "
    words += f"{after.mean():.3f} without, <b>{signed(lost.mean())}</b>."
    for name, which in ((f"at its own {unit}s", mine), ("at the others", ~mine)):
        if which.any():
            words += f" {signed(lost[which].mean())} {name} ({int(which.sum())})."
    return words


def parts(*titled: tuple[str, str]) -> str:
    """Titled parts side by side, as many as there is room for."""
    return f"<div class='side'>{''.join(_part(*each) for each in titled)}</div>"


def _part(title: str, content: str) -> str:
    return f"<div><h3>{title}</h3>{content}</div>"
