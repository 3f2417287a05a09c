"""The rooms of the package as README's table lists them, and a picture of them.

`python -m tests.architecture` draws imgs/architecture.svg anew, from the table and from what the
rooms import: floors in reading order, where a new one begins with each room that needs one of the
floor so far. tests/test_project.py holds that the picture is what is drawn here.
"""

import ast
import re
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from tinygpt.files import ROOT

PACKAGE, PICTURE = ROOT / "tinygpt", ROOT / "imgs" / "architecture.svg"

# --- rooms, files and imports --------------------------------------------------------------------


@dataclass(frozen=True)
class Room:
    """A folder with its files in reading order, or a single file (`files` is empty)."""

    name: str
    subject: str
    files: tuple[str, ...]


def rooms() -> list[Room]:
    """README's table from its first row to its last; several single files may share a row."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = readme[readme.index("| room | what lives there") :].split("\n\n")[0]
    found = []
    for row in table.splitlines()[2:]:
        _, names, subject, files, _ = row.split("|")
        names, files = re.findall(r"`(\w+)`", names), tuple(re.findall(r"`(\w+)`", files))
        subjects = subject.strip().split("; ") if len(names) > 1 else [subject.strip()]
        found += [Room(name, text, files) for name, text in zip(names, subjects, strict=True)]
    return found


def reading_order() -> list[str]:
    """All modules in the order of the table, as `room.file` or, for a single file, `room`."""
    return [
        name
        for room in rooms()
        for name in ([f"{room.name}.{file}" for file in room.files] or [room.name])
    ]


def modules() -> dict[str, Path]:
    """The path of each module, by its name as in `reading_order`."""
    paths = [path for path in PACKAGE.rglob("*.py") if not path.stem.startswith("__")]
    return {".".join(p.relative_to(PACKAGE).with_suffix("").parts): p for p in paths}


def imports(path: Path) -> set[str]:
    """The modules and rooms that a file of the package imports, wherever in it."""
    found, here = set(), path.relative_to(PACKAGE).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            start = here[: len(here) + 1 - node.level]
            # `from .x import y` names the module x, `from . import x` does, too
            names = [node.module] if node.module else [alias.name for alias in node.names]
            found |= {".".join([*start, name]) for name in names}
    return found


def room_imports() -> dict[str, set[str]]:
    """The other rooms that the files of each room import."""
    found: dict[str, set[str]] = {}
    for name, path in modules().items():
        room = name.split(".")[0]
        found.setdefault(room, set()).update(other.split(".")[0] for other in imports(path))
    return {room: others - {room} for room, others in found.items()}


# --- the picture ---------------------------------------------------------------------------------

SANS = "system-ui, 'Segoe UI', Helvetica, Arial, sans-serif"
MONO = "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace"
WIDTH, LEFT, RIGHT, TOP = 800, 86, 772, 78  # of the picture, and where the floors are in it
PAD, GAP, STOREY = 14, 12, 18  # inside a box, between boxes, between floors
LETTER = {13: 7.9, 14: 8.2, 16: 9.7}  # widths by font size: code of any, prose of most fonts
LINE = 19
GREY = ("#F0F1F1", "#7B8791")
COLOURS = {  # fill and edge, as in the other pictures: text is blue, the model green
    "model": ("#DFF3EB", "#009E73"),
    "text": ("#E2EFF8", "#0072B2"),
    "decoding": ("#E6F4FC", "#56B4E9"),
    "measure": ("#FDF1D9", "#E69F00"),
    "training": ("#F8EAF2", "#CC79A7"),
    "plots": ("#FBE7DA", "#D55E00"),
    "widgets": ("#FBE7DA", "#D55E00"),
}


def wrapped(words: str, size: int, width: float) -> list[str]:
    letters = int((width - 2 * PAD) / LETTER[size])
    return textwrap.wrap(words, letters, break_long_words=False, break_on_hyphens=False)


def lines(room: Room, width: float) -> tuple[list[str], list[str]]:
    """What lives in a room, and its files, broken into lines that fit a box."""
    return wrapped(room.subject, 14, width), wrapped("  ".join(room.files), 13, width)


def height(room: Room, width: float) -> float:
    prose, files = lines(room, width)
    return 2 * PAD + 16 + LINE * (len(prose) + len(files)) + (8 if files else 2)


def narrowest(room: Room) -> float:
    """The width that the longest of a room's words needs, but no mere strip."""
    words = [(room.name, 16), *((w, 14) for w in room.subject.split())]
    words += [(file, 13) for file in room.files]
    return max(130.0, 2 * PAD + max(len(word) * LETTER[size] for word, size in words))


