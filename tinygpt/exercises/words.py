"""What a learner is told fits on a screen: lines of 100 columns, cut between words only."""

import textwrap
from collections.abc import Callable
from typing import Any

COLUMNS, ROWS = 100, 20
LONGEST = 60  # characters of a word; one without end, such as a row of digits, is cut with a `…`


def on_a_screen(text: str) -> str:
    """The text in lines that no window has to break; what is more than a screen becomes `…`."""
    lines: list[str] = []
    for paragraph in text.splitlines():
        lines += textwrap.wrap(_cut(paragraph, COLUMNS), COLUMNS, break_on_hyphens=False)
        if len(lines) > ROWS:
            return "\n".join([*lines[: ROWS - 1], "…"])
    return "\n".join(lines)


def in_one_line(text: str, width: int) -> str:
    """The first words of a text, as far as `width` characters go."""
    return textwrap.shorten(_cut(" ".join(text.split()), LONGEST), width, placeholder=" …")


def shown(value: Any, width: int = LONGEST) -> str:
    """A value as it stands in a message, also where its `repr` fails."""
    return in_one_line(attempt(lambda: repr(value), f"a {type(value).__name__}"), width)


def attempt(others: Callable[[], Any], otherwise: Any) -> Any:
    """What somebody else's code gives, whatever it may do instead."""
    try:
        return others()
    except BaseException:
        return otherwise


def _cut(text: str, longest: int) -> str:
    words = text.split(" ")
    return " ".join(w if len(w) <= longest else f"{w[: longest - 1]}…" for w in words)
