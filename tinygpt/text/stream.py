"""Documents to token ids, piece by piece; large texts are encoded once and memory-mapped."""

import json
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from ..errors import CorpusError, UnknownCharacterError
from ..files import WORKSPACE, alone, sha256, write_text
from .characters import CharTokenizer
from .documents import UNDIVIDED, Document, Note, Texts
from .tokenizer import Tokenizer

TOKENS, TOKENIZER, CONTENTS, RECORD = "tokens", "tokenizer.json", "contents.json", "record.json"
BLANK_LINE = "\n\n"  # between documents, for a tokenizer that has no mark for their end
WORTH_TELLING = 1_000_000  # bytes


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


# --- the cache -----------------------------------------------------------------------------------


def memory_mapped(texts: Texts, tokenizer: Tokenizer | None) -> tuple[Tokenizer, Tensor, Contents]:
    """The tokens of texts from data/cache, where they are encoded once, and what there is of them.

    Without a tokenizer it is that of all characters of the texts. What is in the cache belongs to
    these texts and this tokenizer; it is checked each time, which takes half a second per gigabyte,
    and made anew when it is damaged. Of several processes one encodes, the others wait for it.
    Raises `CorpusError`.
    """
    folder = _folder(texts, tokenizer)
    try:
        if not _is_whole(folder, texts, tokenizer):
            folder.parent.mkdir(parents=True, exist_ok=True)
            _sweep(folder)
            with alone(folder):
                _make(folder, texts, tokenizer)
        tokenizer = Tokenizer.load(folder / TOKENIZER)
        # copy-on-write: torch wants a writable array, the file stays as it is
        tokens = np.memmap(folder / TOKENS, dtype=id_type(tokenizer), mode="c")
        contents = Contents(**json.loads((folder / CONTENTS).read_text(encoding="utf-8")))
    except OSError as error:
        raise CorpusError(f"could not write {folder}: {error}; make room there") from error
    return tokenizer, torch.from_numpy(tokens), contents


def _folder(texts: Texts, tokenizer: Tokenizer | None) -> Path:
    how = "" if tokenizer is None else f"-{tokenizer.fingerprint[:16]}"
    return WORKSPACE / "data" / "cache" / f"{texts.checksum[:16]}{how}"


def _make(folder: Path, texts: Texts, tokenizer: Tokenizer | None) -> None:
    """Fill a folder of the cache, its record last, unless the process that was waited for did."""
    if _is_whole(folder, texts, tokenizer):
        return
    if folder.exists():
        print(
            f"what {folder} holds of {texts.source} is damaged, unfinished or old; encoding it "
            f"again"
        )
        shutil.rmtree(folder)
    folder.mkdir()
    try:
        _fill(folder, texts, tokenizer)
        write_text(folder / RECORD, json.dumps(_record(folder, texts.checksum), indent=1) + "\n")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _fill(folder: Path, texts: Texts, tokenizer: Tokenizer | None) -> None:
    start = time.perf_counter()
    with unchanged(texts):
        tokenizer = tokenizer or alphabet(texts.read())
        tokenizer.save(folder / TOKENIZER)
        with open(folder / TOKENS, "wb") as sink:
            contents = encode(_watched(texts), tokenizer, sink)
    write_text(folder / CONTENTS, json.dumps(asdict(contents), indent=1) + "\n")
    size, seconds = sum(contents.bytes.values()), time.perf_counter() - start
    if size >= WORTH_TELLING:
        print(
            f"encoded {size / 1e6:,.1f} MB of {texts.name} in {seconds:.1f} s "
            f"({size / 1e6 / seconds:.1f} MB/s): {sum(contents.tokens.values()):,} tokens"
        )


@contextmanager
def unchanged(texts: Texts) -> Iterator[None]:
    """Raise `CorpusError` if the texts change in the block, or hold what no tokenizer can write."""
    try:
        yield
    except UnknownCharacterError as error:
        texts.check()
        raise CorpusError(f"{texts.name} does not go with this tokenizer: {error}") from error
    texts.check()


def _watched(texts: Texts) -> Iterator[Document | Note]:
    """The documents, with a progress bar beside those of large texts."""
    from tqdm.auto import tqdm

    named = {"total": texts.size, "unit": "B", "unit_scale": True, "desc": f"encoding {texts.name}"}
    with tqdm(**named, disable=texts.size < 10 * WORTH_TELLING) as bar:
        for item in texts.read():
            if isinstance(item, Note) or isinstance(item.pieces, list):
                yield item
                bar.update(sum(map(len, () if isinstance(item, Note) else item.pieces)))
            else:
                yield item._replace(pieces=_updating(item.pieces, bar))


def _updating(pieces: Iterable[str], bar) -> Iterator[str]:
    for piece in pieces:
        yield piece
        bar.update(len(piece))


def _record(folder: Path, checksum: str) -> dict[str, Any]:
    """What is to be known of encoded texts, read from their files."""
    tokenizer = Tokenizer.load(folder / TOKENIZER)
    tokens = np.memmap(folder / TOKENS, dtype=id_type(tokenizer), mode="r")
    if not 0 <= int(tokens.min()) <= int(tokens.max()) < tokenizer.vocab_size:
        raise ValueError(f"{folder / TOKENS} has ids that {folder / TOKENIZER} does not know")
    files = (TOKENIZER, CONTENTS, TOKENS)
    return {
        "text": checksum,
        "tokenizer": tokenizer.fingerprint,
        "vocab_size": tokenizer.vocab_size,
        "dtype": tokens.dtype.str,
        "bytes": {name: (folder / name).stat().st_size for name in files},
        "sha256": {name: sha256(folder / name) for name in files},
    }


def _is_whole(folder: Path, texts: Texts, tokenizer: Tokenizer | None) -> bool:
    """Whether a folder holds these texts in ids of this tokenizer, and all is as its record says."""
    try:
        written = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        found = _record(folder, texts.checksum)
    except (OSError, ValueError, RecursionError):
        return False
    return written == found and tokenizer in (None, Tokenizer.load(folder / TOKENIZER))


def _sweep(folder: Path) -> None:
    """Remove what processes that are no more left unfinished, beside a folder of the cache."""
    for other in folder.parent.iterdir():
        if other != folder and other.is_dir() and not (other / RECORD).exists():
            with suppress(OSError), alone(other, wait=False):
                if not (other / RECORD).exists():  # nor has it been finished meanwhile
                    shutil.rmtree(other)
