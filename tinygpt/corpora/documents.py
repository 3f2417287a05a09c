"""What a corpus is made of before it becomes tokens: documents, each in its split."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ..textfiles import checksum, guard, length

UNDIVIDED = "all"  # of a text without documents: its tokens are divided, not its documents


class Document(NamedTuple):
    """A text in pieces, which are one text when joined, and the split that it is in.

    A mark follows it where documents are joined, unless it is one running text (`UNDIVIDED`).
    """

    split: str
    pieces: Iterable[str]


class Note(str):
    """A sentence on what was found in the texts, or done to them."""

    __slots__ = ()


@dataclass(frozen=True)
class Texts:
    """The documents of a corpus, to be read as often as needed, with what is known of them.

    `checksum` is that of all that they are made of; `check` raises `CorpusError` if that has
    changed. `size` is their length in bytes, nearly. `slow`: to make the documents takes so long
    that their tokens are worth keeping on disk.
    """

    name: str
    source: str
    licence: str
    checksum: str
    size: int
    read: Callable[[], Iterator[Document | Note]]  # train before val before test
    check: Callable[[], None]
    slow: bool = False


def texts_of_files(
    name: str,
    source: str,
    licence: str,
    paths: Iterable[Path],
    read: Callable[[], Iterator[Document | Note]],
) -> Texts:
    """The texts that `read` makes of these files, as they are now."""
    sums = {path: checksum(path) for path in paths}
    combined = combined_checksum(name, list(sums.values()))
    return Texts(name, source, licence, combined, sum(map(length, sums)), read, guard(sums))


def combined_checksum(*parts: object) -> str:
    """SHA-256 of several things that `str` tells apart."""
    return hashlib.sha256("\n".join(map(repr, parts)).encode()).hexdigest()