def widths(floor: list[Room]) -> list[float]:
    """Widths that fill a floor: what there is to give goes to the room that is tallest."""
    found = [narrowest(room) for room in floor]
    left = RIGHT - LEFT - GAP * (len(floor) - 1) - sum(found)
    while left > 0:
        tallest = max(range(len(floor)), key=lambda i: (height(floor[i], found[i]), -found[i]))
        found[tallest] += min(2, left)
        left -= 2
    return found


def floors() -> list[list[Room]]:
    """Rooms in reading order, side by side while there is space and none needs a neighbour."""
    found, needed = [[]], room_imports()
    for room in rooms():
        full = sum(map(narrowest, [*found[-1], room])) + GAP * len(found[-1]) > RIGHT - LEFT
        if full or needed[room.name] & {neighbour.name for neighbour in found[-1]}:
            found.append([])
        found[-1].append(room)
    return found


def text(x: float, y: float, words: str, size: int, style: str = "") -> str:
    place = f'x="{x:g}" y="{y:g}" font-size="{size}" xml:space="preserve"'
    return f"<text {place}{style}>{escape(words)}</text>"


def box(room: Room, x: float, y: float, width: float, tall: float) -> Iterable[str]:
    fill, edge = COLOURS.get(room.name, GREY)
    yield (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{tall:g}" rx="10" '
        f'fill="{fill}" stroke="{edge}" stroke-width="2"/>'
    )
    x, y = x + PAD, y + PAD + 13
    yield text(x, y, room.name, 16, f' font-weight="700" font-family="{MONO}"')
    prose, files = lines(room, width)
    y += 2
    for line in prose:
        y += LINE
        yield text(x, y, line, 14)
    y += 6
    for line in files:
        y += LINE
        yield text(x, y, line, 13, f' fill="#56616B" font-family="{MONO}"')


def storey(number: int, floor: list[Room], y: float, tall: float) -> Iterable[str]:
    middle = y + tall / 2
    ring = 'r="17" fill="#FFFFFF" stroke="#0072B2" stroke-width="3"'
    yield f'<circle cx="44" cy="{middle:g}" {ring}/>'
    yield text(44, middle + 5.5, str(number), 16, ' text-anchor="middle" font-weight="700"')
    x = LEFT
    for room, width in zip(floor, widths(floor), strict=True):
        yield from box(room, x, y, width, tall)
        x += width + GAP


def described(plan: list[list[Room]]) -> str:
    """The picture in words, for who cannot see it."""
    told = [
        f"Floor {i}: " + "; ".join(f"{room.name}, {room.subject}" for room in floor)
        for i, floor in enumerate(plan, start=1)
    ]
    return f"Rooms on {len(plan)} floors, read from the top. {'. '.join(told)}."


def frame(plan: list[list[Room]], end: float) -> Iterable[str]:
    """The sheet, its heading, and the line along which the floors are read, down to `end`."""
    tall = end + 28
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {tall:g}" width="{WIDTH}" '
        f'height="{tall:g}" role="img" aria-labelledby="architecture-title architecture-desc" '
        f'font-family="{SANS}" font-size="14" fill="#1F2A33">'
    )
    yield '<title id="architecture-title">The rooms of the package</title>'
    yield f'<desc id="architecture-desc">{escape(described(plan))}</desc>'
    yield (
        f'<rect x="1" y="1" width="{WIDTH - 2}" height="{tall - 2:g}" rx="18" fill="#FCFCFA" '
        f'stroke="#DFE1DD" stroke-width="1.5"/>'
    )
    yield (
        '<text x="28" y="44" font-size="18"><tspan font-weight="600">The package, from the top '
        'down</tspan><tspan dx="12" font-size="14" fill="#56616B">a room imports only from the '
        "floors above its own</tspan></text>"
    )
    yield (
        f'<path d="M44 {TOP + 8}V{end:g}" stroke="#BBDDF0" stroke-width="8" '
        f'stroke-linecap="round"/>'
    )
    yield f'<path d="M44 {end + 14:g}L30 {end - 8:g}H58Z" fill="#BBDDF0"/>'


def picture() -> str:
    """What imgs/architecture.svg has to hold: a box per room, floor under floor."""
    plan, y, drawn = floors(), TOP, []
    for number, floor in enumerate(plan, start=1):
        tall = max(map(height, floor, widths(floor)))
        drawn += storey(number, floor, y, tall)
        y += tall + STOREY
    return "\n".join([*frame(plan, y), *drawn, "</svg>"]) + "\n"


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8", newline="\n")
