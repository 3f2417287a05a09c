"""Large texts, encoded once into token files, and memory-mapped."""

import json
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import CorpusError, UnknownCharacterError
from ..files import WORKSPACE, alone, as_json, sha256, write_text
from ..progress import progress
from ..text import Tokenizer
from .documents import Document, Note, Texts
from .encoding import Contents, encode, id_type
from .recipes import Recipe

TOKENS, TOKENIZER, CONTENTS, RECORD = "tokens", "tokenizer.json", "contents.json", "record.json"
WORTH_TELLING = 1_000_000  # bytes


def memory_mapped(texts: Texts, recipe: Recipe) -> tuple[Tokenizer, Tensor, Contents]:
    """The tokens of texts from data/cache, where they are encoded once, and what there is of them.

    What is in the cache belongs to these texts and this tokenizer; it is checked each time, which
    takes half a second per gigabyte, and made anew when it is damaged. Of several processes one
    encodes, the others wait for it. Raises `CorpusError`.
    """
    folder = WORKSPACE / "data" / "cache" / f"{texts.checksum[:16]}{recipe.key}"
    try:
        if not _is_whole(folder, texts, recipe):
            folder.parent.mkdir(parents=True, exist_ok=True)
            _sweep(folder)
            with alone(folder):
                _make(folder, texts, recipe)
        tokenizer = Tokenizer.load(folder / TOKENIZER)
        # copy-on-write: torch wants a writable array, the file stays as it is
        tokens = np.memmap(folder / TOKENS, dtype=id_type(tokenizer), mode="c")
        contents = Contents(**json.loads((folder / CONTENTS).read_text(encoding="utf-8")))
    except OSError as error:
        raise CorpusError(f"could not write {folder}: {error}; make room there") from error
    return tokenizer, torch.from_numpy(tokens), contents


def _make(folder: Path, texts: Texts, recipe: Recipe) -> None:
    """Fill a folder of the cache, its record last, unless the process that was waited for did."""
    if _is_whole(folder, texts, recipe):
        return
    if folder.exists():
        print(
            f"what {folder} holds of {texts.source} is damaged, unfinished or old; encoding it "
            f"again",
            flush=True,
        )
        shutil.rmtree(folder)
    folder.mkdir()
    try:
        _fill(folder, texts, recipe)
        write_text(folder / RECORD, as_json(_record(folder, texts.checksum)))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _fill(folder: Path, texts: Texts, recipe: Recipe) -> None:
    with unchanged(texts):
        tokenizer = recipe.make(texts)
        tokenizer.save(folder / TOKENIZER)
        documents = texts.read()
        first = list(islice(documents, 1))  # which may have to be downloaded
        start = time.perf_counter()
        with open(folder / TOKENS, "wb") as sink:
            contents = encode(_watched(chain(first, documents), texts), tokenizer, sink)
    seconds = time.perf_counter() - start
    write_text(folder / CONTENTS, as_json(asdict(contents)))
    if (size := sum(contents.bytes.values())) >= WORTH_TELLING:
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


def _watched(documents: Iterable[Document | Note], texts: Texts) -> Iterator[Document | Note]:
    """The documents, with a progress bar beside those of large texts."""
    named = {"total": texts.size, "unit": "B", "unit_scale": True, "desc": f"encoding {texts.name}"}
    with progress(**named, disable=texts.size < 10 * WORTH_TELLING) as bar:
        for item in documents:
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


def _is_whole(folder: Path, texts: Texts, recipe: Recipe) -> bool:
    """Whether a folder has these texts in ids of this tokenizer, and all is as its record says."""
    try:
        written = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        found = _record(folder, texts.checksum)
    except (OSError, ValueError, RecursionError):
        return False
    return written == found and recipe.fingerprint in (None, found["tokenizer"])


def _sweep(folder: Path) -> None:
    """Remove what processes that are no more left unfinished, beside a folder of the cache."""
    for other in folder.parent.iterdir():
        if other != folder and other.is_dir() and not (other / RECORD).exists():
            with suppress(OSError), alone(other, wait=False):
                if not (other / RECORD).exists():  # nor has it been finished meanwhile
                    shutil.rmtree(other)
