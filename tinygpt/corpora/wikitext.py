"""WikiText-2 (Merity et al. 2016, arXiv:1609.07843): good articles of the English Wikipedia."""

import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from ..errors import CorpusError
from ..hub import HubFile
from ..places import find, locate, shown
from ..textfiles import pieces
from .documents import Document, Note, Texts, combined_checksum, texts_of_files

LICENCE = "CC BY-SA 3.0"
REPOSITORY, COMMIT = "Salesforce/wikitext", "b08601e04326c79dfdd32d625aee71d232d685c3"
PARQUET = {
    "train": HubFile(
        REPOSITORY,
        COMMIT,
        "wikitext-2-raw-v1/train-00000-of-00001.parquet",
        size=6_357_543,
        sha256="e83889baabc497075506f91975be5fac0d45c5290b6b20582c8cd1e853d0c9f7",
        kind="dataset",
    ),
    "val": HubFile(
        REPOSITORY,
        COMMIT,
        "wikitext-2-raw-v1/validation-00000-of-00001.parquet",
        size=657_209,
        sha256="204929b7ff9d6184953f867dedb860e40aa69c078fc1e54b3baaa8fb28511c4c",
        kind="dataset",
    ),
    "test": HubFile(
        REPOSITORY,
        COMMIT,
        "wikitext-2-raw-v1/test-00000-of-00001.parquet",
        size=732_610,
        sha256="5f1bea067869d04849c0f975a2b29c4ff47d867f484f5010ea5e861eab246d91",
        kind="dataset",
    ),
}
TEXTS = {"train": "train.txt", "val": "valid.txt", "test": "test.txt"}
RARE = "<unk>"
TITLE = re.compile(r"^ \n = [^=\n]+ = \n \n", re.MULTILINE)  # in the tokenised form
WITHOUT = (
    "put train.txt, valid.txt and test.txt into data/wikitext-2, or go on with wikitext-2-valid, "
    "which trains on the validation text"
)


def wikitext() -> Texts:
    """All three splits: from the text files train.txt, valid.txt and test.txt, else from the hub.

    From there come 8 MB in the raw form, which take pyarrow to read.
    """
    if find("wikitext-2", TEXTS["train"]) is None:
        return _from_hub()
    paths = {split: _text(file) for split, file in TEXTS.items()}

    def read() -> Iterator[Document | Note]:
        return _documents({split: "".join(pieces(path)) for split, path in paths.items()})

    return texts_of_files(
        "wikitext-2", ", ".join(map(shown, paths.values())), LICENCE, paths.values(), read
    )


def wikitext_valid() -> Texts:
    """A small substitute: trained on the first nine tenths of the validation articles, validated on
    the last, tested on the test articles.
    """
    valid, test = (_text(TEXTS[split]) for split in ("val", "test"))

    def read() -> Iterator[Document | Note]:
        text = "".join(pieces(valid))
        starts = [match.start() for match in TITLE.finditer(text)]
        if len(starts) < 2:
            raise CorpusError(f"{valid} has no articles, which begin with lines like ' = Title = '")
        count = int(0.9 * len(starts))
        cut = starts[count]
        yield Note(
            f"trained on {count} of {len(starts)} validation articles: no figure is WikiText-2's"
        )
        parts = {"train": text[:cut], "val": text[cut:], "test": "".join(pieces(test))}
        yield from _documents(parts)

    return texts_of_files(
        "wikitext-2-valid", f"{shown(valid)}, {shown(test)}", LICENCE, [valid, test], read
    )


def _from_hub() -> Texts:

    def read() -> Iterator[Document | Note]:
        if find_spec("pyarrow") is None:
            raise CorpusError(
                f"WikiText-2's text for training comes in parquet files, which take pyarrow to "
                f"read: pip install pyarrow. Or {WITHOUT}"
            )
        return _documents({split: _rows(_located(file)) for split, file in PARQUET.items()})

    return Texts(
        "wikitext-2",
        f"{REPOSITORY}, wikitext-2-raw-v1, at {COMMIT[:7]} on the Hugging Face Hub",
        LICENCE,
        combined_checksum("wikitext-2", [file.sha256 for file in PARQUET.values()]),
        14_000_000,
        read,
        check=lambda: None,  # each file is checked when it is located
        slow=True,
    )


def _documents(texts: dict[str, str]) -> Iterator[Document | Note]:
    """Each split as one running text, as perplexities on it are usually measured.

    Those of the two forms, with and without rare words, are not comparable: `CorpusError` for a
    mixture.
    """
    forms = {RARE in text for text in texts.values()}
    if len(forms) > 1:
        raise CorpusError(
            f"the texts of WikiText-2 are of two forms, with {RARE} for rare words and without; "
            f"take all of one"
        )
    yield Note(f"tokenised form: {RARE} for rare words" if forms == {True} else "raw form")
    for split, text in texts.items():
        yield Document(split, [text])


def _text(file: str) -> Path:
    path = find("wikitext-2", file)
    if path is None:
        raise CorpusError(f"wikitext-2 has no {file} here: put it at data/wikitext-2/{file}")
    return path


def _rows(path: Path) -> str:
    """The lines of a parquet file, each a row with its line end."""
    from pyarrow import parquet

    return "".join(parquet.read_table(path, columns=["text"])["text"].to_pylist())


def _located(wanted: HubFile) -> Path:
    try:
        return locate("wikitext-2", wanted)
    except CorpusError as error:
        raise CorpusError(f"{error}; or {WITHOUT}") from error
