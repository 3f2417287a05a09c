"""What all widgets share: style, text made safe, boxes, tiles, cards and sliders."""

import html
import re
from collections.abc import Collection, Sequence
from itertools import groupby, zip_longest

import ipywidgets as widgets

from ..errors import TinyGPTError, UnknownCharacterError
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
.tg-plain.old {{ opacity:.35 }}
.tg-live, .tg-live .widget-box {{ overflow:visible }}
.tg-live {{ container-type:inline-size }}
.tg-pair {{ display:flex; flex-flow:row wrap; gap:6px; overflow:visible; margin:0 2px }}
.tg-pair > .widget-html {{ margin:0; min-width:0; height:auto }}
.tg-pair .tg {{ min-height:100%; box-sizing:border-box; margin:0; padding:8px 12px }}
.tg-pair .widget-html-content {{ height:100% }}
.tg-pair .cards {{ gap:6px 14px; grid-template-columns:repeat(auto-fit,minmax(190px,1fr)) }}
.tg-pair pre {{ font-size:11px; line-height:14px; max-height:100px; overflow:auto;
  clear:both }}
.tg-error {{ color:#a11; background:#fff; border:1px solid #a11; border-radius:6px;
  padding:8px 14px; font:13px/20px var(--jp-ui-font-family, sans-serif) }}
</style>"""

# ipywidgets leaves the handle of a slider, and the number beside it, without a name that a screen
# reader could say, and JupyterLab takes the keys of a menu for commands of the notebook (an arrow
# selects another cell, x cuts one); an event of the style is the one place where a page of HTML may
# mend that
NAMES_AND_KEYS = """<style onload="const box = this.closest('.tg-live'), name = () => {
  for (const part of box.querySelectorAll('.noUi-handle, .widget-readout')) {
    const label = part.closest('.widget-inline-hbox').querySelector('label');
    if (label && part.ariaLabel !== label.textContent) part.ariaLabel = label.textContent;
    if (part.isContentEditable) part.role = 'textbox';
  }
  for (const menu of box.querySelectorAll('select')) menu.dataset.lmSuppressShortcuts = '';
};
name();
new MutationObserver(name).observe(box, {childList: true, subtree: true})">.tg-live {}</style>"""

# control characters but tabs and line ends, signs that turn the direction of writing, line and
# paragraph separators, halves of a character, the byte-order mark
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]"
)
LONGEST_LINE = 400  # characters of an error
NAMED = 10  # unknown characters
PROMPT = 60  # characters of it before a text


def safe(text: str) -> str:
    """A running text as HTML, also in an attribute; what would disturb it is shown as <U+202E>."""
    return html.escape(_UNSEEN.sub(lambda found: _name(found[0]), text))


def label(piece: str) -> str:
    """A token by itself, with signs for what cannot be seen, and for no text at all."""
    return "".join(c if c.isprintable() else _name(c) for c in visible(piece)) or "∅"


def shown(piece: str) -> str:
    """The same as HTML."""
    return html.escape(label(piece))


def _name(character: str) -> str:
    return f"<U+{ord(character):04X}>"


def signed(x: float) -> str:
    """Three digits with their sign; a rounded zero has none."""
    return f"{x:+.3f}".replace("-", "−") if round(float(x), 3) else "0.000"


def box(content: str, state: str = "") -> str:
    """A light box; pale if what it shows is "pending", paler if it is "old"."""
    return f"<div class='tg {state}'>{content}</div>"


def plain(content: str, state: str = "") -> str:
    """The same without the box."""
    return f"<div class='tg-plain {state}'>{content}</div>"


def error_line(message: str, drawn: bool) -> str:
    """One clear line; `drawn` says that an older picture is still there."""
    stop = "" if message[-1:] in ".?!…" else "."
    note = f"{stop} Below, pale: what was drawn last." if drawn else ""
    return f"<div class='tg-error' role='alert'><b>✕</b> {safe(message)}{note}</div>"


def explained(error: Exception) -> str:
    """What an error says, on one line; one that nobody thought of says of what kind it is."""
    if isinstance(error, UnknownCharacterError):
        return unknown(error)
    words = " ".join(str(error).split())
    if not isinstance(error, (TinyGPTError, ValueError)):
        words = f"{type(error).__name__}: {words}"
    return words if len(words) <= LONGEST_LINE else f"{words[:LONGEST_LINE]}…"


def unknown(error: UnknownCharacterError) -> str:
    """Which characters a text must do without."""
    named = ", ".join(map(repr, [*error.unknown][:NAMED]))
    more = f" and {len(error.unknown) - NAMED} more" if len(error.unknown) > NAMED else ""
    return f"the model does not know {named}{more}; take it out."


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


def tail(prompt: str) -> str:
    """The end of a prompt, as much as is shown with a text: what was written stays in sight."""
    return prompt if len(prompt) <= PROMPT else "…" + prompt[-PROMPT:].lstrip()


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
        _marked(piece, marks[i].strip()) if i in marks else safe(piece)
        for i, piece in enumerate(spelled(tokenizer, tokens, marks))
    )
    return (
        f"<div class='card {kind}'><b>{safe(name)}</b><small>{note}</small>"
        f"<pre tabindex='0'><span>{safe(prompt)}</span>{body}</pre></div>"
    )


def compared(
    tokenizer: Tokenizer, name: str, prompt: str, tokens: Sequence[int], other: Sequence[int]
) -> str:
    """The card of a text; a frame marks where it parts from another one; either may end first."""
    pairs = zip_longest(tokens, other)
    parts = next((i for i, (mine, its) in enumerate(pairs) if mine != its), None)
    if parts is None:
        return card(tokenizer, name, prompt, tokens, {}, "the same text")
    note = f"parts after {parts} {unit(tokenizer)}s"
    return card(tokenizer, name, prompt, tokens, {parts: "parts"}, note)


def comparison(
    tokenizer: Tokenizer,
    prompt: str,
    whole: Sequence[int],
    without: Sequence[int] | None,
    names: Sequence[str],
) -> str:
    """One or two continuations; a frame marks where the second parts from the first."""
    end = tail(prompt)
    found = card(tokenizer, names[0], end, whole, {}, kind="yours")
    if without is not None:
        found += compared(tokenizer, names[1], end, without, whole)
    return f"<div class='cards'>{found}</div>"


def _marked(piece: str, kind: str) -> str:
    line_ends = piece[len(piece.rstrip("\n")) :]
    return f"<mark class='{kind}'>{shown(piece)}</mark>{line_ends}"
