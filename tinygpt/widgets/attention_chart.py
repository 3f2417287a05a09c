"""Attention in colours: maps of all heads, one map, and a text as one query reads it, as HTML.

Everything here is a function of its arguments; `attention` puts the results on the screen. Layers,
heads and places are numbered from 0; L layers, H heads, T tokens.
"""

import base64
import io
from collections.abc import Collection
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.image import imsave

from ..plots import HEAT, VERMILION, ends_line, thumbnail
from .frame import shown, signed

LABELLED = 64  # tokens along the axes of a map that have their letters there
SMALL, TINY = 58, 16  # pixels of a thumbnail at most and at least
ROOMY = 38  # from so many on there is room for words
WALL = 284  # of all in a row or column, as far as that goes
POINTED = 3000  # places of a map with a title of their own
STRONGEST = 5  # of what a query reads
OVER_TEXT = {
    "entropy": ("entropy", "{:.2f} nats"),
    "distance": ("looks back", "{:.1f}"),
    "previous_token": ("on the one before", "{:.0%}"),
    "same_token": ("on its like before", "{:.0%}"),
    "speaker_line": ("on the speaker", "{:.0%}"),
}
_HATCH = "repeating-linear-gradient(135deg,#c4c4c4 0 1px,#f6f6f6 1px 5px)"

STYLE = f"""<style>
.tg-attention {{ display:grid !important; gap:2px 12px; align-items:start;
  grid-template-columns:minmax(250px,2fr) repeat(3,minmax(150px,1fr)) }}
.tg-attention > * {{ width:auto !important; min-width:0; margin:1px 0 }}
.tg-attention .jupyter-button {{ flex:1 1 0; width:auto !important; padding:0 4px }}
.tg-attention .widget-readout {{ min-width:44px; width:44px }}
.tg-attention .tg-text {{ grid-row:span 2; height:62px }}
.tg-attention .tg-wide, .tg-attention .tg-saved {{ grid-column:span 2 }}
.tg-attention .widget-toggle-buttons .widget-toggle-button {{ width:auto; margin:0 }}
.tg-attention .tg-saved * {{ font-size:12px; line-height:15px; overflow-wrap:anywhere }}
@container (max-width:760px) {{
  .tg-attention {{ grid-template-columns:repeat(auto-fit,minmax(220px,1fr)) }}
  .tg-attention > :is(.tg-text, .tg-wide, .tg-saved) {{ grid-column:1 / -1 }} }}
.tg-views {{ gap:8px; flex-flow:row wrap; margin:0 2px }}
.tg-views > .widget-html {{ margin:0; flex:1 1 540px; min-width:0 }}
.tg-views > .widget-html:first-child {{ flex:0 0 330px }}
.tg-views .tg {{ min-height:366px; box-sizing:border-box; margin:0; padding:8px 12px }}
.tg-after .tg {{ padding:8px 12px 10px }}
.tg-after .tg p {{ margin:0 0 4px }}
.tg-after pre {{ max-height:102px; overflow:auto }}
.tg h3 {{ font:bold 12px/18px var(--jp-ui-font-family, sans-serif); color:#222; margin:0 0 4px }}
.tg .wall {{ display:grid; gap:4px; align-items:center; justify-content:start; padding:2px;
  max-height:330px; overflow:auto }}
.tg .wall > b {{ font-weight:normal; font-size:11px; line-height:13px; text-align:center;
  color:#444 }}
.tg .wall > div {{ text-align:center; font-size:10px; line-height:12px; color:#444;
  white-space:nowrap }}
.tg .wall > div.here {{ font-weight:bold; color:#000 }}
.tg .heat {{ background-size:100% 100%; image-rendering:pixelated; position:relative }}
.tg .map, .tg .wall .heat {{ background-color:#f6f6f6 }}
.tg .wall .heat {{ margin-bottom:3px }}
.tg .wall .here .heat {{ outline:2px solid {VERMILION}; outline-offset:1px }}
.tg .wall .off .heat::after {{ content:"off"; position:absolute; inset:0; background:{_HATCH};
  opacity:.9; font:bold 11px/100% sans-serif; display:grid; place-items:center }}
.tg .two {{ display:flex; flex-wrap:wrap; gap:8px 18px; align-items:flex-start }}
.tg .two > div {{ flex:1 1 330px; min-width:0 }}
.tg .two > .narrow {{ flex:0 0 auto }}
.tg .two > .plot {{ flex:0 0 auto }}
.tg .plot .axes {{ display:grid; grid-template-columns:auto 316px auto; gap:0 3px }}
.tg .plot .axis {{ display:flex; font-family:var(--jp-code-font-family, monospace);
  color:#222; white-space:pre }}
.tg .plot .axis b {{ font-weight:normal; flex:1 1 0; min-width:0; min-height:0; display:flex;
  justify-content:center; align-items:center; line-height:1; overflow:visible }}
.tg .plot .axis b.here {{ color:{VERMILION}; font-weight:bold }}
.tg .plot .axis.side {{ flex-direction:column; margin:0; gap:0; align-items:stretch }}
.tg .plot .map {{ width:316px; height:316px; background-image:{_HATCH} }}
.tg .plot .map .heat {{ width:100%; height:100% }}
.tg .plot .map i {{ position:absolute; width:calc(100%/var(--n)); height:calc(100%/var(--n));
  left:calc(100%*var(--s)/var(--n)); top:calc(100%*var(--t)/var(--n)) }}
.tg .plot .map i:hover {{ outline:1px solid #fff }}
.tg .plot .map em {{ position:absolute; left:-2px; right:-2px; pointer-events:none;
  top:calc(100%*var(--t)/var(--n) - 1px); height:max(3px, calc(100%/var(--n)));
  border:1.5px solid {VERMILION}; box-sizing:content-box }}
.tg .plot .scale {{ position:relative; width:46px; height:200px; margin-left:7px;
  border-left:11px solid; border-image:var(--ramp) 1 }}
.tg .plot .scale span {{ position:absolute; left:4px; bottom:calc(100%*var(--at)); font-size:10px;
  line-height:0; color:#444 }}
.tg .read {{ font-family:var(--jp-code-font-family, monospace); line-height:0; margin:0 0 8px;
  max-height:196px; overflow:auto; padding:2px }}
.tg .read.long b {{ min-width:10px; font-size:11px; line-height:16px }}
.tg .read b {{ display:inline-block; min-width:13px; box-sizing:border-box; margin:0 1px 2px 0;
  padding:0 1px; font-size:13px; font-weight:normal; line-height:19px; text-align:center;
  border-radius:2px }}
.tg .read b.later {{ background:{_HATCH}; color:#767676 }}
.tg .read b.here {{ outline:2px solid {VERMILION}; font-weight:bold }}
.tg table.most th, .tg table.most td {{ padding-left:9px }}
.tg table.most th:first-child, .tg table.most td:first-child {{ padding-left:0 }}
.tg table.most th[scope=row] {{ text-align:left }}
.tg .most .c {{ font-family:var(--jp-code-font-family, monospace); text-align:center }}
.tg details summary {{ cursor:pointer; color:#444 }}
</style>"""


