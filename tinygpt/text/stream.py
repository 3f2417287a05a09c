"""Large texts, encoded once, piece by piece, and memory-mapped."""

import codecs
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import CorpusError, UnknownCharacterError
from ..files import WORKSPACE, alone, sha256, write_text
from .characters import CharTokenizer
from .tokenizer import Tokenizer

MEMMAP_BYTES = 64 << 20  # texts larger than this stay on disk, as tokens of 16 bits
PIECE = 1 << 22  # characters encoded at a time
TOKENS, TOKENIZER, RECORD = "tokens", "tokenizer.json", "record.json"


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn the errors of a text that cannot be read into one that says what to do."""
    try:
        yield
    except UnicodeDecodeError as error:
        where = f"{error.reason} at byte {_first_wrong_byte(path)}"
        raise CorpusError(f"{path} is not UTF-8 text: {where}. Save it as UTF-8") from error
    except OSError as error:
        raise CorpusError(f"{path} cannot be read: {error.strerror or error}") from error


def _first_wrong_byte(path: Path) -> int:
    """Counted from the start of the file; the decoder's error counts from the piece it is in."""
    decoder, before = codecs.getincrementaldecoder("utf-8")(), 0
    with open(path, "rb") as file:
        while piece := file.read(PIECE):
            begun = len(decoder.getstate()[0])  # bytes of a character that has not ended
            try:
                decoder.decode(piece)
            except UnicodeDecodeError as error:
                return before - begun + error.start
            before += len(piece)
    return before  # within a character


def check_alphabet(path: Path, characters: set[str]) -> None:
    """Raise `CorpusError` for characters that no text is made of."""
    if not "".join(characters).strip():
        what = "holds only white space" if characters else "is empty"
        raise CorpusError(f"{path} {what}; there is nothing to learn from")
    if "\0" in characters:
        raise CorpusError(
            f"{path} holds NUL characters, so it is no text, or one in UTF-16; save it as UTF-8"
        )


def memory_mapped(path: Path, checksum: str) -> tuple[Tokenizer, Tensor]:
    """Encode a large text once, piece by piece, into data/cache; memory-map the tokens.

    `checksum` is the text's SHA-256. What is in the cache is checked each time, which takes half a
    second per gigabyte, and made anew when it is damaged. Of several processes one encodes the
    text, the others wait for it. Raises `CorpusError`.
    """
    folder = WORKSPACE / "data" / "cache" / checksum[:16]
    try:
        if not _is_whole(folder, checksum):
            folder.parent.mkdir(parents=True, exist_ok=True)
            _sweep(folder)
            with alone(folder):
                _make(folder, path, checksum)
        tokenizer = Tokenizer.load(folder / TOKENIZER)
        # copy-on-write: torch wants a writable array, the file stays as it is
        tokens = np.memmap(folder / TOKENS, dtype=id_type(tokenizer), mode="c")
    except OSError as error:
        raise CorpusError(f"could not write {folder}: {error}; make room there") from error
    return tokenizer, torch.from_numpy(tokens)


def id_type(tokenizer: Tokenizer) -> np.dtype:
    """How ids are stored: in 16 bits if they fit, else in 32, signed, as torch can index with."""
    return np.dtype("<u2" if tokenizer.vocab_size <= 1 << 16 else "<i4")


def encode_file(path: Path, tokenizer: Tokenizer, target: Path) -> None:
    """Write the ids of a text of any length, as `id_type` says; no token spans two pieces."""
    with open(target, "wb") as file:
        for piece in _pieces(path):
            file.write(tokenizer.encode_array(piece).astype(id_type(tokenizer)).tobytes())


def _make(folder: Path, path: Path, checksum: str) -> None:
    """Fill a folder of the cache, its record last, unless the process that was waited for did."""
    if _is_whole(folder, checksum):
        return
    if folder.exists():
        print(f"what {folder} holds of {path} is damaged, unfinished or old; encoding it again")
        shutil.rmtree(folder)
    folder.mkdir()
    try:
        tokenizer = _characters_of(path)
        tokenizer.save(folder / TOKENIZER)
        with suppress(UnknownCharacterError):  # of a text that has become another
            encode_file(path, tokenizer, folder / TOKENS)
        with reading(path):
            if sha256(path) != checksum:
                raise CorpusError(f"{path} changed while it was read; load it again")
        write_text(folder / RECORD, json.dumps(_record(folder, checksum), indent=1) + "\n")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _record(folder: Path, checksum: str) -> dict[str, Any]:
    """What is to be known of an encoded text, read from its files."""
    tokenizer = Tokenizer.load(folder / TOKENIZER)
    tokens = np.memmap(folder / TOKENS, dtype=id_type(tokenizer), mode="r")
    if not 0 <= int(tokens.min()) <= int(tokens.max()) < tokenizer.vocab_size:
        raise ValueError(f"{folder / TOKENS} has ids that {folder / TOKENIZER} does not know")
    return {
        "text": checksum,
        "vocab_size": tokenizer.vocab_size,
        "dtype": tokens.dtype.str,
        "bytes": {name: (folder / name).stat().st_size for name in (TOKENIZER, TOKENS)},
        "sha256": {name: sha256(folder / name) for name in (TOKENIZER, TOKENS)},
    }


def _is_whole(folder: Path, checksum: str) -> bool:
    """Whether a folder holds an encoded text, and all is as its record says."""
    try:
        written = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return written == _record(folder, checksum)
    except (OSError, ValueError, RecursionError):
        return False


def _sweep(folder: Path) -> None:
    """Remove what processes that are no more left unfinished, beside a folder of the cache."""
    for other in folder.parent.iterdir():
        if other != folder and other.is_dir() and not (other / RECORD).exists():
            with suppress(OSError), alone(other, wait=False):
                if not (other / RECORD).exists():  # nor has it been finished meanwhile
                    shutil.rmtree(other)


def _characters_of(path: Path) -> CharTokenizer:
    alphabet: set[str] = set()
    for piece in _pieces(path):
        alphabet.update(piece)
    check_alphabet(path, alphabet)
    return CharTokenizer(alphabet)


def _pieces(path: Path) -> Iterator[str]:
    with reading(path), open(path, encoding="utf-8-sig") as file:
        while piece := file.read(PIECE):
            yield piece
