"""Texts whose encoding has suffered: bytes of an unknown kind, and UTF-8 read as something else."""

import re

# the bytes 0x80 to 0xBF as ISO-8859-1 and Windows-1252 show them; the latter lacks five
_SHOWN = {chr(b): b for b in range(0x80, 0xC0)}
_SHOWN |= {bytes([b]).decode("cp1252", "ignore") or chr(b): b for b in range(0x80, 0xC0)}
_FIRST = {"Â": 0xC2, "Ã": 0xC3, "â": 0xE2}
_NEXT = "[{}]".format("".join(map(re.escape, _SHOWN)))
_CURLY = re.compile(f"â[€\x80]({_NEXT})?")
_PAIR = re.compile(f"[ÂÃ]{_NEXT}")
_DAMAGE = re.compile("Ã[£§©¡\u00adª³ºµ¢¨´\u00a0]")
_LETTERS = re.compile("[ãõçáéíóúâêôà]", re.IGNORECASE)


def decode(content: bytes) -> tuple[str, str]:
    """A text of unknown encoding, and the name of that; line ends become "\\n".

    UTF-8 if it is that, with or without a mark, else Windows-1252, else ISO-8859-1: what files
    say of themselves, and what servers say of them, is often wrong.
    """
    for encoding in ("utf-8-sig", "cp1252", "iso-8859-1"):
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        return text.replace("\r\n", "\n").replace("\r", "\n"), encoding
    raise AssertionError("ISO-8859-1 has a character for every byte")


def repair(text: str) -> tuple[str, int]:
    """UTF-8 that was once read as Windows-1252, made good; and in how many places.

    `â€œ` becomes `“`, `Ã©` becomes `é`. A quotation mark whose last byte was lost on the way, a
    bare `â€`, becomes `”`. For English: in Portuguese `IRMû` can be meant, see `repair_if_hurt`.
    """
    text, curly = _CURLY.subn(_quotation, text)
    text, pairs = _PAIR.subn(lambda m: _decoded(m[0]), text)
    return text, curly + pairs


def repair_if_hurt(text: str) -> tuple[str, int]:
    """`repair` a text in any language, if damaged letters in it outnumber sound ones."""
    damaged = len(_DAMAGE.findall(text))
    return repair(text) if damaged > len(_LETTERS.findall(text)) - damaged else (text, 0)


def _quotation(match: re.Match) -> str:
    return _decoded(match[0]) if match[1] else "”"


def _decoded(shown: str) -> str:
    return bytes(_FIRST.get(c) or _SHOWN[c] for c in shown).decode()