@dataclass(frozen=True)
class Scale:
    """Which colour a value has, the same in all maps; a `root` spreads small values out."""

    low: float
    high: float
    root: bool = False

    def shares(self, values: np.ndarray) -> np.ndarray:
        """How far each value is on the way from the lowest colour, 0, to the highest, 1."""
        x = np.clip((np.asarray(values) - self.low) / max(1e-9, self.high - self.low), 0, 1)
        return np.sqrt(x) if self.root else x

    def colours(self, values: np.ndarray) -> np.ndarray:
        """Red, green, blue and opacity `(..., 4)` from 0 to 255; NaN is seen through."""
        found = matplotlib.colormaps[HEAT](np.nan_to_num(self.shares(values)), bytes=True)
        return np.where(np.isnan(values)[..., None], 0, found).astype(np.uint8)

    def style(self, value: float) -> str:
        """The colour as a background, with letters that can be read on it."""
        red, green, blue, _ = self.colours(np.array(value)).tolist()
        light = 0.299 * red + 0.587 * green + 0.114 * blue > 118
        return f"background:rgb({red},{green},{blue});color:{'#111' if light else '#fff'}"

    def ticks(self) -> list[float]:
        """Values to name beside the colours."""
        return [0, 0.05, 0.2, 0.5, 1] if self.root else np.linspace(self.low, self.high, 5).tolist()


