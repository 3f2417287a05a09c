"""Texts to learn from: found, fetched or generated; encoded and split."""

import hashlib
import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import torch
from torch import Tensor

from ..download import download
from ..errors import CorpusError
from ..files import WORKSPACE, resolve, sha256
from . import tinyplays
from .characters import CharTokenizer
from .stream import MEMMAP_BYTES, check_alphabet, memory_mapped, reading
from .tokenizer import TextSize, Tokenizer

TRAIN_SHARE = 0.9


@dataclass(frozen=True, eq=False)
class Corpus:
    """A text as token ids. `train`, `val` and `test` are 1-D tensors; a large one is memory-mapped.

    `floor` is the lowest mean loss on `val` that any model can expect, in nats per token, and
    `val_styles` the speaking style of each of its tokens, an index in `STYLES` or -1, where these
    are known (tinyplays, whose tokens are characters), else None. `source` says where the text
    came from.
    """

    name: str
    tokenizer: Tokenizer
    train: Tensor
    val: Tensor
    test: Tensor | None
    source: str
    read: Callable[[], str]
    floor: float | None = None
    val_styles: Tensor | None = None

    @property
    def text(self) -> str:
        """The whole text, read on demand; `CorpusError` if its file is another by now."""
        return self.read()

    @cached_property
    def val_size(self) -> TextSize:
        """How long `val` is, in tokens, characters and bytes; counted when first asked for."""
        return self.tokenizer.size(self.val)

    def __repr__(self) -> str:
        return (
            f"Corpus({self.name!r}: {len(self.train):,} train + {len(self.val):,} val tokens, "
            f"vocabulary of {self.tokenizer.vocab_size}, from {self.source})"
        )


@dataclass(frozen=True)
class Remote:
    """A file of a corpus, and where it can be had."""

    file: str
    url: str
    sha256: str
    size: int  # bytes
    licence: str


REGISTRY: dict[str, Remote] = {
    "tinyshakespeare": Remote(
        file="input.txt",
        url="https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/"
        "input.txt",
        sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
        size=1_115_394,
        licence="public domain",
    ),
}


def load_corpus(name: str = "tinyshakespeare", *, fallback: str | None = None) -> Corpus:
    """Load a corpus: a name of `REGISTRY`, `"tinyplays"` (built in), or `"file:PATH"`.

    A registered corpus is looked for in data/NAME/, then in $TINYGPT_DATA/NAME/, then downloaded;
    both start at the repository (without one, at the current folder), while a relative PATH always
    starts at the current folder. The first 90 % of the tokens are `train`, the rest `val`. With
    `fallback`, a corpus that can be had nowhere is replaced by that one, with a message. Raises
    `CorpusError` for an unknown name, and for a text that is missing or damaged.
    """
    if name == "tinyplays":
        return _load_tinyplays()
    if name.startswith("file:"):
        given = name.removeprefix("file:")
        path = _own_file(given)
        with reading(path):
            checksum = sha256(path)
        # the whole path is the name: a run goes on from any folder
        return _from_file(f"file:{path}", path, checksum, source=given)
    if name not in REGISTRY:
        known = ", ".join([*REGISTRY, "tinyplays"])
        raise CorpusError(f"unknown corpus {name!r}; known are {known}, or file:PATH for your own")
    try:
        path = locate(name)
    except CorpusError as error:
        if fallback is None:
            raise
        print(f"{error}\nGoing on with {fallback} instead.")
        return load_corpus(fallback)
    inside = path.is_relative_to(WORKSPACE / "data")
    source = f"{'data' if inside else '$TINYGPT_DATA'}/{name}/{path.name}"
    return _from_file(name, path, REGISTRY[name].sha256, source)


def locate(name: str) -> Path:
    """The checked file of a registered corpus; downloads it if it is nowhere on this machine."""
    remote = REGISTRY[name]
    home = WORKSPACE / "data" / name / remote.file
    found = [path for path in [home, *_shared(name, remote.file)] if _is_there(path)]
    for path in found:
        with reading(path):
            if sha256(path) == remote.sha256:
                return path
    if found:
        raise CorpusError(
            f"{found[0]} is not the text it should be (its sha256 does not begin with "
            f"{remote.sha256[:12]}). Delete it, and it is fetched again; for a text of your own "
            f"use file:PATH"
        )
    try:
        download(remote.url, home, remote.sha256, remote.size)
    except CorpusError as error:
        raise CorpusError(
            f"{name} is not on this machine and could not be fetched ({error}). Put it at {home}; "
            f"what needs no text in particular can use the built-in one: load_corpus('tinyplays'), "
            f"--corpus tinyplays"
        ) from error
    return home


def _shared(name: str, file: str) -> list[Path]:
    folder = os.environ.get("TINYGPT_DATA")
    return [WORKSPACE / os.path.expanduser(folder) / name / file] if folder else []


def _is_there(path: Path) -> bool:
    with reading(path):
        return path.is_file()


def _own_file(given: str) -> Path:
    path = resolve(given)
    if not _is_there(path):
        what = f"{path} is a folder" if path.is_dir() else f"there is no file {path}"
        raise CorpusError(f"{what}; after 'file:' comes the path of a text")
    return path


def _from_file(name: str, path: Path, checksum: str, source: str) -> Corpus:
    with reading(path):
        large = path.stat().st_size > MEMMAP_BYTES
    if large:
        tokenizer, tokens = memory_mapped(path, checksum)
    else:
        text = _read(path, checksum)
        alphabet = set(text)
        check_alphabet(path, alphabet)
        tokenizer = CharTokenizer(alphabet)
        tokens = torch.from_numpy(tokenizer.encode_array(text)).long()
    return _corpus(name, tokenizer, tokens, source=source, read=lambda: _read(path, checksum))


def _corpus(name: str, tokenizer: Tokenizer, tokens: Tensor, **more) -> Corpus:
    cut = int(TRAIN_SHARE * len(tokens))
    return Corpus(name, tokenizer, train=tokens[:cut], val=tokens[cut:], test=None, **more)


def _load_tinyplays() -> Corpus:
    plays = _plays()
    tokenizer = CharTokenizer.from_text(plays.text)
    tokens = torch.from_numpy(tokenizer.encode_array(plays.text)).long()
    cut = int(TRAIN_SHARE * len(tokens))
    return _corpus(
        "tinyplays",
        tokenizer,
        tokens,
        source="the grammar in tinygpt/text/tinyplays.py",
        read=lambda: plays.text,
        floor=plays.floor(cut),  # per character, which is a token here
        val_styles=torch.from_numpy(plays.style[cut:]),
    )


@lru_cache(maxsize=1)
def _plays() -> "tinyplays.Plays":
    return tinyplays.write_plays()


def _read(path: Path, checksum: str) -> str:
    """A UTF-8 text, with a byte-order mark removed and Windows line ends made "\\n"."""
    with reading(path):
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != checksum:
            raise CorpusError(f"{path} is another text than when it was loaded; load it again")
        return io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig").read()
