"""Text files, read piece by piece, with errors that say what to do."""

import codecs
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from .errors import CorpusError
from .files import sha256

PIECE = 1 << 22  # characters


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn the errors of a text that cannot be read into one that says what to do."""
    try:
        yield
    except UnicodeDecodeError as error:
        where = f"{error.reason} at byte {_first_wrong_byte(path)}"
        raise CorpusError(f"{path} is not UTF-8 text: {where}. Save it as UTF-8") from error
    except OSError as error:
        raise CorpusError(f"{path} cannot be read: {error.strerror or error}") from error


def pieces(path: Path) -> Iterator[str]:
    """A UTF-8 text, without a byte-order mark and with Windows line ends made "\\n".

    `CorpusError` for a file in which there is nothing to learn from, when its end is reached.
    """
    empty = white = True
    with reading(path), open(path, encoding="utf-8-sig") as file:
        while piece := file.read(PIECE):
            if "\0" in piece:
                raise CorpusError(
                    f"{path} holds NUL characters, so it is no text, or one in UTF-16; save it as "
                    f"UTF-8"
                )
            empty, white = False, white and not piece.strip()
            yield piece
    if white:
        what = "is empty" if empty else "holds only white space"
        raise CorpusError(f"{path} {what}; there is nothing to learn from")


def is_there(path: Path) -> bool:
    """Whether it is a file. `CorpusError` if that cannot be seen."""
    with reading(path):
        return path.is_file()


def length(path: Path) -> int:
    """Bytes of a file."""
    with reading(path):
        return path.stat().st_size


def checksum(path: Path) -> str:
    """SHA-256 of a file. `CorpusError` if it cannot be read."""
    with reading(path):
        return sha256(path)


def guard(sums: Mapping[Path, str]) -> Callable[[], None]:
    """A function that raises `CorpusError` if a file's SHA-256 is not the one given here."""

    def check() -> None:
        for path, before in sums.items():
            if checksum(path) != before:
                raise CorpusError(f"{path} is another text than when it was loaded; load it again")

    return check


def _first_wrong_byte(path: Path) -> int:
    """Counted from the start of the file; the decoder's error counts from the piece it is in."""
    decoder, before = codecs.getincrementaldecoder("utf-8")(), 0
    with open(path, "rb") as file:
        while piece := file.read(PIECE):
            begun = len(decoder.getstate()[0])  # bytes of a character that has not ended
            try:
                decoder.decode(piece)
            except UnicodeDecodeError as error:
                return before - begun + error.start
            before += len(piece)
    return before  # within a character
