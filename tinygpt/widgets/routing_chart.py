"""Which expert takes which character: tiles, bars and tables, drawn as HTML.

Everything here is a function of its arguments; `routing` puts the results on the screen. Layers and
experts are numbered from 0; C classes, E experts, K experts per token, T characters.
"""

import html
import math
import unicodedata
from collections.abc import Sequence

import torch
from torch import Tensor

from ..measure import dead_experts, max_violation, mutual_information, variation
from ..model import Routing
from ..plots import BLUE, EXPERT_COLOURS, GREY, ORANGE, VERMILION, ends_line, tint, visible
from .playground_chart import card

CLASSES = ("vowels", "consonants", "capitals", "space", "newline", "punctuation", "digits")
_HATCH = "repeating-linear-gradient(135deg,#bbb 0 1px,#fff 1px 5px)"
_PALE_HATCH = _HATCH.replace("#bbb", "#ddd")
_STRIPES = "repeating-linear-gradient(45deg,#0000 0 4px,#fffa 4px 6px)"
_COLOURS = "".join(
    f".tg .e{i} {{ --c:{','.join(str(int(c[j : j + 2], 16)) for j in (1, 3, 5))} }}\n"
    for i, c in enumerate(EXPERT_COLOURS)
)


STYLE = f"""<style>
{_COLOURS}
.tg .tiles {{ font-family:var(--jp-code-font-family, monospace); line-height:0; margin:0 0 10px }}
.tg .tiles b {{ display:inline-block; min-width:15px; box-sizing:border-box; margin:0 1px 4px 0;
  font-size:13px; font-weight:normal; line-height:17px; text-align:center; color:#111;
  background-color:rgba(var(--c),var(--a)); border-top:3px solid rgb(var(--c));
  border-bottom:3px solid #0000 }}
.tg .tiles b i {{ display:block; font:10px/11px var(--jp-ui-font-family, sans-serif) }}
.tg .tiles b.none {{ background:{_HATCH}; border-top-color:{GREY} }}
.tg .tiles b.off {{ background:{_PALE_HATCH} }}
.tg .tiles b.off i {{ text-decoration:line-through }}
.tg .sw {{ display:inline-block; width:12px; height:12px; background:rgb(var(--c));
  vertical-align:-1px; margin-right:6px }}
.tg .again {{ background-image:{_STRIPES} !important }}
.tg .side {{ margin:0 0 14px; display:flex; flex-wrap:wrap; gap:14px 36px; align-items:flex-start }}
.tg .side > * {{ min-width:0 }}
.tg .side > div:has(.cards) {{ flex:1 1 620px }}
.tg .side > div:has(.tiles) {{ flex:1 1 420px }}
.tg h4 {{ font:bold 12px/18px var(--jp-ui-font-family, sans-serif); color:#222; margin:0 0 4px }}
.tg .side p {{ margin:5px 0 0; max-width:34em; line-height:17px; color:#444 }}
.tg .loads {{ width:290px }}
.tg .loads.many {{ width:100%; columns:280px }}
.tg .loads .row {{ padding-left:82px; break-inside:avoid; border:0 }}
.tg .loads .row span.sw {{ position:static }}
.tg .loads .row > span.n {{ left:0; right:auto; font-size:12px; color:#222 }}
.tg .loads .row div {{ position:relative; height:18px; width:calc(100% - 44px) }}
.tg .loads .row div i {{ background-color:rgb(var(--c)); width:calc(100% * var(--x)) }}
.tg .loads .row div em {{ left:calc(100% * var(--x) - 1px); width:0; background:none;
  border-left:2px dashed #222 }}
.tg table.cross th, .tg table.cross td {{ padding:1px 9px; border:1px solid #fff; height:18px }}
.tg table.cross thead th {{ height:auto; font-weight:normal; padding-bottom:2px;
  color:#222; text-align:right }}
.tg table.cross th[scope=row] {{ text-align:left; padding-left:0 }}
.tg table.cross td {{ color:#111; background:rgba(var(--c),var(--a)) }}
.tg table.cross.plain td, .tg table.cross.plain th {{ border:0; border-top:1px solid #eee }}
.tg table.cross.plain td {{ background:none }}
.tg table.cross.plain td.t {{ white-space:normal }}
.tg table.cross.plain tr.here {{ background:#e8f2fa; font-weight:bold }}
.tg table.cross.plain tr.here th {{ font-weight:bold }}
.tg .side:last-child {{ margin:0 }}
.tg details summary {{ cursor:pointer; color:#444 }}
.tg details > div {{ max-height:260px; overflow:auto }}
.tg svg {{ display:block; overflow:visible }}
.tg svg text {{ font:11px var(--jp-ui-font-family, sans-serif); fill:#444 }}
</style>"""


def classes(text: str) -> Tensor:
    """The class of each character, an index in `CLASSES`, `(T,)`."""
    return torch.tensor([CLASSES.index(_class(c)) for c in text], dtype=torch.long)


