"""Documents to token ids, piece by piece."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from ..errors import CorpusError
from .characters import CharTokenizer
from .documents import UNDIVIDED, Document, Note
from .tokenizer import Tokenizer

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
            symbols.update(*item.pieces, "" if item.split == UNDIVIDED else BLANK_LINE)
    return CharTokenizer(symbols)


def encode(documents: Iterable[Document | Note], tokenizer: Tokenizer, sink: BinaryIO) -> Contents:
    """Write the ids of documents, as `id_type` says, with no more than a piece in memory.

    After each document comes the tokenizer's end of text, or a blank line if it has none.
    """
    tokens, count, size, notes = Counter(), Counter(), Counter(), []
    mark = None
    for item in documents:
        if isinstance(item, Note):
            notes.append(str(item))
            continue
        for ids in _ids(item, tokenizer, size):
            tokens[item.split] += _write(ids, tokenizer, sink)
        if item.split != UNDIVIDED:
            mark = _mark(tokenizer) if mark is None else mark
            tokens[item.split] += _write(mark, tokenizer, sink)
        count[item.split] += 1
    if not count:
        raise CorpusError(f"there is nothing to learn from: {'; '.join(notes) or 'no documents'}")
    return Contents(dict(tokens), dict(count), dict(size), notes)


def _ids(document: Document, tokenizer: Tokenizer, size: Counter) -> Iterator[np.ndarray]:
    """The ids of a document, whose bytes are counted on the way."""
    if isinstance(document.pieces, list) and len(document.pieces) == 1:
        size[document.split] += len(document.pieces[0].encode())
        yield tokenizer.encode_array(document.pieces[0])
    else:
        yield from tokenizer.encode_pieces(_counted(document, size))


def _counted(document: Document, size: Counter) -> Iterator[str]:
    for piece in document.pieces:
        size[document.split] += len(piece.encode())
        yield piece


def _mark(tokenizer: Tokenizer) -> np.ndarray:
    """What is put between documents."""
    end = tokenizer.end_of_text
    return tokenizer.encode_array(BLANK_LINE) if end is None else np.array([end])


def _write(ids: np.ndarray, tokenizer: Tokenizer, sink: BinaryIO) -> int:
    """Ids that would be others when stored are refused, not wrapped round."""
    if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < tokenizer.vocab_size:
        raise CorpusError(
            f"the tokenizer gave id {ids.max()}, though its ids end at {tokenizer.vocab_size - 1}"
        )
    sink.write(ids.astype(id_type(tokenizer)).tobytes())
    return len(ids)
