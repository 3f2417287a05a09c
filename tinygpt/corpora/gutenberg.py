"""Books in Portuguese from Project Gutenberg: fetched one by one, without hurry."""

import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from ..download import fetch_page
from ..errors import CorpusError
from ..files import alone, as_json, atomic_path, sha256, write_text
from ..places import folders, home
from ..progress import progress
from ..textfiles import guard
from .boilerplate import Refused, strip
from .catalogue import Book, newest_editions, read_catalogue, same_work
from .documents import Document, Note, Texts, combined_checksum
from .repair import decode, repair_if_hurt
from .splitting import arrange, profile

NAME, LANGUAGE, BOOKS = "gutenberg-pt", "pt", 100
SITE = "https://www.gutenberg.org"  # its catalogue is meant for programs,
MIRROR = "https://gutenberg.pglaf.org"  # its books are to be had from a mirror
FEED = "cache/epub/feeds/pg_catalog.csv.gz"
PAUSE = 2.0  # seconds between requests, as Project Gutenberg writes in its own commands
LARGEST = 64 << 20  # bytes of a file
SHARES = {"val": 0.05, "test": 0.05}
CATALOGUE, LIST = "pg_catalog.csv.gz", "books-{}.json"
RULES = 1  # to be counted up when other text is made of the same files


def gutenberg(limit: int | None = None) -> Texts:
    """The first books of the catalogue that are in Portuguese alone and have a text file.

    They are fetched into data/gutenberg-pt, where one goes on after a break. $TINYGPT_CONTACT, an
    address or a page, tells Project Gutenberg whom to write to; $TINYGPT_GUTENBERG names another
    mirror. Volumes of one work, and books that share most of their text, are in one split.
    """
    limit = BOOKS if limit is None else limit
    folder = _gathered(limit)
    sums = _listed(folder, limit)
    return Texts(
        f"gutenberg-pt:{limit}",
        f"{limit} books from Project Gutenberg",
        "public domain in the USA; elsewhere see to it yourself",
        combined_checksum("gutenberg-pt", RULES, sums),
        sum((folder / f"{number}.txt").stat().st_size for number in sums),
        lambda: _documents(folder, list(sums)),
        guard({folder / f"{number}.txt": before for number, before in sums.items()}),
        slow=True,
    )


def _gathered(limit: int) -> Path:
    """The folder that holds so many books; they are fetched if there is none."""
    for folder in folders(NAME):
        if _listed(folder, limit):
            return folder
    folder = home(NAME)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with alone(folder):
            if not _listed(folder, limit):  # nor has another process fetched them
                _gather(folder, limit)
    except OSError as error:
        raise CorpusError(f"could not write {folder}: {error}; make room there") from error
    finally:
        with suppress(OSError):  # there is something in it
            folder.rmdir()
    return folder


def _listed(folder: Path, limit: int) -> dict[str, str]:
    """The sha256 of each book, by its number, if all that were gathered are here, else nothing."""
    try:
        listed = json.loads((folder / LIST.format(limit)).read_text(encoding="utf-8"))
        found = {number: sha256(folder / f"{int(number)}.txt") for number in listed}
    except (OSError, ValueError, TypeError, RecursionError):
        return {}
    return found if found == listed else {}


def _gather(folder: Path, limit: int) -> None:
    """Fetch what is missing of the first `limit` books that can be used, and list them."""
    ask, found = _Visitor(), {}
    books = iter(newest_editions(_catalogue(folder, ask)))
    with progress(total=limit, unit="book", desc=NAME) as bar:
        while len(found) < limit and (book := next(books, None)):
            path = folder / f"{book.number}.txt"
            if not _is_fetched(book, path, ask):
                continue
            if refusal := _refusal(book, path):
                print(refusal, flush=True)
                continue
            found[str(book.number)] = sha256(path)
            bar.update()
    if len(found) < limit:
        raise CorpusError(
            f"the catalogue has {len(found)} books of this kind that can be had, fewer than {limit}"
        )
    write_text(folder / LIST.format(limit), as_json(found))


