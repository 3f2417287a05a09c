"""How a notebook's outputs are compared: what is printed may differ by rounding, and no more.

nbval compares text for text. But the last digit of a sum depends on the processor, and the points
of a picture on the fonts: numbers may be one unit of their last printed digit apart, and pictures
are compared by their alternative text. A cell with the tag `tinyshakespeare` is compared where that
text is on this machine; elsewhere the notebooks go on with another.
"""

import re
from decimal import Decimal
from typing import Any

from tinygpt.places import find

TAG = "tinyshakespeare"
NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[-+]?\d+)?")
PICTURE = re.compile(r"data:image/png;base64,[A-Za-z0-9+/=]+")


def lenient(cell) -> None:
    """Let nbval compare this cell's outputs so."""
    exact = cell.compare_outputs

    def compare(found, printed, skip_compare=None) -> bool:
        if TAG in cell.cell.metadata.get("tags", ()) and not find("tinyshakespeare", "input.txt"):
            return True
        return exact(settled(found, printed), printed, skip_compare)

    cell.compare_outputs = compare


def settled(found: Any, printed: Any) -> Any:
    """What was found, with each text that is but rounding away from the printed one made equal."""
    if isinstance(found, str) and isinstance(printed, str):
        return printed if near(found, printed) else found
    if isinstance(found, dict) and isinstance(printed, dict):
        pairs = {key: settled(value, printed.get(key)) for key, value in found.items()}
        return type(found)(pairs)
    if isinstance(found, list) and isinstance(printed, list) and len(found) == len(printed):
        return [settled(*pair) for pair in zip(found, printed, strict=True)]
    return found


def near(found: str, printed: str) -> bool:
    """Whether two texts differ by nothing but the rounding of their numbers."""
    found, printed = (PICTURE.sub("PICTURE", text) for text in (found, printed))
    if _words(found) != _words(printed):
        return False
    numbers = zip(NUMBER.findall(found), NUMBER.findall(printed), strict=True)
    return all(_close(Decimal(a), Decimal(b)) for a, b in numbers)


def _words(text: str) -> list[str]:
    """What stands between the numbers; a column of them may be set one place further."""
    return [re.sub(r"[ \t-]+", " ", part) for part in NUMBER.split(text)]


def _close(a: Decimal, b: Decimal) -> bool:
    """One unit of the last digit apart, or less; whole numbers are equal."""
    last = min(a.as_tuple().exponent, b.as_tuple().exponent)
    return a == b if last >= 0 else abs(a - b) <= Decimal(1).scaleb(last)
