"""Texts to learn from: found, fetched or generated; encoded and split."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import torch
from torch import Tensor

from ..errors import CorpusError
from ..files import ROOT, download, sha256
from . import tinyplays
from .characters import CharTokenizer
from .stream import MEMMAP_BYTES, memory_mapped, must_be_utf8
from .tokenizer import TextSize, Tokenizer

TRAIN_SHARE = 0.9


@dataclass(frozen=True, eq=False)
class Corpus:
    """A text as token ids. `train`, `val` and `test` are 1-D tensors; a large one is memory-mapped.

    `floor` is the lowest mean loss on `val` that any model can expect, in nats per token, where
    that is known (tinyplays, whose tokens are characters), else None. `source` says where the text
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

    @property
    def text(self) -> str:
        """The whole text, read on demand."""
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
    licence: str


REGISTRY: dict[str, Remote] = {
    "tinyshakespeare": Remote(
        file="input.txt",
        url="https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/"
        "input.txt",
        sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
        licence="public domain",
    ),
}


def load_corpus(name: str = "tinyshakespeare", *, fallback: str | None = None) -> Corpus:
    """Load a corpus: a name of `REGISTRY`, `"tinyplays"` (built in), or `"file:PATH"`.

    A registered corpus is looked for in data/NAME/, then in $TINYGPT_DATA/NAME/, then downloaded;
    relative paths start at the repository. The first 90 % of the tokens are `train`, the rest
    `val`. With `fallback`, a corpus that can be had nowhere is replaced by that one, with a
    message. Raises `CorpusError` for an unknown name, and for a text that is missing or damaged.
    """
    if name == "tinyplays":
        return _load_tinyplays()
    if name.startswith("file:"):
        path = ROOT / Path(name.removeprefix("file:")).expanduser()
        if not path.is_file():
            raise CorpusError(f"there is no file {path}; after 'file:' comes a path to a text")
        return _from_file(name, path, source=name.removeprefix("file:"))
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
    inside = path.is_relative_to(ROOT / "data")
    return _from_file(name, path, f"{'data' if inside else '$TINYGPT_DATA'}/{name}/{path.name}")


def locate(name: str) -> Path:
    """The checked file of a registered corpus; downloads it if it is nowhere on this machine."""
    remote = REGISTRY[name]
    home = ROOT / "data" / name / remote.file
    found = [path for path in [home, *_shared(name, remote.file)] if path.is_file()]
    for path in found:
        if sha256(path) == remote.sha256:
            return path
    if found:
        raise CorpusError(
            f"{found[0]} is not the text it should be (its sha256 does not begin with "
            f"{remote.sha256[:12]}). Delete it, and it is fetched again; for a text of your own "
            f"use file:PATH"
        )
    try:
        download(remote.url, home, remote.sha256)
    except (CorpusError, OSError) as error:
        raise CorpusError(
            f"{name} is not on this machine and could not be fetched ({error}). Put it at {home}, "
            f"or use the built-in corpus: load_corpus('tinyplays'), --corpus tinyplays"
        ) from error
    return home


def _shared(name: str, file: str) -> list[Path]:
    folder = os.environ.get("TINYGPT_DATA")
    return [ROOT / Path(folder).expanduser() / name / file] if folder else []


def _from_file(name: str, path: Path, source: str) -> Corpus:
    if path.stat().st_size > MEMMAP_BYTES:
        tokenizer, tokens = memory_mapped(path)
    else:
        text = _read(path)
        if not text:
            raise CorpusError(f"{path} is empty; there is nothing to learn from")
        tokenizer = CharTokenizer.from_text(text)
        tokens = torch.from_numpy(tokenizer.encode_array(text)).long()
    return _corpus(name, tokenizer, tokens, source=source, read=lambda: _read(path))


def _corpus(name: str, tokenizer: Tokenizer, tokens: Tensor, **more) -> Corpus:
    cut = int(TRAIN_SHARE * len(tokens))
    return Corpus(name, tokenizer, train=tokens[:cut], val=tokens[cut:], test=None, **more)


def _load_tinyplays() -> Corpus:
    plays = _plays()
    tokenizer = CharTokenizer.from_text(plays.text)
    tokens = torch.from_numpy(tokenizer.encode_array(plays.text)).long()
    floor = plays.floor(int(TRAIN_SHARE * len(tokens)))  # per character, which is a token here
    return _corpus(
        "tinyplays",
        tokenizer,
        tokens,
        source="the grammar in tinygpt/text/tinyplays.py",
        read=lambda: plays.text,
        floor=floor,
    )


@lru_cache(maxsize=1)
def _plays() -> "tinyplays.Plays":
    return tinyplays.write_plays()


def _read(path: Path) -> str:
    """A UTF-8 text, with a byte-order mark removed and Windows line ends made "\\n"."""
    with must_be_utf8(path):
        return path.read_text(encoding="utf-8-sig")
