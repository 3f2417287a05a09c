"""A distribution on its way through the sampling steps: as arrays, and drawn as HTML.

Everything here is a function of its arguments; `playground` puts the results on the screen.
"""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ..config import DecodingConfig
from ..decoding import process, processors
from ..plots import ORANGE, PINK, VERMILION, visible
from ..text import CharTokenizer

ROWS = 20  # symbols that get a row of their own


@dataclass(frozen=True)
class Stage:
    """The distribution after a step of the chain."""

    name: str
    p: np.ndarray  # (V,)
    kept: np.ndarray  # (V,) False: cut, here or earlier

    @cached_property
    def entropy(self) -> float:
        """In nats; its exponential is the effective number of choices."""
        p = self.p[self.p > 0]
        return float(-(p * np.log(p)).sum()) + 0.0  # never -0


def stages(
    logits: Tensor, tokens: Tensor, config: DecodingConfig, tokenizer: CharTokenizer
) -> list[Stage]:
    """The model's own distribution, from logits `(V,)` after tokens `(T,)`, and each step's."""
    logits, tokens = logits[None].float(), tokens[None]
    found = [_stage("model itself", logits)]
    for step in processors(config, tokenizer):
        logits = process(logits, tokens, tokens.shape[1], [step])
        found.append(_stage(step[0], logits))
    return found


def _stage(name: str, logits: Tensor) -> Stage:
    p = logits[0].double().softmax(dim=-1)
    return Stage(name, p.numpy(), (logits[0] > -torch.inf).numpy())


def fate(found: Sequence[Stage], symbol: int) -> str:
    """Which step cut a symbol, or that it was kept."""
    for stage in found:
        if not stage.kept[symbol]:
            return f"cut by {stage.name}"
    return "kept"


def rows(p: np.ndarray, written: int | None, count: int = ROWS) -> np.ndarray:
    """The symbols to show, most probable first; the written one is always among them."""
    order = np.argsort(-p, kind="stable")
    if len(order) <= count + 2:  # a row for two others would save nothing
        return order
    shown = order[:count]
    if written is not None and written not in shown:
        shown = np.append(shown[:-1], written)
    return shown


def bars(
    found: Sequence[Stage],
    symbols: str,
    written: int | None = None,
    counts: np.ndarray | None = None,
) -> str:
    """A column of bars per stage, one row per symbol; `counts` are marked on the last one."""
    shown = rows(found[0].p, written)
    scale = max(stage.p.max() for stage in found)
    if counts is not None:
        scale = max(scale, (counts / counts.sum()).max())
    labels = "".join(
        f"<div class='row{' written' if i == written else ''}'>{_symbol(symbols[i])}</div>"
        for i in shown
    )
    others = len(symbols) - len(shown)
    if others:
        labels += f"<div class='row'>+{others}</div>"
    columns = f"<div class='column symbols'><div class='head'></div>{labels}</div>"
    for before, stage in zip([found[0], *found], found, strict=False):
        columns += _column(before, stage, shown, scale)
    if counts is not None:
        columns += _drawn(found[-1].p, counts, shown, scale)
    width = 34 + 75 * (len(found) + (counts is not None))  # below that the table goes underneath
    return (
        f"<div class='chart' style='flex-basis:{width}px' role='img' aria-label='The distribution "
        f"of the next character after each step; the table has the same in numbers'>{columns}</div>"
    )


def _column(before: Stage, stage: Stage, shown: np.ndarray, scale: float) -> str:
    """One stage; `before` is what its step was given (itself for the first)."""
    kind, _, value = stage.name.partition(" ")
    cut = before.kept & ~stage.kept
    reached = _cumulative(before.p)
    cells = []
    for i, is_last in zip(shown, _last_kept(stage.kept[shown], cut), strict=True):
        inside = ""
        if cut[i]:
            inside = f"<i style='--x:{before.p[i] / scale:.4f}'></i><span>×</span>"
        elif stage.kept[i]:
            inside = _bar(stage.p[i], scale)
        if kind == "top-p" and before.kept[i]:
            inside += f"<em style='--x:{reached[i]:.4f}'></em>"
        classes = "row" + " cut" * bool(cut[i]) + " last" * bool(is_last)
        cells.append(f"<div class='{classes}'>{inside}</div>")
    others = np.setdiff1d(np.arange(len(stage.p)), shown)
    if len(others):
        gone = int(cut[others].sum())
        note = f"<small>{gone} cut</small>" if gone else ""
        rest = stage.p[others].sum() if stage.kept[others].any() else None
        cells.append(f"<div class='row'>{note}<span>{_percent(rest)}</span></div>")
    line = ""
    if kind in ("top-p", "min-p"):
        x = float(value) if kind == "top-p" else float(value) * stage.p.max() / scale
        line = f"<u style='--x:{x:.4f};--rows:{len(shown)}'></u>"
    notes = f"{stage.entropy:.2f} nats", f"{np.exp(stage.entropy):.1f} choices"
    return _titled(f"{kind} {value}", notes, "".join(cells) + line, "first" * (before is stage))


