"""How a distribution changes from step to step, and texts side by side: drawn as HTML.

Everything here is a function of its arguments; `playground` puts the results on the screen.
"""

import html
from collections.abc import Collection, Sequence

import numpy as np

from ..plots import GREY, ORANGE, PINK, SKY, VERMILION
from ..text import Tokenizer
from .frame import card, compared, label, shown, tail
from .stages import Stage, fate, rows

HATCH = "repeating-linear-gradient(135deg,#999 0 1px,#fff 1px 4px)"

STYLE = f"""<style>
.tg-panel {{ display:grid !important; gap:2px 10px; align-items:center;
  grid-template-columns:repeat(auto-fit,minmax(240px,1fr)) }}
.tg-panel > * {{ width:auto !important; min-width:0 }}
.tg-panel .tg-wide {{ grid-column:span 2 }}
@container (max-width:520px) {{ .tg-panel .tg-wide {{ grid-column:auto }} }}
.tg-panel > * {{ margin:0 2px }}
.tg-panel textarea {{ height:42px }}
.tg-play > .widget-html {{ flex:1 1 610px }}
.tg-play > .widget-html:last-child {{ flex:1 1 400px }}
.tg-play p {{ margin:0 0 4px }}
.tg-panel .widget-readout {{ min-width:44px; width:44px }}
.tg code {{ font:13px/18px var(--jp-code-font-family, monospace); color:#222; background:#f3f3f3;
  padding:1px 4px; border-radius:3px; white-space:pre-wrap }}
.tg .chart {{ display:flex; min-width:0 }}
.tg .chart .row {{ height:16px }}
.tg .chart .row i {{ height:10px }}
.tg .chart .row span {{ line-height:15px }}
.tg details summary {{ cursor:pointer; color:#444 }}
.tg .column {{ position:relative; flex:1 1 0; min-width:0; max-width:230px; padding-right:10px }}
.tg .symbols {{ flex:0 0 var(--width); padding:0 }}
.tg .head {{ height:62px; font-size:11px; line-height:15px; white-space:nowrap; overflow:hidden }}
.tg .head > * {{ display:block; overflow:hidden; text-overflow:ellipsis }}
@container (max-width:780px) {{ .tg .head, .tg .head small {{ font-size:10px }} }}
.tg .first .row i {{ background:{GREY} }}
.tg .row.cut i {{ background:{HATCH}; border:1px solid #aaa; box-sizing:border-box }}
.tg .row em {{ position:absolute; left:calc((100% - 40px) * var(--x) - 1px); top:-1px; width:2px;
  height:16px; background:{PINK} }}
.tg .row s {{ position:absolute; left:calc((100% - 40px) * var(--x) - 4px); top:3px; width:9px;
  height:9px; background:{ORANGE}; border:1px solid #fff; transform:rotate(45deg);
  box-sizing:border-box }}
.tg .row q {{ position:absolute; left:calc((100% - 40px) * var(--x)); top:8px; height:1px;
  width:calc((100% - 40px) * var(--w)); background:#222; quotes:none }}
.tg .drawn .row i {{ background:{SKY} }}
.tg .row.last::after {{ content:""; position:absolute; left:0; right:0; bottom:-1px; height:2px;
  background:{VERMILION}; z-index:1 }}
.tg .column u {{ position:absolute; left:calc((100% - 50px) * var(--x) - 1px); top:62px;
  width:0; height:calc(16px * var(--rows)); border-left:2px dashed {VERMILION} }}
.tg .symbols .row {{ font:12px/15px var(--jp-code-font-family, monospace); text-align:center;
  white-space:nowrap; overflow:hidden; text-overflow:ellipsis }}
.tg .symbols .row.written {{ background:{SKY}; font-weight:bold; border-radius:3px }}
.tg table .c {{ font:13px/17px var(--jp-code-font-family, monospace); text-align:center;
  padding:0 4px }}
.tg table .no {{ color:#767676 }}
.tg .key {{ margin:4px 0 0; line-height:15px; color:#595959; font-size:11px }}
.tg .key span {{ display:inline-block; margin-right:16px; white-space:nowrap }}
.tg .key i {{ display:inline-block; width:18px; height:9px; margin-right:5px }}
.tg mark.here {{ background:{SKY} }}
.tg mark.pin {{ background:none; box-shadow:inset 0 -3px {PINK} }}
.tg mark.here.pin {{ background:{SKY} }}
</style>"""


def bars(
    found: Sequence[Stage],
    symbols: Sequence[str],
    written: int | None = None,
    counts: np.ndarray | None = None,
    unit: str = "character",
) -> str:
    """A column of bars per stage, one row per token; `counts` are marked on the last one."""
    shown_rows = rows(found[0].p, written)
    scale = max(stage.p.max() for stage in found)
    if counts is not None:
        scale = max(scale, (counts / counts.sum()).max())
    columns = _labels(symbols, shown_rows, written)
    for before, stage in zip([found[0], *found], found, strict=False):
        columns += _column(before, stage, shown_rows, scale)
    if counts is not None:
        columns += _drawn(found[-1].p, counts, shown_rows, scale)
    return (
        f"<div class='chart' role='img' aria-label='The distribution of the next {unit} after each "
        f"step; the table below has the same in numbers'>{columns}</div>"
    )


