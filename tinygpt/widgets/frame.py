"""What all widgets share: style, boxes, tiles, cards, sliders, and work that is put off."""

import asyncio
import html
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import groupby

import ipywidgets as widgets

from ..plots import BLUE, VERMILION, visible
from ..text import Tokenizer

STYLE = f"""<style>
.tg {{ background:#fff; color:#222; border:1px solid #ddd; border-radius:6px; padding:12px 14px;
  font:12px/18px var(--jp-ui-font-family, sans-serif); font-variant-numeric:tabular-nums;
  margin:0 0 6px; white-space:normal; container-type:inline-size }}
.tg.old {{ opacity:.35 }}
.tg.pending {{ opacity:.65 }}
.tg p {{ margin:0 0 8px; line-height:20px }}
.tg small {{ color:#595959; font-size:11px }}
.tg .row {{ position:relative; height:18px; border-top:1px solid #f0f0f0; box-sizing:border-box }}
.tg .row i {{ position:absolute; left:0; top:3px; height:11px; background:{BLUE};
  width:calc((100% - 40px) * var(--x)); min-width:1px; border-radius:0 2px 2px 0 }}
.tg .row span {{ position:absolute; right:0; top:0; line-height:17px; font-size:11px;
  color:#595959 }}
.tg table {{ border-collapse:collapse; flex:0 0 auto; margin:0 }}
.tg table tr {{ height:18px; background:none }}
.tg table th, .tg table td {{ padding:0 0 0 12px; text-align:right; font-weight:normal;
  line-height:17px; border-top:1px solid #f0f0f0; white-space:nowrap; font-size:12px }}
.tg table thead th {{ vertical-align:bottom; line-height:15px; font-weight:bold; border:0;
  padding-bottom:3px; box-sizing:border-box }}
.tg table .t {{ text-align:left; min-width:140px }}
.tg .cards {{ display:grid; gap:12px 20px;
  grid-template-columns:repeat(auto-fit,minmax(300px,1fr)) }}
.tg .card {{ border-top:2px solid #ddd; padding-top:4px; min-width:0 }}
.tg .card.yours {{ border-top-color:{BLUE} }}
.tg .card small {{ float:right }}
.tg pre {{ font:12px/17px var(--jp-code-font-family, monospace); color:#222; margin:4px 0 0;
  padding:0; background:none; white-space:pre-wrap; word-break:normal; overflow-wrap:anywhere }}
.tg pre span {{ color:#767676 }}
.tg mark {{ color:#000; border-radius:2px; font-weight:bold }}
.tg mark.parts {{ background:none; outline:2px solid {VERMILION}; outline-offset:-1px }}
.tg-error {{ color:#a11; background:#fff; border:1px solid #a11; border-radius:6px;
  padding:8px 14px; font:13px/20px var(--jp-ui-font-family, sans-serif) }}
</style>"""


def box(content: str, state: str = "") -> str:
    """A light box; pale if what it shows is "pending", paler if it is "old"."""
    return f"<div class='tg {state}'>{content}</div>"


def error_line(message: str, drawn: bool) -> str:
    """One clear line; `drawn` says that an older picture is still there."""
    note = " Below, pale: what was drawn last." if drawn else ""
    return f"<div class='tg-error' role='alert'><b>✕</b> {html.escape(message)}{note}</div>"


def label(piece: str) -> str:
    """A token by itself, with signs for spaces and line ends, and for no text at all."""
    return visible(piece) or "∅"


def shown(piece: str) -> str:
    """The same as HTML."""
    return html.escape(label(piece))


# --- tiles and their sliders ---------------------------------------------------------------------

TILE = (
    "display:inline-block;min-width:1.25em;padding:1px 3px;margin:1px;border-radius:4px;"
    "text-align:center;font-family:monospace;color:#111;background:{background};"
    "border:1px solid {border}"
)


def tile(piece: str, background: str, mark: bool = False) -> str:
    """A token by itself."""
    style = TILE.format(background=background, border="#D55E00" if mark else "#BBBBBB")
    return f"<span style='{style}'>{shown(piece)}</span>"


def slider(name: str, value: int, low: int, high: int) -> widgets.IntSlider:
    """A wide slider over whole numbers, switched off if there is nothing to choose."""
    return widgets.IntSlider(
        value=value,
        min=low,
        max=high,
        description=name,
        disabled=low == high,
        style={"description_width": "6em"},
        layout={"width": "32em"},
    )