def _class(character: str) -> str:
    base = unicodedata.normalize("NFD", character)[0]
    if character.isspace():
        return "newline" if character == "\n" else "space"
    if character.isalpha():
        small = "vowels" if base in "aeiou" else "consonants"
        return "capitals" if character.isupper() else small
    return "digits" if character.isdigit() else "punctuation"


def tiles(text: str, experts: Tensor, weights: Tensor, n_experts: int, off: int = -1) -> str:
    """A tile per character, in lines as the text: experts and weights `(T, K)`, best first.

    An expert from `n_experts` on is none; the one that is `off` counts as zero.
    """
    rows = zip(text, experts.tolist(), weights.tolist(), strict=True)
    found = (
        _tile(i, c, chosen, w, n_experts, off) + "<br>" * ends_line(text, i)
        for i, (c, chosen, w) in enumerate(rows)
    )
    return (
        f"<div class='tiles' role='img' aria-label='The text, each character with the number of "
        f"its expert; the table below has the same in words'>{''.join(found)}</div>"
    )


def _tile(
    i: int, character: str, chosen: list[int], weights: list[float], n_experts: int, off: int
) -> str:
    used = [(e, w) for e, w in zip(chosen, weights, strict=True) if e < n_experts]
    words = ", ".join(f"expert {e}: {w:.2f}" for e, w in used) or "no expert"
    title = f"title='{i + 1} {_shown(character)} {words}'"
    if not used:
        return f"<b class='none' {title}>{_shown(character)}<i>–</i></b>"
    (first, weight), *others = used
    style = f"--a:{tint(min(1.0, weight)):.2f}"
    if others and others[0][0] != off:
        style += f";border-bottom-color:{_colour(others[0][0])}"
    kind = f"{_kind(first)}{' off' * (first == off)}"
    return f"<b class='{kind}' style='{style}' {title}>{_shown(character)}<i>{first}</i></b>"


def alphabet(table: Tensor, characters: str) -> str:
    """For each expert the characters of which it takes the most, from counts `(V, E)`."""
    shares = table.double() / table.sum(1, keepdim=True).clamp(min=1)
    order = table.sum(1).argsort(descending=True, stable=True).tolist()
    seen = [i for i in order if table[i].sum() > 0]
    rows = ""
    for e in range(table.shape[1]):
        mine = [i for i in seen if shares[i].argmax() == e]
        cells = "".join(
            _tile(i, characters[i], [e], [float(shares[i, e])], e + 1, -1) for i in mine
        )
        name = f"<th scope='row'>{_swatch(e)}</th>"
        rows += f"<tr>{name}<td class='t'><div class='tiles'>{cells or '–'}</div></td></tr>"
    return f"<table class='cross plain'><tbody>{rows}</tbody></table>"


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
    """A bar per expert: how many nats per character are lost without it."""
    scale = max(0.1, *differences)  # next to nothing is to look so
    rows = [_bar(e, max(0, x) / scale, _signed(x)) for e, x in enumerate(differences)]
    return _bars(rows)


def _bar(expert: int, share: float, label: str, mark: str = "") -> str:
    bar = f"<div><i class='{_kind(expert)}' style='--x:{share:.4f}'></i>{mark}</div>"
    return (
        f"<div class='row'><span class='n'>{_swatch(expert)}</span>{bar}<span>{label}</span></div>"
    )


def _bars(rows: list[str]) -> str:
    return f"<div class='loads{' many' * (len(rows) > 12)}'>{''.join(rows)}</div>"


def layers(routings: Sequence[Routing], names: Sequence[int], labels: Tensor, here: int) -> str:
    """A row per layer with experts; `labels` `(T,)` are the character classes."""
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
        f"<th>{html.escape(name)}<br><small>{int(n):,}</small></th>"
        for name, n in zip(columns, counts.sum(1), strict=True)
    )
    rows = ""
    for e, column in enumerate(shares.T.tolist()):
        cells = "".join(f"<td style='--a:{tint(p):.2f}'>{100 * p:.0f}</td>" for p in column)
        rows += f"<tr class='{_kind(e)}'><th scope='row'>{_swatch(e)}</th>{cells}</tr>"
    return (
        f"<table class='cross'><thead><tr><th>% of</th>{head}</tr></thead>"
        f"<tbody>{rows}</tbody></table>"
    )


def information(table: Tensor, name: str) -> str:
    """What the expert tells of the class, in words; counts `(C, E)`."""
    kept = table[table.sum(1) > 0]
    kept = kept[:, kept.sum(0) > 0].double()
    told, n = mutual_information(kept), float(kept.sum())
    entropy = float(torch.special.entr(kept.sum(1) / n).sum())
    chance = (kept.shape[0] - 1) * (kept.shape[1] - 1) / (2 * n)  # Miller and Madow 1955
    share = f" of the {entropy:.2f} there are ({100 * told / entropy:.0f} %)" if entropy > 0 else ""
    return (
        f"<p>The expert tells <b>{told:.2f} nats</b> about the {name}{share}: their mutual "
        f"information. Chance alone gives about {chance:.2f} with so few characters.</p>"
    )


