"""Which expert takes which token: the text in tiles and as a table, drawn as HTML.

Everything here is a function of its arguments; `routing` puts the results on the screen. Layers and
experts are numbered from 0; E experts, K experts per token, T tokens.
"""

from collections.abc import Sequence

from torch import Tensor

from ..measure import CLASSES, classes
from ..plots import EXPERT_COLOURS, GREY, ends_line, expert_colour, tint
from .frame import safe, shown

# tokens by the expert that takes most of them: of all, and of one expert at least and at most
LISTED, FEWEST, MOST = 800, 10, 100
_HATCH = "repeating-linear-gradient(135deg,#bbb 0 1px,#fff 1px 5px)"
_STRIPES = "repeating-linear-gradient(45deg,#0000 0 4px,#fffa 4px 6px)"
_COLOURS = "".join(
    f".tg .e{i} {{ --c:{','.join(str(int(c[j : j + 2], 16)) for j in (1, 3, 5))} }}\n"
    for i, c in enumerate(EXPERT_COLOURS)
)


STYLE = f"""<style>
{_COLOURS}
.tg-choice {{ display:grid !important; gap:2px 12px; align-items:start; overflow:visible;
  grid-template-columns:minmax(260px,2fr) minmax(250px,1.5fr) minmax(150px,1fr) }}
.tg-choice > * {{ width:auto !important; min-width:0; margin:1px 2px }}
.tg-choice > .widget-textarea {{ grid-row:span 2; height:62px }}
.tg-choice .widget-toggle-button {{ padding:0 7px; margin:0 2px 0 0 }}
@container (max-width:680px) {{ .tg-choice {{ grid-template-columns:minmax(0,1fr) }}
  .tg-choice > .widget-textarea {{ grid-row:auto }} }}
.tg .tiles {{ font-family:var(--jp-code-font-family, monospace); line-height:0; margin:0 0 10px }}
.tg .tiles b {{ display:inline-block; min-width:15px; box-sizing:border-box; margin:0 1px 4px 0;
  font-size:13px; font-weight:normal; line-height:17px; text-align:center; color:#111;
  background-color:rgba(var(--c),var(--a)); border-top:3px solid rgb(var(--c));
  border-bottom:3px solid #0000 }}
.tg .tiles b i {{ display:block; font:10px/11px var(--jp-ui-font-family, sans-serif) }}
.tg .tiles b.none {{ background:{_HATCH}; border-top-color:{GREY} }}
.tg .tiles b.off {{ background:#fff !important }}
.tg .tiles b.off i {{ text-decoration:line-through }}
.tg .tiles small {{ line-height:17px; margin-left:4px }}
.tg .sw {{ display:inline-block; width:12px; height:12px; background:rgb(var(--c));
  vertical-align:-1px; margin-right:6px }}
.tg .again {{ background-image:{_STRIPES} !important }}
.tg .side {{ margin:0 0 14px; display:flex; flex-wrap:wrap; gap:14px 36px; align-items:flex-start }}
.tg .side > * {{ min-width:0 }}
.tg .side > div:has(.cards) {{ flex:1 1 200px }}
.tg .side > div:has(.tiles) {{ flex:1 1 420px }}
.tg h3 {{ font:bold 12px/18px var(--jp-ui-font-family, sans-serif); color:#222; margin:0 0 4px }}
.tg .side p {{ margin:5px 0 0; max-width:34em; line-height:17px; color:#444 }}
.tg .loads {{ width:290px }}
.tg .loads.many {{ width:100%; columns:280px }}
.tg .loads .row {{ padding-left:82px; break-inside:avoid; border:0 }}
.tg .loads .row span.sw {{ position:static }}
.tg .loads .row > span.n {{ left:0; right:auto; font-size:12px; color:#222 }}
.tg .loads .row div {{ position:relative; height:18px; width:calc(100% - 44px) }}
.tg .loads .row div i {{ background-color:rgb(var(--c)); width:calc(100% * var(--x)) }}
.tg .loads .row div em {{ position:absolute; left:calc(100% * var(--x) - 1px); top:-1px; width:0;
  height:18px; background:none; border-left:2px dashed #222 }}
.tg table.cross th, .tg table.cross td {{ padding:0 7px; border:1px solid #fff; height:18px }}
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
.tg-routed > .widget-html {{ flex:1 1 480px }}
.tg-routed > .widget-html:last-child {{ flex:1 1 440px }}
.tg-routed p {{ margin:0 0 4px; line-height:17px }}
.tg-routed .tiles {{ max-height:232px; overflow:auto; margin:0 0 4px }}
.tg-routed .tiles b {{ min-width:13px; line-height:15px; margin-bottom:3px }}
.tg-routed .tiles b i {{ font-size:9px; line-height:10px }}
.tg-routed .side {{ gap:6px 16px; margin:0; flex-wrap:nowrap }}
@container (max-width:480px) {{ .tg-routed .side {{ flex-wrap:wrap }} }}
.tg-routed .loads {{ width:215px }}
.tg-routed pre {{ max-height:84px }}
.tg-figures {{ margin:6px 2px 0 }}
.tg-figures .tg {{ padding:8px 12px }}
.tg-figures .side {{ gap:6px 14px; margin:0 }}
.tg-figures table.cross th, .tg-figures table.cross td {{ padding:0 4px; height:16px;
  font-size:11px; line-height:15px }}
.tg-figures table.cross tr {{ height:16px }}
.tg-figures .loads {{ width:225px }}
.tg-figures .side p {{ font-size:11px; line-height:15px; max-width:37em; margin:3px 0 0 }}
</style>"""


