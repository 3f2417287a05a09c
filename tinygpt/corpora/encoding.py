"""Documents to token ids, piece by piece."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import BinaryIO

import numpy as np

from ..errors import CorpusError
from ..text import CharTokenizer, Tokenizer
from .documents import UNDIVIDED, Document, Note

SHORT, TOGETHER = 1 << 16, 1 << 20  # characters of a short document, and of many at a time
BLANK_LINE = "\n\n"  # between documents, for a tokenizer that has no mark for their end


@dataclass(frozen=True)
class Contents:
    """What there is of each split, in the order in which they lie in the tokens; and notes."""

    tokens: dict[str, int]
    documents: dict[str, int]
    bytes: dict[str, int]  # of UTF-8, without what is between documents
    notes: list[str]


def id_type(tokenizer: Tokenizer) -> np.dtype:
    """How ids are stored: in 16 bits if they fit, else in 32, signed, as torch can index with."""
    return np.dtype("<u2" if tokenizer.vocab_size <= 1 << 16 else "<i4")


def alphabet(documents: Iterable[Document | Note]) -> CharTokenizer:
    """The tokenizer of all characters in these documents, and of what is put between them."""
    symbols: set[str] = set()
    for item in documents:
        if not isinstance(item, Note):
            symbols.update("" if item.split == UNDIVIDED else BLANK_LINE)
            for piece in item.pieces:
                symbols.update(piece)
    return CharTokenizer(symbols)


def encode(documents: Iterable[Document | Note], tokenizer: Tokenizer, sink: BinaryIO) -> Contents:
    """Write the ids of documents, as `id_type` says, with no more than a piece in memory.

    After each document comes the tokenizer's end of text, or a blank line if it has none.
    """
    writer = _Writer(tokenizer, sink)
    for item in documents:
        if isinstance(item, Note):
            writer.notes.append(str(item))
        else:
            writer.add(item)
    writer.flush()
    if not writer.documents:
        why = "; ".join(writer.notes) or "no documents"
        raise CorpusError(f"there is nothing to learn from: {why}")
    counts = map(dict, (writer.tokens, writer.documents, writer.bytes))
    return Contents(*counts, writer.notes)


class _Writer:
    """Writes documents and counts them. Short ones are encoded many at a time, which is faster."""

    def __init__(self, tokenizer: Tokenizer, sink: BinaryIO):
        self._tokenizer, self._sink = tokenizer, sink
        self.tokens, self.documents, self.bytes = Counter(), Counter(), Counter()
        self.notes: list[str] = []
        self._waiting: list[tuple[str, str]] = []  # splits and whole texts
        self._letters = 0

    def add(self, document: Document) -> None:
        """Take a document; it is written now or by `flush`."""
        split, pieces = document
        if isinstance(pieces, list) and sum(map(len, pieces)) < SHORT:
            self._waiting.append((split, "".join(pieces)))
            self._letters += len(self._waiting[-1][1])
            if self._letters >= TOGETHER:
                self.flush()
            return
        self.flush()
        for ids in self._tokenizer.encode_pieces(self._counted(split, pieces)):
            self._write(split, ids)
        self._end(split)

    def flush(self) -> None:
        """Write the documents that wait."""
        encoded = self._tokenizer.encode_many([text for _, text in self._waiting])
        for (split, text), ids in zip(self._waiting, encoded, strict=True):
            self.bytes[split] += len(text.encode())
            self._write(split, ids)
            self._end(split)
        self._waiting, self._letters = [], 0

    def _counted(self, split: str, pieces: Iterable[str]) -> Iterator[str]:
        for piece in pieces:
            self.bytes[split] += len(piece.encode())
            yield piece

    def _end(self, split: str) -> None:
        self.documents[split] += 1
        if split != UNDIVIDED:
            self._write(split, self._mark)

    @cached_property
    def _mark(self) -> np.ndarray:
        """What is put between documents."""
        end = self._tokenizer.end_of_text
        return self._tokenizer.encode_array(BLANK_LINE) if end is None else np.array([end])

    def _write(self, split: str, ids: np.ndarray) -> None:
        """Ids that would be others when stored are refused, not wrapped round."""
        last = self._tokenizer.vocab_size - 1
        if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) <= last:
            raise CorpusError(f"the tokenizer gave id {ids.max()}, though its ids end at {last}")
        self._sink.write(ids.astype(id_type(self._tokenizer)).tobytes())
        self.tokens[split] += len(ids)
