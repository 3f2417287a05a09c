"""Widgets as pages: one HTML file that moves without Python and asks no other machine for anything.

What a page shows is either computed by its own script, as the playground's filters are, or looked
up among states that were drawn beforehand, one for each setting of its dials.
"""

import base64
import gzip
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import product
from math import prod
from pathlib import Path

from ..errors import ConfigError
from ..files import atomic_path
from ..progress import progress
from .frame import STYLE, safe

FEW = 50  # states that are drawn at once
LARGEST = 300_000_000  # characters of all states
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
NOTE = "(Drawn beforehand: a text or model of your own needs the notebook.)"
LOOKS = """<style>
body { margin:0 auto; padding:8px 12px 24px; max-width:1200px; color:#222; background:#fff;
  font:14px/1.45 system-ui, sans-serif }
h1 { font-size:18px; margin:6px 0 }
body > p { margin:0 0 8px; max-width:60em }
.dials { position:sticky; top:0; z-index:2; background:#fff; padding:4px 0 6px; display:grid;
  gap:2px 18px; grid-template-columns:repeat(auto-fit,minmax(250px,1fr)) }
.dials label { display:flex; gap:8px; align-items:center; min-height:28px }
.dials span { flex:0 0 6.5em; text-align:right }
.dials input, .dials select { flex:1 1 auto; min-width:0; font:inherit }
.dials output { flex:0 0 3.2em; font-variant-numeric:tabular-nums }
.views { display:flex; flex-wrap:wrap; gap:8px; margin-top:6px }
.views > div { flex:1 1 520px; min-width:min(100%,300px); overflow-x:auto }
.views .cards { grid-template-columns:repeat(auto-fit,minmax(min(190px,100%),1fr)) }
@media (max-width:700px), (max-height:600px) { .dials { position:static } }
.views .tg { margin:0; min-height:100%; box-sizing:border-box }
</style>"""


@dataclass(frozen=True)
class Dial:
    """A control of a page, with a name for each of its places."""

    label: str
    places: Sequence[str]
    start: int = 0
    slides: bool = False  # a slider, else a menu


@dataclass(frozen=True)
class View:
    """A part of a page that follows some dials, numbered from 0; `draw` takes their places."""

    dials: tuple[int, ...]
    draw: Callable[..., str]


def states_page(path: Path, about: str, style: str, parts: "Parts") -> Path:
    """Write a page that looks up what to show: each view in each place of its dials."""
    dials, views = parts
    drawn: dict[str, int] = {}  # each HTML once, with its number
    found, size = [], 0
    counts = [prod(len(dials[i].places) for i in view.dials) for view in views]
    bar = progress(total=sum(counts), unit="state", disable=sum(counts) < FEW)
    for view in views:
        states = {}
        for places in product(*(range(len(dials[i].places)) for i in view.dials)):
            content = view.draw(*places)
            bar.update()
            size += 0 if content in drawn else len(content)
            check_size(size)
            states[",".join(map(str, places))] = drawn.setdefault(content, len(drawn))
        found.append({"dials": view.dials, "states": states})
    bar.close()
    settings = [
        {"label": d.label, "places": list(d.places), "start": d.start, "slides": d.slides}
        for d in dials
    ]
    data = {"dials": settings, "views": found, "drawn": list(drawn)}
    return write_page(path, about, style, "states.js", data)


Parts = tuple[Sequence[Dial], Sequence[View]]


def write_page(path: Path, about: str, style: str, script: str, data: dict) -> Path:
    """Write one HTML file with data and the script that shows them; gives its path.

    `about` is its title, a colon and a sentence.
    """
    here, (name, words) = resources.files(__package__), about.split(": ", 1)
    packed = gzip.compress(json.dumps(data, ensure_ascii=False).encode(), mtime=0)
    scripts = (here / "page.js").read_text("utf-8") + (here / script).read_text("utf-8")
    content = (
        f"<!doctype html>\n<html lang='en'><head><meta charset='utf-8'><title>{safe(name)}</title>"
        f"<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">{STYLE}{style}{LOOKS}'
        f"</head><body><h1>{safe(name)}</h1><p>{safe(words[:1].upper() + words[1:])} {NOTE}</p>"
        f"<div class='dials'></div><div class='views' aria-live='polite'></div>"
        f"<noscript>What moves here needs JavaScript.</noscript>"
        f"<script type='application/octet-stream' id='data'>{base64.b64encode(packed).decode()}"
        f"</script>\n<script>\n{scripts}</script></body></html>\n"
    )
    with atomic_path(path) as new:
        new.write_text(content, encoding="utf-8", newline="\n")
    return path


def check_size(characters: int) -> None:
    """Raise `ConfigError` if a page would hold more than a telephone can."""
    if characters > LARGEST:
        raise ConfigError(
            f"the page would hold {characters / 1e6:,.0f} million characters, more than "
            f"{LARGEST / 1e6:,.0f}; take a shorter text or a smaller model"
        )