def facts(
    text: str,
    experts: Tensor,
    weights: Tensor,
    n_experts: int,
    styles: Sequence[str] | None = None,
) -> str:
    """The tiles in words: a folded table with a row per character."""
    rows, kinds = "", classes(text).tolist()
    for i, (c, chosen, w) in enumerate(zip(text, experts.tolist(), weights.tolist(), strict=True)):
        used = [f"{e} ({x:.2f})" for e, x in zip(chosen, w, strict=True) if e < n_experts]
        cells = [i + 1, _shown(c), CLASSES[kinds[i]], used[0] if used else "none"]
        cells += [", ".join(used[1:])] if experts.shape[1] > 1 else []
        cells += [html.escape(styles[i])] if styles else []
        rows += "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
    heads = ["position", "character", "class", "expert (weight)"]
    heads += ["others"] if experts.shape[1] > 1 else []
    heads += ["style"] if styles else []
    head = "".join(f"<th>{name}</th>" for name in heads)
    return (
        f"<details><summary>The text as a table</summary><div><table class='cross plain'>"
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></details>"
    )


def comparison(prompt: str, whole: str, without: str | None, names: Sequence[str]) -> str:
    """One or two continuations; a frame marks where the second parts from the first."""
    tail = prompt if len(prompt) <= 60 else "…" + prompt[-60:].lstrip()
    found = card(names[0], "", tail, whole, {}, "yours")
    if without is not None:
        same = next((i for i, c in enumerate(without) if c != whole[i]), len(without))
        note = f"parts after {same} characters" if same < len(without) else "the same text"
        found += card(names[1], note, tail, without, {same: "parts"})
    return f"<div class='cards'>{found}</div>"


def damage(before: Tensor, after: Tensor, mine: Tensor) -> str:
    """What is lost, in words: nats per prediction `(T - 1,)` with all experts and without one.

    `mine` marks the predictions that were made at characters of this expert.
    """
    lost = (after - before).double()
    parts = [f"{len(lost)} predictions: {before.mean():.3f} nats per character with all experts, "]
    parts.append(f"{after.mean():.3f} without, <b>{_signed(lost.mean())}</b>.")
    for name, which in (("at its own characters", mine), ("at the others", ~mine)):
        if which.any():
            parts.append(f" {_signed(lost[which].mean())} {name} ({int(which.sum())}).")
    return "".join(parts)


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


def history(tables: dict[int, Tensor], step: int, characters: str) -> str:
    """One layer's counts `(V, E)` by step: what each expert takes at `step`, and the way there."""
    steps = list(tables)
    uneven = [variation(table.sum(0)) for table in tables.values()]
    told = [mutual_information(table) for table in tables.values()]
    n_experts = tables[step].shape[1]
    by_class = torch.zeros(len(CLASSES), n_experts).index_add(
        0, classes(characters), tables[step].float()
    )
    lines = _part(
        "Load: coefficient of variation", curve(steps, uneven, step, "load CV", max(uneven))
    )
    title = "What the expert tells of its character (nats)"
    lines += _part(title, curve(steps, told, step, "mutual information", max(told)))
    rows = "".join(
        f"<tr><td>{s}</td><td>{u:.3f}</td><td>{t:.3f}</td></tr>"
        for s, u, t in zip(steps, uneven, told, strict=True)
    )
    return (
        f"<div class='side'>{lines}{_part('Character classes', crosstab(by_class, CLASSES))}"
        f"{_part('Who takes most of each character', alphabet(tables[step], characters))}</div>"
        f"<details><summary>The lines as a table</summary><div><table class='cross plain'>"
        f"<thead><tr><th>step</th><th>load CV</th><th>mutual information (nats)</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div></details>"
    )


def parts(*titled: tuple[str, str]) -> str:
    """Titled parts side by side, as many as there is room for."""
    return f"<div class='side'>{''.join(_part(*each) for each in titled)}</div>"


def _part(title: str, content: str) -> str:
    return f"<div><h4>{title}</h4>{content}</div>"


def _signed(x: float) -> str:
    """Three digits with their sign; a rounded zero has none."""
    return f"{x:+.3f}".replace("-", "−") if round(float(x), 3) else "0.000"


def _shown(character: str) -> str:
    return html.escape(visible(character))


def _colour(expert: int) -> str:
    return EXPERT_COLOURS[expert % len(EXPERT_COLOURS)]


def _kind(expert: int) -> str:
    """Classes of an expert's colour; striped where the colours begin again."""
    n = len(EXPERT_COLOURS)
    return f"e{expert % n}{' again' * (expert >= n)}"


def _swatch(expert: int) -> str:
    return f"<span class='sw {_kind(expert)}'></span>expert {expert}"
