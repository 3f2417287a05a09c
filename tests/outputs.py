"""How a notebook's outputs are compared: what is printed may differ by rounding, and no more.

nbval compares text for text. But the last digit of a sum depends on the processor, and the points
of a picture on the fonts: numbers may be one unit of their last printed digit apart, and pictures
are compared by their alternative text. A cell with the tag `tinyshakespeare` is compared where that
text is on this machine; elsewhere the notebooks go on with another. Where rounding can change which
character is drawn, the tag `tolerance-N` lets what is measured on such texts differ by N per cent.
"""

import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from tinygpt.places import find

TAG = "tinyshakespeare"
TOLERANCE = "tolerance-"
NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?: ?%)?")
PICTURE = re.compile(r"data:image/png;base64,[A-Za-z0-9+/=]+")


def lenient(cell) -> None:
    """Let nbval compare this cell's outputs so."""
    exact = cell.compare_outputs

    def compare(found, printed, skip_compare=None) -> bool:
        tags = cell.cell.metadata.get("tags", ())
        if TAG in tags and not find("tinyshakespeare", "input.txt"):
            return True
        return exact(settled(found, printed, tolerance(tags)), printed, skip_compare)

    cell.compare_outputs = compare


def tolerance(tags: Iterable[str]) -> Decimal:
    """The per cent of a tag `tolerance-N`, 0 without one."""
    named = [tag.removeprefix(TOLERANCE) for tag in tags if tag.startswith(TOLERANCE)]
    return Decimal(named[0]) if named else Decimal(0)


def settled(found: Any, printed: Any, percent: Decimal = Decimal(0)) -> Any:
    """What was found, with each text that is but rounding away from the printed one made equal."""
    if isinstance(found, str) and isinstance(printed, str):
        return printed if near(found, printed, percent) else found
    if isinstance(found, dict) and isinstance(printed, dict):
        pairs = {key: settled(value, printed.get(key), percent) for key, value in found.items()}
        return type(found)(pairs)
    if isinstance(found, list) and isinstance(printed, list) and len(found) == len(printed):
        return [settled(*pair, percent) for pair in zip(found, printed, strict=True)]
    return found


def near(found: str, printed: str, percent: Decimal = Decimal(0)) -> bool:
    """Whether two texts differ by the rounding of their numbers alone, or by some per cent."""
    found, printed = (PICTURE.sub("PICTURE", text) for text in (found, printed))
    if _words(found) != _words(printed):
        return False
    numbers = zip(NUMBER.findall(found), NUMBER.findall(printed), strict=True)
    return all(_close(*pair, percent) for pair in numbers)


def _words(text: str) -> list[str]:
    """What stands between the numbers; a column of them may be set one place further."""
    return [re.sub(r"[ \t-]+", " ", part) for part in NUMBER.split(text)]


def _close(found: str, printed: str, percent: Decimal) -> bool:
    """One unit of the last digit apart, or less; whole numbers, but for per cents, are equal."""
    a, b = (Decimal(number.rstrip(" %")) for number in (found, printed))
    last = min(a.as_tuple().exponent, b.as_tuple().exponent)
    unit = Decimal(1).scaleb(last) if last < 0 or found.endswith("%") else Decimal(0)
    return abs(a - b) <= max(unit, abs(b) * percent / 100)
