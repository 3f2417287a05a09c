"""Large texts, encoded once, piece by piece, and memory-mapped."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import CorpusError
from ..files import ROOT, atomic_path, sha256, sweep_temporaries
from .characters import CharTokenizer
from .tokenizer import Tokenizer

MEMMAP_BYTES = 64 << 20  # texts larger than this stay on disk, as 16-bit tokens
PIECE = 1 << 22  # characters encoded at a time


@contextmanager
def must_be_utf8(path: Path) -> Iterator[None]:
    """Turn the error of a text that is not UTF-8 into one that says what to do."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"{path} is not UTF-8 text: {error.reason} at byte {error.start}. Save it as UTF-8"
        ) from error


def memory_mapped(path: Path) -> tuple[Tokenizer, Tensor]:
    """Encode a large text once, piece by piece, into data/cache; memory-map the tokens."""
    folder = ROOT / "data" / "cache" / sha256(path)[:16]
    if not folder.is_dir():
        sweep_temporaries(folder.parent)
        try:
            with atomic_path(folder) as new, must_be_utf8(path):
                new.mkdir()
                tokenizer = _characters_of(path)
                tokenizer.save(new / "tokenizer.json")
                encode_file(path, tokenizer, new / "tokens.uint16")
        except OSError as error:
            raise CorpusError(f"could not write {folder}: {error}; make room there") from error
    # copy-on-write: torch wants a writable array, the file stays as it is
    tokens = np.memmap(folder / "tokens.uint16", dtype="<u2", mode="c")
    return Tokenizer.load(folder / "tokenizer.json"), torch.from_numpy(tokens)


def encode_file(path: Path, tokenizer: Tokenizer, target: Path) -> None:
    """Write the ids of a text of any length, as 16-bit numbers; no token spans two pieces."""
    if tokenizer.vocab_size > 1 << 16:
        raise CorpusError(
            f"{path} has {tokenizer.vocab_size} different tokens, above the 65,536 of 16 bits"
        )
    with open(target, "wb") as file:
        for piece in _pieces(path):
            file.write(tokenizer.encode_array(piece).astype("<u2").tobytes())


def _characters_of(path: Path) -> CharTokenizer:
    alphabet: set[str] = set()
    for piece in _pieces(path):
        alphabet.update(piece)
    return CharTokenizer(alphabet)


def _pieces(path: Path) -> Iterator[str]:
    with open(path, encoding="utf-8-sig") as file:
        while piece := file.read(PIECE):
            yield piece
