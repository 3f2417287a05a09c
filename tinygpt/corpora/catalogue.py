"""Project Gutenberg's catalogue: which books there are in a language, and where they lie."""

import csv
import gzip
import re
import unicodedata
import zlib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from ..errors import CorpusError

COLUMNS = {"Text#", "Type", "Issued", "Title", "Language", "Authors"}
VOLUME = re.compile(r"\b(volumes?|vol|tomos?|partes?)\b.*|\b[ivxlc\d]+$")


@dataclass(frozen=True)
class Book:
    """A row of the catalogue. `issued` is the day of its release there, as 2004-05-31."""

    number: int
    title: str
    authors: str
    issued: str

    @property
    def name(self) -> str:
        """How it is called in messages."""
        return f"{self.number} ({' '.join(self.title.split())})"

    @property
    def edition(self) -> tuple[str, str]:
        """The same for two releases of one text: author's surname and whole title."""
        return _plain(self.authors.split(",")[0]), _plain(self.title)

    @property
    def work(self) -> tuple[str, str]:
        """The same for all volumes of one work: without subtitle and number."""
        title = _plain(re.split(r"[:;(\n]", self.title)[0])
        return self.edition[0], VOLUME.sub("", title).strip() or title

    def paths(self) -> list[str]:
        """Where its text may be on a mirror, the newest form first; it need not have any."""
        number = str(self.number)
        folder = "/".join([*(number[:-1] or "0"), number, number])
        return [
            f"cache/epub/{number}/pg{number}.txt",
            *(f"{folder}{s}.txt" for s in ("-0", "-8", "")),
        ]


def read_catalogue(path: Path, language: str) -> list[Book]:
    """The texts in this language and no other, by number. `CorpusError` if it is no catalogue."""
    try:
        with gzip.open(path, "rt", encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            if not set(rows.fieldnames or []) >= COLUMNS:
                raise ValueError(f"its columns are {rows.fieldnames}")
            found = [_book(row) for row in rows if _is_wanted(row, language)]
    except (OSError, EOFError, zlib.error, ValueError, csv.Error) as error:
        raise CorpusError(
            f"{path} is no catalogue of Project Gutenberg: {error}. Delete it, and it is fetched "
            f"again"
        ) from error
    return sorted(found, key=lambda book: book.number)


def newest_editions(books: list[Book]) -> list[Book]:
    """Of books with one author and title, that which was released last."""
    newest: dict[tuple[str, str], Book] = {}
    for book in sorted(books, key=lambda book: (book.issued, book.number)):
        newest[book.edition] = book
    return [book for book in books if newest[book.edition] is book]


def same_work(books: list[Book]) -> list[tuple[Book, Book]]:
    """Pairs of volumes of one work."""
    works = defaultdict(list)
    for book in books:
        works[book.work].append(book)
    return [(volumes[0], other) for volumes in works.values() for other in volumes[1:]]


def _is_wanted(row: dict[str, str], language: str) -> bool:
    return row["Type"] == "Text" and row["Language"] == language and row["Text#"].isdecimal()


def _book(row: dict[str, str]) -> Book:
    return Book(int(row["Text#"]), row["Title"], row["Authors"], row["Issued"])


def _plain(text: str) -> str:
    """Lower case, without accents and punctuation."""
    letters = unicodedata.normalize("NFKD", text.lower())
    return " ".join(re.findall(r"\w+", "".join(c for c in letters if not unicodedata.combining(c))))