def _labels(symbols: Sequence[str], shown_rows: np.ndarray, written: int | None) -> str:
    """The column of the tokens themselves."""
    cells = "".join(
        f"<div class='row{' written' if i == written else ''}'>{shown(symbols[i])}</div>"
        for i in shown_rows
    )
    lengths = [len(label(symbols[i])) for i in shown_rows]
    if others := len(symbols) - len(shown_rows):
        cells += f"<div class='row'>+{others}</div>"
        lengths.append(len(f"+{others}"))
    width = max(34, 10 + 8 * min(12, max(lengths)))
    style = f"style='--width:{width}px'"
    return f"<div class='column symbols' {style}><div class='head'></div>{cells}</div>"


def _column(before: Stage, stage: Stage, shown_rows: np.ndarray, scale: float) -> str:
    """One stage; `before` is what its step was given (itself for the first)."""
    cut = before.kept & ~stage.kept
    reached = _cumulative(before.p) if stage.kind == "top-p" else before.p
    cells = []
    for i, is_last in zip(shown_rows, _last_kept(stage.kept[shown_rows], cut), strict=True):
        inside = ""
        if cut[i]:
            inside = f"<i style='--x:{before.p[i] / scale:.4f}'></i><span>×</span>"
        elif stage.kept[i]:
            inside = _bar(stage.p[i], scale)
        if stage.kind == "top-p" and before.kept[i]:
            inside += f"<em style='--x:{reached[i]:.4f}'></em>"
        classes = "row" + " cut" * bool(cut[i]) + " last" * bool(is_last)
        cells.append(f"<div class='{classes}'>{inside}</div>")
    others = _others(len(stage.p), shown_rows)
    if len(others):
        gone = int(cut[others].sum())
        note = f"<small>{gone} cut</small>" if gone else ""
        rest = stage.p[others].sum() if stage.kept[others].any() else None
        cells.append(f"<div class='row'>{note}<span>{_percent(rest)}</span></div>")
    content = "".join(cells) + _threshold(stage, scale, len(shown_rows))
    notes = f"{stage.entropy:.2f} nats", f"{np.exp(stage.entropy):.1f} choices"
    return _titled(*_heading(stage), notes, content, "first" * (before is stage))


def _heading(stage: Stage) -> tuple[str, str]:
    """Two lines: the name of a step, and its value if it has one."""
    if stage.step is None:
        return "model", "itself"
    return stage.step.name, "" if stage.step.value is None else f"{stage.step.value:g}"


def _threshold(stage: Stage, scale: float, n_rows: int) -> str:
    """A line where top-p or min-p cuts."""
    if stage.kind == "top-p":
        x = stage.step.value  # of the running total
    elif stage.kind == "min-p":
        x = stage.step.value * stage.p.max() / scale
    else:
        return ""
    return f"<u style='--x:{x:.4f};--rows:{n_rows}'></u>"


def _drawn(p: np.ndarray, counts: np.ndarray, shown_rows: np.ndarray, scale: float) -> str:
    """What is drawn from, the shares that came up, and where 19 of 20 shares are expected."""
    total = counts.sum()
    spread = 2 * np.sqrt(p * (1 - p) / total)
    low, high = np.maximum(p - spread, 0) / scale, np.minimum((p + spread) / scale, 1)
    cells = ""
    for i in shown_rows:
        inside = ""
        if p[i] > 0:
            inside = _bar(p[i], scale)
            inside += f"<q style='--x:{low[i]:.4f};--w:{high[i] - low[i]:.4f}'></q>"
        if p[i] > 0 or counts[i]:
            inside += f"<s style='--x:{counts[i] / total / scale:.4f}'></s>"
        cells += f"<div class='row'>{inside}</div>"
    return _titled(str(total), "draws", ("with this seed",), cells, "drawn")


def _titled(first: str, second: str, notes: Sequence[str], content: str, kind: str) -> str:
    """A column under two lines of title and some notes."""
    head = f"<b>{first}</b><b>{second}&nbsp;</b>{''.join(f'<small>{n}</small>' for n in notes)}"
    title = f"{first} {second}".strip()
    head = f"<div class='head' title='{title}'>{head}</div>"
    return f"<div class='column {kind}'>{head}{content}</div>"


def _bar(p: float, scale: float) -> str:
    return f"<i style='--x:{p / scale:.4f}'></i><span>{_percent(p)}</span>"


def _cumulative(p: np.ndarray) -> np.ndarray:
    """Each symbol's probability together with that of all more probable ones."""
    order = np.argsort(-p, kind="stable")
    total = np.empty_like(p)
    total[order] = p[order].cumsum()
    return total


