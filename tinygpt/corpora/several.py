"""Several corpora as one: a model that is to know more than one kind of text."""

from collections.abc import Iterator, Sequence

from .documents import UNDIVIDED, Document, Note, Texts, combined_checksum
from .recipes import TRAIN_SHARE

SPLITS = ("train", "val", "test")


def several(parts: Sequence[Texts]) -> Texts:
    """The documents of all parts, each in the split that it has in its own.

    Of a part that is not divided, the first 90 % of the characters are `train`, the rest `val`:
    so every kind of text is in both. Its name is theirs with `+` between them.
    """

    def check() -> None:
        for part in parts:
            part.check()

    return Texts(
        "+".join(part.name for part in parts),
        "; ".join(part.source for part in parts),
        "; ".join(dict.fromkeys(part.licence for part in parts)),
        combined_checksum("several", [part.checksum for part in parts]),
        sum(part.size for part in parts),
        lambda: _documents(parts),
        check,
        slow=any(part.slow for part in parts),
    )


def _documents(parts: Sequence[Texts]) -> Iterator[Document | Note]:
    """All parts once for each split, since splits come one after the other."""
    for split in SPLITS:
        for part in parts:
            for item in part.read():
                if isinstance(item, Note):
                    yield from [Note(f"{part.name}: {item}")] if split == "train" else []
                elif item.split == UNDIVIDED:
                    yield from _divided(item, split)
                elif item.split == split:
                    yield item


def _divided(document: Document, split: str) -> Iterator[Document]:
    """The part of a running text that is in a split, if there is one."""
    text = "".join(document.pieces)
    cut = int(TRAIN_SHARE * len(text))
    part = {"train": text[:cut], "val": text[cut:]}.get(split)
    if part:
        yield Document(split, [part])
