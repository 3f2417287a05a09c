"""The router lab's pictures: loads and lines over the updates, figures, a text, drawn as HTML.

Everything here is a function of its arguments; `router_live` puts the results on the screen.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ..plots import BLUE, GREY, ORANGE, tint
from . import routing_chart
from .frame import shown
from .router_training import BATCH, Look, Rules, T

SPAN = 600  # updates that are drawn, the last ones
APART = 84  # pixels between the words of two changes

STYLE = (
    routing_chart.STYLE
    + """<style>
.tg-lab { container-type:inline-size }
.tg-lab > .tg-bench { display:grid !important; gap:0 14px; align-items:start;
  grid-template-columns:264px minmax(0,1fr) }
@container (max-width:900px) { .tg-lab > .tg-bench { grid-template-columns:minmax(0,1fr) } }
.tg-bench > * { width:auto !important; min-width:0; overflow:visible }
.tg-knobs { display:grid !important; gap:1px 0; grid-template-columns:minmax(0,1fr) }
@container (max-width:900px) { .tg-knobs {
  grid-template-columns:repeat(auto-fit,minmax(230px,1fr)) } }
.tg-knobs > * { width:auto !important; min-width:0 }
.tg-knobs .widget-toggle-button { padding:0 7px }
.tg-status { font:12px/18px var(--jp-ui-font-family, sans-serif); color:var(--jp-ui-font-color1);
  min-height:36px }
.tg .facts { display:flex; flex-wrap:wrap; gap:4px 16px; justify-content:space-between;
  margin:0 0 8px }
