"""What Project Gutenberg puts around a book, and how one gets rid of it.

The marks are those that Project Gutenberg's own ebookmaker looks for; no title is ever matched,
since a mark may hold only a part of it.
"""

import re
from collections import Counter
from dataclasses import dataclass
from itertools import accumulate

LICENCE = 25_000  # letters outside the marks, at most: the licence; a tenth of the file besides
NOTES_SIZE = 3_000  # letters within the marks that may go as notes; a tenth of these besides
LEAST = 200  # letters of a book
EDGE = 60  # lines at both ends in which the notes of those who made the file are looked for
BACK = 200  # lines at the end in which a list of corrections may begin

GUTENBERG = r"PROJE[CK]TO?\s+GUTENBERG"
START = re.compile(rf"\*+ ?START\s+OF\s+TH(?:E|IS)\s+{GUTENBERG}", re.I)
SMALL_PRINT = re.compile(r"\*+ ?END\*? ?THE\s+SMALL\s+PRINT", re.I)
END = re.compile(
    rf"\*+ ?END\s+OF\s+(?:TH(?:E|IS)\s+)?{GUTENBERG}"
    r"|^\** ?(?:End\s+of\s+(?:(?:the|this)\s+)?|Fim\s+d[oe]\s+|Fin\s+de\s+|Ende\s+dieses\s+)"
    rf"{GUTENBERG}",
    re.I | re.M,
)
COPYRIGHTED = re.compile(rf"\bCOPYRIGHTED\s+{GUTENBERG}", re.I)
MAKERS = re.compile(
    r"^\W*(?:produced by|prepared by|e-?text prepared|this e-?text was|produzido por|"
    r"digitaliza[dç])|pgdp\.net|distributed proofread|biblioteca nacional|bn?d\.bn\.pt|purl\.pt|"
    r"a partir da digitaliza|imagens de obras em dom|de material em dom[ií]nio p|google book|"
    r"internet archive|-h\.(?:htm|zip)|html version|vers[aã]o html|character set encoding",
    re.I,
)
NOTES = re.compile(
    r"^\W*(?:notas? d[aeo]s? (?:transcri\w+|editor\w*)|transcriber'?s'? notes?|"
    r"lista de erros corrigidos|erratas? corrigidas?)",
    re.I,
)
PICTURE = re.compile(r"\[(?:Ilustra[çc][ãa]o|Illustra[çc][ãa]o|Illustration)[^\[\]]{0,500}\]", re.I)
NAMED = re.compile(rf"{GUTENBERG}|\bgutenberg\.(?:org|net)\b", re.I)


class Refused(ValueError):
    """A book of which nothing can be taken, and why."""


@dataclass(frozen=True)
class Stripped:
    """The text of a book, and how much of what was cut from within it."""

    text: str
    cut: dict[str, int]


def strip(raw: str) -> Stripped:
    """The book alone: what lies between the first start and the last end, without the notes of
    those who made the file, pictures' captions and further mentions of the licence.

    Raises `Refused` for a book under copyright, one without marks, and one of which too much goes.
    """
    if COPYRIGHTED.search(raw[:LICENCE]):
        raise Refused("it is under copyright")
    inner = _between(raw)
    cut: Counter[str] = Counter()
    paragraphs = _without_list(re.split(r"\n[ \t]*\n", inner), cut)
    text, pictures = PICTURE.subn("", "\n\n".join(_without_notes(paragraphs, cut)))
    cut["pictures"] += pictures
    text = re.sub(r"\n{4,}", "\n\n\n", text).strip() + "\n"
    _check_loss(len(raw), len(inner), LICENCE)
    _check_loss(len(inner), len(text), NOTES_SIZE)
    return Stripped(text, {what: count for what, count in cut.items() if count})


def _between(raw: str) -> str:
    """From after the first start to before the last end. In old files the licence comes first."""
    starts = [START.search(raw), SMALL_PRINT.search(raw, 0, LICENCE)]
    start = max(filter(None, starts), key=re.Match.start, default=None)
    if start is None:
        raise Refused("it has no mark where it starts")
    ends = [match for match in END.finditer(raw) if match.start() > start.end()]
    if not ends:
        raise Refused("it has no mark where it ends, so it may be cut off")
    last = ends[-1].start()
    return raw[_after_mark(raw, start.end()) : _first_of_last_marks(ends, last)]


def _after_mark(raw: str, place: int) -> int:
    """The end of the line in which a mark ends: at its asterisks, since a title may have lines."""
    closing = re.compile(r"\*+").search(raw, place, place + 500)
    line_end = raw.find("\n", closing.end() if closing else place)
    return len(raw) if line_end < 0 else line_end


def _first_of_last_marks(ends: list[re.Match], last: int) -> int:
    """Two ends often come one after the other, in words and with asterisks."""
    return min(match.start() for match in ends if match.start() > last - 500)


def _without_list(paragraphs: list[str], cut: Counter[str]) -> list[str]:
    """Without the list of corrections or notes, if one begins near the end."""
    lines = 0
    for i in reversed(range(len(paragraphs))):
        lines += paragraphs[i].count("\n") + 2
        if lines > BACK or i < len(paragraphs) / 2:
            break
        if NOTES.search(paragraphs[i]):
            cut["notes"] += len(paragraphs) - i
            return paragraphs[:i]
    return paragraphs


def _edges(paragraphs: list[str]) -> list[bool]:
    """Which paragraphs begin within the first or end within the last lines."""
    ends = list(accumulate(p.count("\n") + 2 for p in paragraphs))
    starts = [0, *ends[:-1]]
    total = ends[-1]
    return [s < EDGE or total - e < EDGE for s, e in zip(starts, ends, strict=True)]


def _without_notes(paragraphs: list[str], cut: Counter[str]) -> list[str]:
    """Without what is no part of the book, which is counted."""
    kept, heading = [], False
    for paragraph, edge in zip(paragraphs, _edges(paragraphs), strict=True):
        note = edge and (MAKERS.search(paragraph) or NOTES.search(paragraph))
        if NAMED.search(paragraph):
            cut["mentions of the licence"] += 1
        elif note or heading:
            cut["notes"] += 1
        else:
            kept.append(paragraph)
        # a heading alone belongs to what comes next
        heading = bool(note) and "\n" not in paragraph.strip() and bool(NOTES.search(paragraph))
    return kept


def _check_loss(before: int, after: int, usual: int) -> None:
    """What goes beyond the usual is a fault of the rules."""
    if after < LEAST or before - after > usual + before / 10:
        raise Refused(f"only {after:,} of {before:,} letters would be left")
