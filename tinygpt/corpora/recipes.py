"""What makes the tokenizer of a corpus: it may be given, or be made from the corpus's texts."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..text import TRAINED, Tokenizer, tokenizer_maker
from .documents import UNDIVIDED, Note, Texts
from .encoding import alphabet

TRAIN_SHARE = 0.9  # of a text that is not divided into documents
MOST = 100_000_000  # characters that a tokenizer is trained on


@dataclass(frozen=True)
class Recipe:
    """How a tokenizer is made of texts. `key` tells recipes apart in names of files; `fingerprint`
    is the tokenizer's where it is known beforehand.
    """

    key: str
    make: Callable[[Texts], Tokenizer]
    fingerprint: str | None = None


def recipe(tokenizer: Tokenizer | str | None) -> Recipe:
    """That of a tokenizer, of a name (see `make_tokenizer`), or without either of characters.

    `ConfigError` for a name that is none.
    """
    if tokenizer in (None, "char"):
        return Recipe("", lambda texts: alphabet(texts.read()))
    if not isinstance(tokenizer, str):
        fingerprint = tokenizer.fingerprint
        return Recipe(f"-{fingerprint[:16]}", lambda texts: tokenizer, fingerprint)
    make = tokenizer_maker(tokenizer)
    if tokenizer.partition(":")[0] not in TRAINED:
        return recipe(make(()))
    return Recipe(f"-{tokenizer.replace(':', '-')}", lambda texts: make(to_train_on(texts)))


def to_train_on(texts: Texts) -> Iterator[str]:
    """What a tokenizer may learn from: the text for training, of a large one its beginning."""
    left = MOST
    for item in texts.read():
        if isinstance(item, Note) or item.split not in ("train", UNDIVIDED):
            continue
        for piece in item.pieces if item.split == "train" else _for_training(texts):
            yield piece[:left]
            left -= len(piece)
            if left <= 0:
                return


def _for_training(texts: Texts) -> Iterator[str]:
    """The beginning of a running text: nine tenths of its bytes, in whole characters."""
    left = int(TRAIN_SHARE * sum(len(piece.encode()) for piece in _running(texts)))
    for piece in _running(texts):
        part = piece.encode()[:left]
        yield part.decode(errors="ignore")
        left -= len(part)
        if not left:
            return


def _running(texts: Texts) -> Iterator[str]:
    for item in texts.read():
        if not isinstance(item, Note):
            yield from item.pieces
