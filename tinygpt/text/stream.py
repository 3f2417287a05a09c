"""Large texts, encoded once, piece by piece, and memory-mapped."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import CorpusError
from ..files import ROOT, atomic_path, sha256, sweep_temporaries
from .tokenizer import CharTokenizer

MEMMAP_BYTES = 64 << 20  # texts larger than this stay on disk, as 16-bit tokens


@contextmanager
def _must_be_utf8(path: Path) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"{path} is not UTF-8 text: {error.reason} at byte {error.start}. Save it as UTF-8"
        ) from error


def _memory_mapped(path: Path) -> tuple[CharTokenizer, Tensor]:
    """Encode a large text once, piece by piece, into data/cache; memory-map the tokens."""
    folder = ROOT / "data" / "cache" / sha256(path)[:16]
    if not folder.is_dir():
        sweep_temporaries(folder.parent)
        try:
            with atomic_path(folder) as new, _must_be_utf8(path):
                new.mkdir()
                _encode_to(path, new)
        except OSError as error:
            raise CorpusError(f"could not write {folder}: {error}; make room there") from error
    tokenizer = CharTokenizer.load(folder / "tokenizer.json")
    # copy-on-write: torch wants a writable array, the file stays as it is
    tokens = np.memmap(folder / "tokens.uint16", dtype="<u2", mode="c")
    return tokenizer, torch.from_numpy(tokens)


def _encode_to(path: Path, folder: Path) -> None:
    alphabet: set[str] = set()
    for piece in _pieces(path):
        alphabet.update(piece)
    if len(alphabet) > 1 << 16:
        raise CorpusError(f"{path} has {len(alphabet)} different characters, above 65,536")
    tokenizer = CharTokenizer(alphabet)
    tokenizer.save(folder / "tokenizer.json")
    with open(folder / "tokens.uint16", "wb") as file:
        for piece in _pieces(path):
            file.write(tokenizer.encode_array(piece).astype("<u2").tobytes())


def _pieces(path: Path) -> Iterator[str]:
    with open(path, encoding="utf-8-sig") as file:
        while piece := file.read(1 << 22):
            yield piece