.tg .facts b { display:block; font-size:19px; line-height:22px; font-weight:600 }
.tg .facts span { display:block; line-height:15px; color:#444 }
.tg .facts small { display:block; line-height:14px }
.tg .charts { display:grid; gap:4px 16px; grid-template-columns:minmax(0,1.85fr) minmax(0,1fr) }
@container (max-width:600px) { .tg .charts { grid-template-columns:minmax(0,1fr) } }
.tg .charts svg { width:100%; max-width:700px; height:auto }
.tg .charts > div svg { max-width:340px }
.tg .charts svg text.now { font-weight:bold; fill:#222; paint-order:stroke; stroke:#fff;
  stroke-width:3px }
.tg .charts path[class] { fill:rgb(var(--c)); stroke:#fff; stroke-width:.7 }
.tg .charts path.again { fill-opacity:.5 }
.tg .said { margin:6px 0 0; min-height:60px }
.tg .flow { font-family:var(--jp-code-font-family, monospace); line-height:0; margin:4px 0 0 }
.tg .flow b { display:inline-block; min-width:14px; box-sizing:border-box; margin:0 1px 3px 0;
  font-size:12px; font-weight:normal; line-height:15px; text-align:center; color:#111;
  background-color:rgba(var(--c),var(--a)); border-top:3px solid rgb(var(--c)) }
.tg .flow b i { display:block; font:9px/10px var(--jp-ui-font-family, sans-serif) }
</style>"""
)


def facts(look: Look, unit: str) -> str:
    """The figures of today, each with its name and its range."""
    E = len(look.load)
    parts = (
        (f"{look.update:,}", "updates", f"of {BATCH * T} {unit}s"),
        (f"{look.cv:.2f}", "variation of mean load", f"0: even, {look.largest_cv:.2f}: collapsed"),
        (f"{len(look.dead)} of {E}", "experts dead", "under 1 % of even"),
        (f"{look.weight:.2f}", "mean weight", "on an output"),
        (f"{look.entropy:.2f}", "router’s entropy", f"0: sure, {math.log(E):.2f}: undecided"),
        (f"{look.loss:.2f}", "loss", "on the fixed text"),
    )
    cells = (f"<div><b>{v}</b><span>{n}</span><small>{note}</small></div>" for v, n, note in parts)
    return f"<div class='facts'>{''.join(cells)}</div>"


@dataclass(frozen=True)
class Area:
    """Where a plot has its points: updates from `first` on, values from `low` to `high`."""

    width: int
    height: int
    first: int
    low: float = 0.0
    high: float = 1.0

    def x(self, update: int) -> float:
        return self.width * (update - self.first) / SPAN

    def y(self, value: float) -> float:
        return self.height * (self.high - value) / (self.high - self.low)

    def points(self, updates: Sequence[int], values: Sequence[float]) -> str:
        """A line through these."""
        pairs = zip(updates, values, strict=True)
        return " ".join(f"{self.x(update):.1f},{self.y(value):.1f}" for update, value in pairs)

    def svg(self, title: str, now: str, top: str, bottom: str, content: str) -> str:
        """The plot with its axes; `now` says in words what its end shows."""
        width, height = self.width, self.height
        return (
            f"<svg viewBox='-34 -30 {width + 60} {height + 48}' role='img' aria-label='{title}: "
            f"{now}'><text class='now' x='-32' y='-18'>{title}</text>{content}"
            f"<path d='M0 0V{height}H{width}' fill='none' stroke='#999'/>"
            f"<text x='-4' y='8' text-anchor='end'>{top}</text>"
            f"<text x='-4' y='{height}' text-anchor='end'>{bottom}</text>"
            f"<text x='0' y='{height + 13}'>{self.first:,}</text>"
            f"<text x='{width}' y='{height + 13}' text-anchor='end'>{self.first + SPAN:,} updates"
            f"</text></svg>"
        )


def charts(
    looks: Sequence[Look], changes: Sequence[tuple[int, Rules]], before: Sequence[Look]
) -> str:
    """Load, mean weight and loss over the last updates; `before` is the run before, in grey."""
    first = max(0, looks[-1].update - SPAN)
    looks = [look for look in looks if look.update >= first]
    before = [look for look in before if first <= look.update <= first + SPAN]
    lines = line("Mean weight", "weight", looks, before, Area(236, 62, first), ORANGE)
    losses = [look.loss for look in [*looks, *before]]
    low, high = math.floor(4 * min(losses) - 0.5) / 4, math.ceil(4 * max(losses)) / 4
    lines += line("Loss (nats)", "loss", looks, before, Area(236, 62, first, low, high), BLUE)
    return f"<div class='charts'>{stack(looks, switches(changes))}<div>{lines}</div></div>"


def stack(looks: Sequence[Look], marks: Sequence[tuple[int, str]]) -> str:
    """A band for each expert, as high as its share of the fixed text; expert 0 is the lowest."""
    area = Area(520, 176, max(0, looks[-1].update - SPAN))
    updates, load = [look.update for look in looks], looks[-1].load
    tops = torch.stack([look.load.cumsum(0) for look in looks])  # (n, E)
    bands = ""
    for e in reversed(range(len(load))):  # each covers the lower part of the one before
        points = area.points(updates, tops[:, e].tolist())
        shape = f"d='M{area.x(updates[0]):.1f} {area.height}L{points}V{area.height}Z'"
        bands += f"<path {shape} fill='#fff'/><path {shape} class='{routing_chart.kind(e)}'/>"
    now = ", ".join(f"expert {e} {100 * share:.0f} %" for e, share in enumerate(load.tolist()))
    content = bands + names(area, load, area.x(updates[-1])) + signs(area, marks)
    return area.svg("Share of the fixed text by expert", now, "100 %", "0 %", content)


def names(area: Area, load: Tensor, x: float) -> str:
    """The numbers of the experts whose bands are high enough, right of their ends."""
    middles = load.cumsum(0) - load / 2
    return "".join(
        f"<text class='now' x='{x + 4:.1f}' y='{area.y(middle) + 4:.1f}'>{e}</text>"
        for e, (share, middle) in enumerate(zip(load.tolist(), middles.tolist(), strict=True))
        if share > 0.06
    )


def signs(area: Area, marks: Sequence[tuple[int, str]]) -> str:
    """Dashed lines where the rules changed; words for the last ones, as far as there is room."""
    found, free = "", math.inf
    for update, words in reversed(marks):
        x = area.x(update)
        if x < 0:
            break
        found += f"<path d='M{x:.1f} -4V{area.height}' stroke='#222' stroke-dasharray='3 3'/>"
        if x <= free:
            anchor = "end" if x > area.width - APART else "start" if x < APART else "middle"
            found += f"<text class='now' x='{x:.1f}' y='-6' text-anchor='{anchor}'>{words}</text>"
            free = x - 2 * APART
    return found


def switches(changes: Sequence[tuple[int, Rules]]) -> list[tuple[int, str]]:
    """What changed, and after which update; what changed there several times, once."""
    held = list(dict(changes).items())  # the last rules of each update
    found = ((update, changed(old, new)) for (_, old), (update, new) in pairwise(held))
    return [(update, words) for update, words in found if words]


def changed(old: Rules, new: Rules) -> str:
    """In which settings two rules differ, in words."""
    methods = [
        rules.balance if rules.balance == "none" else f"{rules.balance} {rules.strength:g}"
        for rules in (old, new)
    ]
    each = (
        (
            f"balance: {methods[1]}" if new.balance == "none" else methods[1],
            methods[0] != methods[1],
        ),
        (f"noise: {new.noise}", old.noise != new.noise),
        (f"z-loss {new.z_weight:g}", old.z_weight != new.z_weight),
        (f"router × {new.router_lr:g}", old.router_lr != new.router_lr),
        (f"k = {new.top_k}", old.top_k != new.top_k),
    )
    return ", ".join(words for words, differs in each if differs)


def line(
    title: str, figure: str, looks: Sequence[Look], before: Sequence[Look], area: Area, colour: str
) -> str:
    """One figure of the looks over the updates, and of the run before."""
    mine, old = (
        area.points([look.update for look in some], [getattr(look, figure) for look in some])
        for some in (looks, before)
    )
    now = getattr(looks[-1], figure)
    x, y = area.x(looks[-1].update), area.y(now)
    content = (
        f"<polyline points='{old}' fill='none' stroke='{GREY}' stroke-width='1.3' "
        f"stroke-dasharray='4 3'/>"
        f"<polyline points='{mine}' fill='none' stroke='{colour}' stroke-width='2'/>"
        f"<circle cx='{x:.1f}' cy='{y:.1f}' r='3' fill='{colour}'/>"
        f"<text class='now' x='{x + 6:.1f}' y='{y + 4:.1f}'>{now:.2f}</text>"
    )
    ends = f"{area.high:g}", f"{area.low:g}"
    return area.svg(title, f"{now:.2f} after update {looks[-1].update}", *ends, content)


def tiles(pieces: Sequence[str], experts: Tensor, weights: Tensor, unit: str) -> str:
    """A tile per token with the number and colour of its expert, both `(N,)`, in running lines."""
    found = "".join(
        f"<b class='{routing_chart.kind(e)}' style='--a:{tint(min(1.0, w)):.2f}'>{shown(piece)}"
        f"<i>{e}</i></b>"
        for piece, e, w in zip(pieces, experts.tolist(), weights.tolist(), strict=True)
    )
    return (
        f"<div class='flow' role='img' aria-label='The beginning of the fixed text, each {unit} "
        f"with the number and colour of its expert'>{found}</div>"
    )