def redraw_on_change(draw: Callable[[], None], *controls: widgets.Widget) -> None:
    """Draw now, and whenever one of the controls is moved."""
    for control in controls:
        control.observe(lambda change: draw(), names="value")
    draw()


# --- texts of tokens -----------------------------------------------------------------------------


def unit(tokenizer: Tokenizer) -> str:
    """What a token is called: "character" if each of them is one."""
    whole = all(text is not None and len(text) == 1 for text in tokenizer.texts)
    return "character" if whole else "token"


def spelled(tokenizer: Tokenizer, tokens: Sequence[int], apart: Collection[int] = ()) -> list[str]:
    """What each token is in a text that is shown.

    Tokens that are parts of characters give them together, the first of them in place of all; but
    each its own bytes if one of them stands at a place that is to be looked at `apart`.
    """
    found = [tokenizer.pieces[token] for token in tokens]
    for whole, run in groupby(range(len(tokens)), lambda i: bool(tokenizer.texts[tokens[i]])):
        places = list(run)
        if not whole and not set(places) & set(apart):
            text = tokenizer.decode([tokens[i] for i in places])
            found[places[0] : places[-1] + 1] = [text] + [""] * (len(places) - 1)
    return found


def card(
    tokenizer: Tokenizer,
    name: str,
    prompt: str,
    tokens: Sequence[int],
    marks: dict[int, str],
    note: str = "",
    kind: str = "",
) -> str:
    """A titled text after its prompt; `marks` are classes of tokens that stand out."""
    body = "".join(
        _marked(piece, marks[i].strip()) if i in marks else html.escape(piece)
        for i, piece in enumerate(spelled(tokenizer, tokens, marks))
    )
    return (
        f"<div class='card {kind}'><b>{name}</b><small>{note}</small>"
        f"<pre><span>{html.escape(prompt)}</span>{body}</pre></div>"
    )


def compared(
    tokenizer: Tokenizer, name: str, prompt: str, tokens: Sequence[int], other: Sequence[int]
) -> str:
    """The card of a text; a frame marks where it parts from another one of its length."""
    pairs = zip(tokens, other, strict=True)
    parts = next((i for i, (mine, its) in enumerate(pairs) if mine != its), None)
    if parts is None:
        return card(tokenizer, name, prompt, tokens, {}, "the same text")
    note = f"parts after {parts} {unit(tokenizer)}s"
    return card(tokenizer, name, prompt, tokens, {parts: "parts"}, note)


def _marked(piece: str, kind: str) -> str:
    line_ends = piece[len(piece.rstrip("\n")) :]
    return f"<mark class='{kind}'>{shown(piece)}</mark>{line_ends}"


# --- work that is put off ------------------------------------------------------------------------


class Text:
    """A continuation that is written as far as it is wanted, and can be taken up again."""

    def __init__(self, stream: Iterator[int]):
        self.tokens: list[int] = []
        self._stream = stream

    def grow(self, length: int) -> Iterator[None]:
        """Write up to so many tokens, and yield after each."""
        while len(self.tokens) < length:
            self.tokens.append(next(self._stream))
            yield


class Later:
    """Work that yields: in slices while a notebook has other things to do, else at once.

    Only the newest work counts; what is still being done is given up.
    """

    def __init__(self):
        self._task: asyncio.Task | None = None
        self._work: Callable[[], Iterator[None]] | None = None

    def start(self, work: Callable[[], Iterator[None]], at_once: bool = False) -> bool:
        """Do `work()`; whether it was put off. In plain Python it never is."""
        self.stop()
        self._work = work
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # plain Python
            at_once = True
        if at_once:
            _exhaust(work())
        else:
            self._task = loop.create_task(in_slices(work()))
        return not at_once

    def stop(self) -> None:
        """Give up what was put off."""
        if self._task:
            self._task.cancel()
        self._task = None

    def finish(self) -> None:
        """Do at once what was put off."""
        if self._task:
            self.stop()
            _exhaust(self._work())


def _exhaust(work: Iterator[None]) -> None:
    for _ in work:
        pass


async def in_slices(work: Iterator[None], seconds: float = 0.02) -> None:
    """Do work that yields, and let the notebook answer its user in between."""
    pause = time.monotonic() + seconds
    for _ in work:
        if time.monotonic() > pause:
            await asyncio.sleep(0)
            pause = time.monotonic() + seconds