def _drawn(p: np.ndarray, counts: np.ndarray, shown: np.ndarray, scale: float) -> str:
    """What is drawn from, the shares that came up, and where 19 of 20 shares are expected."""
    total = counts.sum()
    spread = 2 * np.sqrt(p * (1 - p) / total)
    low, high = np.maximum(p - spread, 0) / scale, np.minimum((p + spread) / scale, 1)
    cells = ""
    for i in shown:
        inside = ""
        if p[i] > 0:
            inside = _bar(p[i], scale)
            inside += f"<q style='--x:{low[i]:.4f};--w:{high[i] - low[i]:.4f}'></q>"
        if p[i] > 0 or counts[i]:
            inside += f"<s style='--x:{counts[i] / total / scale:.4f}'></s>"
        cells += f"<div class='row'>{inside}</div>"
    return _titled(f"{total} draws", ("with this seed",), cells, "drawn")


def _titled(title: str, notes: Sequence[str], content: str, kind: str) -> str:
    name, _, value = title.partition(" ")
    head = f"<b>{name}</b><b>{value}&nbsp;</b>{''.join(f'<small>{n}</small>' for n in notes)}"
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


def _last_kept(kept: np.ndarray, cut: np.ndarray) -> np.ndarray:
    """Marks the last kept row, if the cut parts the rows in two."""
    last = np.zeros(len(kept), dtype=bool)
    n = int(kept.sum())
    if cut.any() and n < len(kept) and kept[:n].all():
        last[n - 1] = True
    return last


def table(
    found: Sequence[Stage],
    symbols: str,
    written: int | None = None,
    counts: np.ndarray | None = None,
) -> str:
    """The same in numbers: before, after, what was drawn, and what became of each symbol."""
    first, last = found[0], found[-1]
    shown = rows(first.p, written)
    total = 0 if counts is None else int(counts.sum())
    head = "<th class='c'></th><th>model<br>%</th><th>after<br>%</th>"
    head += f"<th>drawn<br>of {total}</th>" if total else ""
    body = ""
    for i in shown:
        drawn = f"<td>{counts[i]}</td>" if total else ""
        name = fate(found, i)
        if i == written:
            name += ", written" if last.kept[i] else ", put here"
        body += (
            f"<tr><th class='c' scope='row'>{_symbol(symbols[i])}</th>"
            f"<td>{100 * first.p[i]:.2f}</td><td>{100 * last.p[i]:.2f}</td>{drawn}"
            f"<td class='t{'' if last.kept[i] else ' no'}'>{name}</td></tr>"
        )
    others = np.setdiff1d(np.arange(len(symbols)), shown)
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


def key(found: Sequence[Stage], total: int) -> str:
    """What the marks mean; only those that are there."""
    kinds = {stage.name.split()[0] for stage in found}
    items = ["Bars: per cent, on one scale", "choices: exp(nats)"]
    if any(not stage.kept.all() for stage in found):
        hatch = "repeating-linear-gradient(135deg,#999 0 1px,#fff 1px 4px)"
        items.append(f"<i style='background:{hatch};border:1px solid #aaa'></i>cut by this step")
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
    return f"<p class='key'>{''.join(f'<span>{item}</span>' for item in items)}</p>"


def _percent(p: float | None) -> str:
    if p is None:
        return ""
    return "&lt;0.1" if 0 < p < 0.0005 else f"{100 * p:.1f}"


def _symbol(character: str) -> str:
    return html.escape(visible(character))


def cards(prompt: str, texts: dict[str, str], here: int, pins: dict[int, str]) -> str:
    """Texts side by side. The first is the learner's; the others show where they part from it.

    `here` is the place in the first text that is looked at; `pins` are its replaced characters.
    """
    (name, yours), *others = texts.items()
    marks = dict.fromkeys(pins, "pin")
    marks[here] = f"here {marks.get(here, '')}"
    found = card(name, "", prompt, yours, marks, "yours")
    for name, text in others:
        same = next((i for i, c in enumerate(text) if c != yours[i]), len(text))
        parted = same < len(text)
        note = f"parts after {same} characters" if parted else "the same text"
        found += card(name, note, prompt, text, {same: "parts"} if parted else {})
    title = "<b>The same random draws, another strategy.</b> A frame marks where a text parts from "
    title += "the first one" + ("; underlined is what was put there." if pins else ".")
    return f"<p>{title}</p><div class='cards'>{found}</div>"


def card(name: str, note: str, prompt: str, text: str, marks: dict[int, str], kind="") -> str:
    """A titled text after its prompt; `marks` are classes of characters that stand out."""
    body = "".join(
        _marked(c, marks[i].strip()) if i in marks else html.escape(c) for i, c in enumerate(text)
    )
    return (
        f"<div class='card {kind}'><b>{name}</b><small>{note}</small>"
        f"<pre><span>{html.escape(prompt)}</span>{body}</pre></div>"
    )


def _marked(character: str, kind: str) -> str:
    return f"<mark class='{kind}'>{_symbol(character)}</mark>" + "\n" * (character == "\n")


def context(text: str, length: int = 24) -> str:
    """The end of a text, on one line."""
    end = "".join(map(visible, text[-length:])).replace("␣", " ")
    return f"<code>{'…' if len(text) > length else ''}{html.escape(end)}</code>"
