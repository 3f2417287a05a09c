"""What all widgets share: style, boxes, tiles, sliders, and work that is put off."""

import asyncio
import html
import time
from collections.abc import Callable, Iterator

import ipywidgets as widgets

from ..plots import BLUE, GREY, ORANGE, PINK, SKY, VERMILION, visible

STYLE = f"""<style>
.tg-panel {{ display:grid !important; gap:2px 10px; align-items:center;
  grid-template-columns:repeat(auto-fit,minmax(240px,1fr)) }}
.tg-panel > * {{ width:auto !important; min-width:0 }}
.tg-panel .tg-wide {{ grid-column:span 2 }}
.tg-panel .widget-readout {{ min-width:44px; width:44px }}
.tg {{ background:#fff; color:#222; border:1px solid #ddd; border-radius:6px; padding:12px 14px;
  font:12px/18px var(--jp-ui-font-family, sans-serif); font-variant-numeric:tabular-nums;
  margin:0 0 6px; white-space:normal; container-type:inline-size }}
.tg.old {{ opacity:.35 }}
.tg.pending {{ opacity:.65 }}
.tg p {{ margin:0 0 8px; line-height:20px }}
.tg small {{ color:#595959; font-size:11px }}
.tg code {{ font:13px/18px var(--jp-code-font-family, monospace); color:#222; background:#f3f3f3;
  padding:1px 4px; border-radius:3px; white-space:pre-wrap }}
.tg .wrap {{ display:flex; flex-wrap:wrap; gap:0 24px }}
.tg .chart {{ display:flex; flex:1 1 auto; min-width:0 }}
.tg .column {{ position:relative; flex:1 1 0; min-width:0; max-width:230px; padding-right:10px }}
.tg .symbols {{ flex:0 0 34px; padding:0 }}
.tg .head {{ height:66px; font-size:11px; line-height:15px; white-space:nowrap; overflow:hidden }}
.tg .head > * {{ display:block; overflow:hidden; text-overflow:ellipsis }}
@container (max-width:780px) {{ .tg .head, .tg .head small {{ font-size:10px }} }}
.tg .row {{ position:relative; height:18px; border-top:1px solid #f0f0f0; box-sizing:border-box }}
.tg .row i {{ position:absolute; left:0; top:3px; height:11px; background:{BLUE};
  width:calc((100% - 40px) * var(--x)); min-width:1px; border-radius:0 2px 2px 0 }}
.tg .first .row i {{ background:{GREY} }}
.tg .row.cut i {{ background:repeating-linear-gradient(135deg,#999 0 1px,#fff 1px 4px);
  border:1px solid #aaa; box-sizing:border-box }}
.tg .row span {{ position:absolute; right:0; top:0; line-height:17px; font-size:11px;
  color:#595959 }}
.tg .row em {{ position:absolute; left:calc((100% - 40px) * var(--x) - 1px); top:-1px; width:2px;
  height:18px; background:{PINK} }}
.tg .row s {{ position:absolute; left:calc((100% - 40px) * var(--x) - 4px); top:4px; width:9px;
  height:9px; background:{ORANGE}; border:1px solid #fff; transform:rotate(45deg);
  box-sizing:border-box }}
.tg .row q {{ position:absolute; left:calc((100% - 40px) * var(--x)); top:8px; height:1px;
  width:calc((100% - 40px) * var(--w)); background:#222; quotes:none }}
.tg .drawn .row i {{ background:{SKY} }}
.tg .row.last::after {{ content:""; position:absolute; left:0; right:0; bottom:-1px; height:2px;
  background:{VERMILION}; z-index:1 }}
.tg .column u {{ position:absolute; left:calc((100% - 50px) * var(--x) - 1px); top:66px;
  width:0; height:calc(18px * var(--rows)); border-left:2px dashed {VERMILION} }}
.tg .symbols .row {{ font:13px/17px var(--jp-code-font-family, monospace); text-align:center }}
.tg .symbols .row.written {{ background:{SKY}; font-weight:bold; border-radius:3px }}
.tg table {{ border-collapse:collapse; flex:0 0 auto; margin:0 }}
.tg table tr {{ height:18px; background:none }}
.tg table th, .tg table td {{ padding:0 0 0 12px; text-align:right; font-weight:normal;
  line-height:17px; border-top:1px solid #f0f0f0; white-space:nowrap; font-size:12px }}
.tg table thead th {{ height:66px; vertical-align:bottom; line-height:15px; font-weight:bold;
  border:0; padding-bottom:3px; box-sizing:border-box }}
.tg table .t {{ text-align:left; min-width:140px }}
.tg table .c {{ font:13px/17px var(--jp-code-font-family, monospace); text-align:center;
  padding:0 4px }}
.tg table .no {{ color:#767676 }}
.tg .key {{ margin:8px 0 0; color:#595959; font-size:11px }}
.tg .key span {{ display:inline-block; margin-right:16px; white-space:nowrap }}
.tg .key i {{ display:inline-block; width:18px; height:9px; margin-right:5px }}
.tg .cards {{ display:grid; gap:12px 20px;
  grid-template-columns:repeat(auto-fit,minmax(300px,1fr)) }}
.tg .card {{ border-top:2px solid #ddd; padding-top:4px; min-width:0 }}
.tg .card.yours {{ border-top-color:{BLUE} }}
.tg .card small {{ float:right }}
.tg pre {{ font:12px/17px var(--jp-code-font-family, monospace); color:#222; margin:4px 0 0;
  padding:0; background:none; white-space:pre-wrap; word-break:normal; overflow-wrap:anywhere }}
.tg pre span {{ color:#767676 }}
.tg mark {{ color:#000; border-radius:2px; font-weight:bold }}
.tg mark.here {{ background:{SKY} }}
.tg mark.pin {{ background:none; box-shadow:inset 0 -3px {PINK} }}
.tg mark.here.pin {{ background:{SKY} }}
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


_TILE = (
    "display:inline-block;min-width:1.25em;padding:1px 3px;margin:1px;border-radius:4px;"
    "text-align:center;font-family:monospace;color:#111;background:{background};"
    "border:1px solid {border}"
)


def _slider(name: str, value: int, low: int, high: int) -> widgets.IntSlider:
    return widgets.IntSlider(
        value=value,
        min=low,
        max=high,
        description=name,
        disabled=low == high,
        style={"description_width": "6em"},
        layout={"width": "32em"},
    )


def _redraw_on_change(draw, *controls: widgets.Widget) -> None:
    for control in controls:
        control.observe(lambda change: draw(), names="value")
    draw()


def _tile(character: str, background: str, mark: bool = False) -> str:
    style = _TILE.format(background=background, border="#D55E00" if mark else "#BBBBBB")
    return f"<span style='{style}'>{html.escape(visible(character))}</span>"


def _tiles(characters: str, background: str) -> str:
    return "".join(_tile(c, background) for c in characters)


def _row(name: str, characters: str, ids: list[int], background: str) -> str:
    cells = "".join(
        f"<td style='text-align:center;padding:0'>{_tile(c, background)}<br><small>{i}</small></td>"
        for c, i in zip(characters, ids, strict=True)
    )
    return f"<tr><th style='vertical-align:top;padding:4px 8px 0 0'>{name}</th>{cells}</tr>"


class Text:
    """A continuation that is written as far as it is wanted, and can be taken up again."""

    def __init__(self, pieces: Iterator[str]):
        self.pieces, self.text = pieces, ""

    def grow(self, length: int) -> Iterator[None]:
        """Write up to a length, and yield after each character."""
        while len(self.text) < length:
            self.text += next(self.pieces)
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