def _catalogue(folder: Path, ask: "_Visitor") -> list[Book]:
    path = folder / CATALOGUE
    if not path.is_file():
        try:
            _write(path, ask(SITE, FEED))
        except FileNotFoundError as error:
            raise CorpusError(f"{error}; is $TINYGPT_GUTENBERG a mirror with its feeds?") from error
    return read_catalogue(path, LANGUAGE)


def _is_fetched(book: Book, path: Path, ask: "_Visitor") -> bool:
    """Whether the book is here, fetched now or before. Some have no text file: that is noted."""
    none = path.with_suffix(".none")
    if path.is_file() or none.is_file():
        return path.is_file()
    for place in book.paths():
        with suppress(FileNotFoundError):
            _write(path, ask(MIRROR, place))
            return True
    _write(none, b"")
    return False


def _refusal(book: Book, path: Path) -> str:
    """Why a book cannot be used; nothing if it can."""
    try:
        strip(_text(path)[0])
    except Refused as reason:
        return f"{book.name} is not taken: {reason}"
    return ""


def _write(path: Path, content: bytes) -> None:
    with atomic_path(path) as new:
        new.write_bytes(content)


class _Visitor:
    """Asks for one file after the other, with a pause between them, and says who asks."""

    def __init__(self):
        self._mirror = os.environ.get("TINYGPT_GUTENBERG", "").rstrip("/")
        self._free = 0.0  # when the next request may be made

    def __call__(self, site: str, place: str) -> bytes:
        """The content of a file. `FileNotFoundError` if there is none, else `CorpusError`."""
        time.sleep(max(0.0, self._free - time.monotonic()))
        try:
            return fetch_page(f"{self._mirror or site}/{place}", LARGEST, self._agent)
        finally:
            self._free = time.monotonic() + PAUSE

    @cached_property
    def _agent(self) -> str:
        contact = os.environ.get("TINYGPT_CONTACT", "").strip()
        if not contact or not (contact.isascii() and contact.isprintable()):
            raise CorpusError(
                "Project Gutenberg wants to know whom to write to before a program takes its "
                "books: set the environment variable TINYGPT_CONTACT to your e-mail address or "
                f"web page (it is {contact!r}). What is fetched goes to no one else"
            )
        return f"tinygpt/0.1 (+{contact})"


# --- what is made of the files -------------------------------------------------------------------


def _text(path: Path) -> tuple[str, str, int]:
    """A book's file as text, its encoding, and how many letters of it had to be repaired."""
    text, encoding = decode(path.read_bytes())
    text, places = repair_if_hurt(text)
    return text, encoding, places


def _documents(folder: Path, numbers: list[str]) -> Iterator[Document | Note]:
    """The books alone, each in its split; and what was done to them."""
    listed = read_catalogue(folder / CATALOGUE, LANGUAGE)
    books = [book for book in listed if str(book.number) in numbers]
    done: Counter[str] = Counter()
    texts = {book.name: _stripped(folder / f"{book.number}.txt", done) for book in books}
    profiles = {name: profile(text) for name, text in texts.items()}
    volumes = [(a.name, b.name) for a, b in same_work(books)]
    split, notes = arrange(profiles, SHARES, volumes)
    if len(set(split.values())) < 3:
        raise CorpusError(f"{len(books)} books are too few for three splits; take more")
    yield from (Document(where, [texts[name]]) for name, where in split.items())
    yield from notes
    yield from (Note(f"{what}: {count:,}") for what, count in sorted(done.items()))
    for book in (book for book in listed if book.number < max(map(int, numbers))):
        path = folder / f"{book.number}.txt"
        if path.is_file() and (refusal := _refusal(book, path)):
            yield Note(refusal)


def _stripped(path: Path, done: Counter[str]) -> str:
    text, encoding, repaired = _text(path)
    book = strip(text)
    done.update({f"removed: {what}": count for what, count in book.cut.items()})
    done[f"books in {encoding}"] += 1
    if repaired:
        done["repaired letters"] += repaired
    return book.text