def wall(
    maps: np.ndarray,
    scale: Scale,
    here: tuple[int, int],
    off: Collection[tuple[int, int]],
    lost: dict[tuple[int, int], float],
) -> str:
    """A thumbnail of each map `(L, H, T, T)`, with what is lost without that head, if known.

    The head that is looked at, `here`, is framed; with -1 all of its layer are. Those that are
    `off` are hatched.
    """
    L, H = maps.shape[:2]
    size = max(TINY, min(SMALL, WALL // H - 4, WALL // L - 8))
    named = size >= ROOMY
    cells = "<b></b>" + "".join(f"<b>{'head ' * named}{h}</b>" for h in range(H))
    for layer in range(L):
        cells += f"<b>{'layer<br>' * named}{layer}</b>"
        for head in range(H):
            place = layer, head
            kind = "here " * (here in (place, (layer, -1))) + "off" * (place in off)
            loss = signed(lost[place]) if place in lost else ""
            title = f"layer {layer}, head {head}" + f": {loss} nats without it" * bool(loss)
            style = f"width:{size}px;height:{size}px"
            heat = _heat(thumbnail(maps[place], size), scale, style)
            below = (loss or "&nbsp;") * named
            cells += f"<div class='{kind}' title='{title}'>{heat}{below}</div>"
    columns = f"grid-template-columns:auto repeat({H},{size}px)"
    words = f"A small attention map for each of {H} heads in {L} layers"
    kind = f"class='wall' tabindex='0' role='img' aria-label='{words}'"
    return f"<div {kind} style='{columns}'>{cells}</div>"


@dataclass(frozen=True)
class Map:
    """One map of T tokens, and the query that is looked at."""

    name: str
    values: np.ndarray  # (T, T), NaN where a query may not see a key
    what: str  # the values are: "weight" or "score"
    scale: Scale
    pieces: list[str]
    unit: str  # what a token is called
    place: int


def page(shown_map: Map, figures: dict[str, float], notes: list[str]) -> str:
    """A map beside what one of its queries reads, and the figures of its head."""
    return (
        f"<div class='two'>{titled_plot(shown_map)}<div>{reading(shown_map, figures, notes)}</div>"
        f"</div>"
    )


def titled_plot(m: Map, row: str | None = None) -> str:
    """A map under its name."""
    title = f"<h3>{m.name.capitalize()}: rows read columns</h3>"
    return f"<div class='plot'>{title}{plot(m, row)}</div>"


def reading(shown_map: Map, figures: dict[str, float], notes: list[str]) -> str:
    """What one query of a map reads, and the figures of its head."""
    piece = shown(shown_map.pieces[shown_map.place])
    title = f"{shown_map.unit.capitalize()} {shown_map.place}, “{piece}”, reads"
    return (
        f"<h3>{title}</h3>{read(shown_map)}<div class='two'>"
        f"<div class='narrow'>{most(shown_map)}</div><div class='narrow'><h3>Over the whole text"
        f"</h3>{over_text(figures)}</div></div><small>{' '.join(notes)}</small>"
    )


def plot(m: Map, row: str | None = None) -> str:
    """Queries from top to bottom, with tokens on both axes; the row that is looked at is framed.

    row: a style's value for the number of that row, if the page is to move the frame.
    """
    T = len(m.pieces)
    marks = [""] * T if T > LABELLED else list(map(shown, m.pieces))
    here = m.place if row is None else None
    letters = "".join(
        f"<b class='{'here' * (i == here)}'>{mark}</b>" for i, mark in enumerate(marks)
    )
    style = f"font-size:{min(12, 1.05 * 316 / T):.1f}px"
    frame = f"<em style='--t:{m.place if row is None else row}'></em>"
    heat = _heat(m.values, m.scale, f"--n:{T}", _titles(m) + frame)
    words = f"{m.name}: attention map of {T} {m.unit}s; what one {m.unit} reads is beside it"
    return (
        f"<div class='axes' role='img' aria-label='{words}'>"
        f"<div class='axis side' style='{style}'>{letters}</div><div class='map'>{heat}</div>"
        f"{_ramp(m.scale)}<span></span><div class='axis' style='{style}'>{letters}</div></div>"
    )


def _heat(values: np.ndarray, scale: Scale, style: str, content: str = "") -> str:
    """Values as colours, a point each, stretched over a box."""
    buffer = io.BytesIO()
    imsave(buffer, scale.colours(values), format="png")
    image = base64.b64encode(buffer.getvalue()).decode()
    return (
        f"<div class='heat' style='{style};background-image:url(data:image/png;base64,{image})'>"
        f"{content}</div>"
    )


def _titles(m: Map) -> str:
    """Titles for the largest values of a map, at their places."""
    flat = np.nan_to_num(m.values, nan=-np.inf).ravel()
    kept = np.argsort(-flat, kind="stable")[: min(POINTED, np.isfinite(flat).sum())]
    names = list(map(shown, m.pieces))
    return "".join(
        f"<i style='--t:{t};--s:{s}' title='{names[t]} reads {names[s]}: {m.values[t, s]:.2f}'></i>"
        for t, s in zip(*np.unravel_index(np.sort(kept), m.values.shape), strict=True)
    )


def _ramp(scale: Scale) -> str:
    """The colours beside their values."""
    colours = matplotlib.colormaps[HEAT](np.linspace(0, 1, 9), bytes=True)[:, :3].tolist()
    ticks = "".join(
        f"<span style='--at:{at:.3f}'>{value if scale.root else _number(value, 1)}</span>"
        for value, at in zip(scale.ticks(), scale.shares(np.array(scale.ticks())), strict=True)
    )
    ramp = f"linear-gradient(to top,{','.join(f'rgb{tuple(colour)}' for colour in colours)})"
    return f"<div class='scale' style='--ramp:{ramp}'>{ticks}</div>"


def read(m: Map) -> str:
    """The text as one query reads it: a tile per token in the colour of its value."""
    found = ""
    for i, (piece, value) in enumerate(zip(m.pieces, m.values[m.place].tolist(), strict=True)):
        kind = "here" if i == m.place else "later" if i > m.place else ""
        words = "not seen: it comes later" if i > m.place else f"{value:.3f}"
        style = "" if i > m.place else f" style='{m.scale.style(value)}'"
        found += f"<b class='{kind}'{style} title='{i} {shown(piece)}: {words}'>{shown(piece)}</b>"
        found += "<br>" * ends_line(m.pieces, i)
    long = "long" * (len(m.pieces) > 2 * LABELLED)
    words = f"The text in the colours of what {m.unit} {m.place} reads; the table has the numbers"
    return f"<div class='read {long}' tabindex='0' role='img' aria-label='{words}'>{found}</div>"


def most(m: Map) -> str:
    """The strongest of what one query reads, and folded all of it, as tables."""
    row = m.values[m.place]
    order = np.argsort(-row[: m.place + 1], kind="stable").tolist()
    rows = [
        f"<tr><td>{i}</td><td class='c'>{shown(m.pieces[i])}</td><td>{m.place - i}</td>"
        f"<td>{_number(row[i], 3)}</td></tr>"
        for i in order
    ]
    head = f"<th>place</th><th>{m.unit}</th><th>back</th><th>{m.what}</th>"
    table = "<table class='most'><thead><tr>{}</tr></thead><tbody>{}</tbody></table>"
    return (
        f"{table.format(head, ''.join(rows[:STRONGEST]))}<details><summary>All of them as a table"
        f"</summary>{table.format(head, ''.join(rows))}</details>"
    )


def over_text(figures: dict[str, float]) -> str:
    """The figures of `measure_heads` as a table; NaN: there is nothing to measure."""
    cells = ""
    for name, (words, form) in OVER_TEXT.items():
        value = "–" if np.isnan(figures[name]) else form.format(figures[name]).replace("%", " %")
        cells += f"<tr><th scope='row'>{words}</th><td>{value}</td></tr>"
    return f"<table class='most'><tbody>{cells}</tbody></table>"


def loss(found: dict[str, float], off: str, unit: str) -> str:
    """What the text costs with all heads, and without those that are off, in words."""
    whole, without = found["loss"], found.get("loss without")
    if np.isnan(whole):
        return f"Of one {unit} alone there is no loss."
    words = f"Loss on this text: {whole:.3f} nats per {unit}"
    if without is None:
        return f"{words}. Switch a head off: what it gives counts as 0."
    return f"{words}, {without:.3f} without {off}: <b>{signed(without - whole)}</b>."


def _number(x: float, digits: int) -> str:
    return f"{x:.{digits}f}".replace("-", "−")