def tiles(
    pieces: Sequence[str],
    experts: Tensor,
    weights: Tensor,
    n_experts: int,
    off: int = -1,
    unit: str = "character",
) -> str:
    """A tile per token, in lines as the text: experts and weights `(T, K)`, best first.

    An expert from `n_experts` on is none; the one that is `off` counts as zero.
    """
    rows = zip(pieces, experts.tolist(), weights.tolist(), strict=True)
    found = (
        _tile(i, piece, chosen, w, n_experts, off) + "<br>" * ends_line(pieces, i)
        for i, (piece, chosen, w) in enumerate(rows)
    )
    return (
        f"<div class='tiles' tabindex='0' role='img' aria-label='The text, each {unit} with the "
        f"number of its expert; the table below has the same in words'>{''.join(found)}</div>"
    )


def _tile(
    i: int, piece: str, chosen: list[int], weights: list[float], n_experts: int, off: int
) -> str:
    used = [(e, w) for e, w in zip(chosen, weights, strict=True) if e < n_experts]
    words = ", ".join(f"expert {e}: {w:.2f}" for e, w in used) or "no expert"
    title = f"title='{i + 1} {shown(piece)} {words}'"
    if not used:
        return f"<b class='none' {title}>{shown(piece)}<i>–</i></b>"
    (first, weight), *others = used
    style = f"--a:{tint(min(1.0, weight)):.2f}"
    if others and others[0][0] != off:
        style += f";border-bottom-color:{expert_colour(others[0][0])}"
    classes = f"{kind(first)}{' off' * (first == off)}"
    return f"<b class='{classes}' style='{style}' {title}>{shown(piece)}<i>{first}</i></b>"


def alphabet(table: Tensor, pieces: Sequence[str]) -> str:
    """For each expert the tokens of which it takes the most, from counts `(V, E)`.

    The most frequent ones, as many as fit; then how many there are besides.
    """
    E, counts = table.shape[1], table.sum(1)
    shares, first = (table.double() / counts[:, None].clamp(min=1)).max(1)
    order = counts.argsort(descending=True, stable=True)
    order = order[counts[order] > 0]
    most, rows = min(MOST, max(FEWEST, LISTED // E)), ""
    for e in range(E):
        mine = order[first[order] == e]
        cells = "".join(
            _tile(i, pieces[i], [e], [share], e + 1, -1)
            for i, share in zip(mine[:most].tolist(), shares[mine[:most]].tolist(), strict=True)
        )
        if len(mine) > most:
            cells += f"<small>and {len(mine) - most:,} less frequent</small>"
        name = f"<th scope='row'>{swatch(e)}</th>"
        rows += f"<tr>{name}<td class='t'><div class='tiles'>{cells or '–'}</div></td></tr>"
    return f"<table class='cross plain'><tbody>{rows}</tbody></table>"


def facts(
    pieces: Sequence[str],
    experts: Tensor,
    weights: Tensor,
    n_experts: int,
    styles: Sequence[str] | None = None,
    unit: str = "character",
) -> str:
    """The tiles in words: a folded table with a row per token."""
    rows, kinds = "", classes(pieces).tolist()
    columns = zip(pieces, experts.tolist(), weights.tolist(), strict=True)
    for i, (piece, chosen, w) in enumerate(columns):
        used = [f"{e} ({x:.2f})" for e, x in zip(chosen, w, strict=True) if e < n_experts]
        cells = [i + 1, shown(piece), CLASSES[kinds[i]], used[0] if used else "none"]
        cells += [", ".join(used[1:])] if experts.shape[1] > 1 else []
        cells += [safe(styles[i])] if styles else []
        rows += "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
    heads = ["position", unit, "class", "expert (weight)"]
    heads += ["others"] if experts.shape[1] > 1 else []
    heads += ["style"] if styles else []
    head = "".join(f"<th>{name}</th>" for name in heads)
    return (
        f"<details><summary>The text as a table</summary><div tabindex='0'>"
        f"<table class='cross plain'><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        f"</div></details>"
    )


def legend(n_choices: int, off: int, unit: str = "character") -> str:
    """How to read the tiles of `n_choices` experts per token, of which `off` is left out."""
    words = f"each {unit} with the number and colour of its expert; the deeper the colour, the "
    words += "larger the gate's weight"
    if n_choices > 1:
        words += "; the line below: its second expert"
    return words + (f"; white, its number struck out: expert {off}, dropped." if off >= 0 else ".")


def kind(expert: int) -> str:
    """Classes of an expert's colour; striped where the colours begin again."""
    n = len(EXPERT_COLOURS)
    return f"e{expert % n}{' again' * (expert >= n)}"


def swatch(expert: int) -> str:
    """The colour and name of an expert."""
    return f"<span class='sw {kind(expert)}'></span>expert {expert}"
