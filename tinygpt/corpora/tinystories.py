"""TinyStories (Eldan and Li 2023, arXiv:2305.07759): stories in the words of a small child."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from ..errors import CorpusError
from ..hub import HubFile
from ..places import find, locate, shown
from ..text import END_OF_TEXT
from ..textfiles import pieces
from .documents import UNDIVIDED, Document, Note, Texts, combined_checksum, texts_of_files
from .repair import repair

LICENCE = "CDLA-Sharing-1.0"
REPOSITORY, COMMIT = "roneneldan/TinyStories", "f54c09fd23315a6f9c86f9dc80f725de7d8f9c64"
TRAIN = HubFile(
    REPOSITORY,
    COMMIT,
    "TinyStories-train.txt",
    size=1_924_281_556,
    sha256="c5cf5e22ff13614e830afbe61a99fbcbe8bcb7dd72252b989fa1117a368d401f",
    kind="dataset",
)
VALID = HubFile(
    REPOSITORY,
    COMMIT,
    "TinyStories-valid.txt",
    size=19_447_282,
    sha256="94e431816c4cce81ff71e4408ff8d3bda9a42e8d2663986697c3954288cb38b4",
    kind="dataset",
)
SAMPLE = "sample.txt"
STORY = 900  # bytes, on average
SEEN = 1 << 20  # characters by which the form of a file is known


def tinystories(limit: int | None = None) -> Texts:
    """The stories of the data set's two text files; of the one for training the first `limit`.

    2 GB are downloaded. The stories are told apart by the marks between them.
    """

    def read() -> Iterator[Document | Note]:
        train, valid = _located(TRAIN), _located(VALID)
        yield from _documents(train, "train", limit)
        yield from _documents(valid, "val", None)

    return Texts(
        "tinystories" if limit is None else f"tinystories:{limit}",
        f"{REPOSITORY} at {COMMIT[:7]} on the Hugging Face Hub",
        LICENCE,
        combined_checksum("tinystories", limit, TRAIN.sha256, VALID.sha256),
        (TRAIN.size if limit is None else min(TRAIN.size, limit * STORY)) + VALID.size,
        read,
        check=lambda: None,  # each file is checked when it is located
    )


def tinystories_sample() -> Texts:
    """The beginning of the data set, put by hand at tinystories/sample.txt: to try things out."""
    path = find("tinystories", SAMPLE)
    if path is None:
        raise CorpusError(
            f"there is no {SAMPLE}: put some TinyStories at data/tinystories/{SAMPLE}, or take the "
            f"whole data set, load_corpus('tinystories')"
        )
    source = f"{shown(path)}, a small sample of TinyStories"
    return texts_of_files("tinystories-sample", source, LICENCE, [path], lambda: _sampled(path))


def stories(path: Path) -> Iterator[str]:
    """The stories of a file, told apart by the marks between them, or one in quotes on each line.

    Blank lines are within stories, so they tell nothing: `CorpusError` for a file without marks.
    """
    form = _form(path)
    if form == "running":
        raise CorpusError(
            f"{path} has no {END_OF_TEXT} between its stories (none in {SEEN:,} characters), so "
            f"they cannot be told apart; take a copy that has them"
        )
    found = _divided(path, END_OF_TEXT) if form == "marked" else _quoted(path)
    return filter(None, map(str.strip, found))


def _form(path: Path) -> str:
    """How the stories of a file are told apart: "marked", "quoted", or not at all, "running"."""
    start = "".join(islice(pieces(path), 1))[:SEEN]
    if END_OF_TEXT in start:
        return "marked"
    lines = [line for line in start.split("\n")[:-1] if line]
    quoted = bool(lines) and all(len(x) > 1 and x[0] == x[-1] == '"' for x in lines)
    return "quoted" if quoted else "running"


def _quoted(path: Path) -> Iterator[str]:
    for line in _divided(path, "\n"):
        yield line.strip()[1:-1].replace('""', '"')


def _divided(path: Path, mark: str) -> Iterator[str]:
    """What lies between the marks of a file, read piece by piece."""
    rest = ""
    for piece in pieces(path):
        *whole, rest = (rest + piece).split(mark)
        yield from whole
    yield rest


def _documents(path: Path, split: str, limit: int | None) -> Iterator[Document | Note]:
    count = places = 0
    for story in islice(stories(path), limit):
        text, repaired = repair(story)
        count, places = count + 1, places + repaired
        yield Document(split, [text])
    if limit is not None and count < limit:
        yield Note(f"{limit:,} stories were asked for, there are {count:,}")
    yield Note(f"{path.name}: {count:,} stories{_repairs(places)}")


def _sampled(path: Path) -> Iterator[Document | Note]:
    """The last tenth is for validation: of the stories or, if these are not told apart, of all."""
    if _form(path) == "running":
        text, places = repair("".join(pieces(path)))
        yield Document(UNDIVIDED, [text])
        yield Note(
            f"{path.name} has no marks between its stories: they cannot be told apart, and are "
            f"taken as one running text{_repairs(places)}"
        )
        return
    *found, note = _documents(path, "train", None)
    cut = int(0.9 * len(found))
    yield from found[:cut]
    yield from (document._replace(split="val") for document in found[cut:])
    yield note


def _repairs(places: int) -> str:
    return f"; {places:,} places of broken encoding repaired" if places else ""


def _located(wanted: HubFile) -> Path:
    try:
        return locate("tinystories", wanted)
    except CorpusError as error:
        if find("tinystories", SAMPLE) is None:
            raise
        raise CorpusError(f"{error}. A small sample is here: tinystories-sample") from error