def _others(V: int, shown_rows: np.ndarray) -> np.ndarray:
    """The tokens without a row of their own."""
    left = np.ones(V, dtype=bool)
    left[shown_rows] = False
    return np.flatnonzero(left)


def _last_kept(kept: np.ndarray, cut: np.ndarray) -> np.ndarray:
    """Marks the last kept row, if the cut parts the rows in two."""
    last = np.zeros(len(kept), dtype=bool)
    n = int(kept.sum())
    if cut.any() and n < len(kept) and kept[:n].all():
        last[n - 1] = True
    return last


def table(
    found: Sequence[Stage],
    symbols: Sequence[str],
    written: int | None = None,
    counts: np.ndarray | None = None,
) -> str:
    """The same in numbers: before, after, what was drawn, and what became of each token."""
    first, last = found[0], found[-1]
    shown_rows = rows(first.p, written)
    total = 0 if counts is None else int(counts.sum())
    head = "<th class='c'></th><th>model<br>%</th><th>after<br>%</th>"
    head += f"<th>drawn<br>of {total}</th>" if total else ""
    body = ""
    for i in shown_rows:
        drawn = f"<td>{counts[i]}</td>" if total else ""
        name = fate(found, i)
        if i == written:
            name += ", written" if last.kept[i] else ", put here"
        body += (
            f"<tr><th class='c' scope='row'>{shown(symbols[i])}</th>"
            f"<td>{100 * first.p[i]:.2f}</td><td>{100 * last.p[i]:.2f}</td>{drawn}"
            f"<td class='t{'' if last.kept[i] else ' no'}'>{name}</td></tr>"
        )
    others = _others(len(symbols), shown_rows)
    if len(others):
        drawn = f"<td>{counts[others].sum()}</td>" if total else ""
        kept = int(last.kept[others].sum())
        body += (
            f"<tr><th class='c' scope='row'>+{len(others)}</th>"
            f"<td>{100 * first.p[others].sum():.2f}</td>"
            f"<td>{100 * last.p[others].sum():.2f}</td>{drawn}"
            f"<td class='t'>{kept} kept</td></tr>"
        )
    return (
        f"<table><thead><tr>{head}<th class='t'>what became of it</th></tr></thead>"
        f"<tbody>{body}</tbody></table>"
    )


def key(found: Sequence[Stage], total: int, notes: Sequence[str] = ()) -> str:
    """What the marks mean; only those that are there. Then further notes."""
    kinds = {stage.kind for stage in found}
    items = ["Bars: per cent, on one scale", "choices: exp(nats)"]
    if any(not stage.kept.all() for stage in found):
        items.append(f"<i style='background:{HATCH};border:1px solid #aaa'></i>cut by this step")
    if "top-p" in kinds:
        style = f"width:2px;height:13px;background:{PINK}"
        items.append(f"<i style='{style}'></i>running total, 0 to 100 %")
    if kinds & {"top-p", "min-p"}:
        style = f"width:0;height:13px;border-left:2px dashed {VERMILION}"
        items.append(f"<i style='{style}'></i>threshold")
    if total:
        style = f"width:7px;height:7px;background:{ORANGE};transform:rotate(45deg)"
        items.append(f"<i style='{style}'></i>share of {total} draws")
        style = "height:1px;background:#222;margin-bottom:4px"
        items.append(f"<i style='{style}'></i>where 19 of 20 shares fall")
    return f"<p class='key'>{''.join(f'<span>{item}</span>' for item in [*items, *notes])}</p>"


def _percent(p: float | None) -> str:
    if p is None:
        return ""
    return "&lt;0.1" if 0 < p < 0.0005 else f"{100 * p:.1f}"


def cards(
    tokenizer: Tokenizer,
    prompt: str,
    texts: dict[str, Sequence[int]],
    here: int,
    pins: Collection[int],
) -> str:
    """Texts side by side. The first is the learner's; the others show where they part from it.

    `here` is the place in the first text that is looked at; `pins` are its replaced tokens.
    """
    (name, yours), *others = texts.items()
    prompt = tail(prompt)
    marks = dict.fromkeys(pins, "pin")
    marks[here] = f"here {marks.get(here, '')}"
    found = card(tokenizer, name, prompt, yours, marks, kind="yours")
    found += "".join(compared(tokenizer, name, prompt, text, yours) for name, text in others)
    title = "<b>The same random draws, another strategy.</b> A frame marks where a text parts from "
    title += "the first one" + ("; underlined is what was put there." if pins else ".")
    return f"<p>{title}</p><div class='cards'>{found}</div>"


def context(text: str, length: int = 24) -> str:
    """The end of a text, on one line."""
    end = label(text[-length:]).replace("␣", " ")
    return f"<code>{'…' if len(text) > length else ''}{html.escape(end)}</code>"
