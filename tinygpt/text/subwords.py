"""What tokenizers have in common whose tokens are parts of words, spelled in bytes."""

import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from ..errors import ConfigError, UnknownCharacterError
from .tokenizer import END_OF_TEXT, Tokenizer

if TYPE_CHECKING:
    import tokenizers

MOST = 1 << 24  # tokens of a vocabulary
PART, PARTS = 1 << 14, 64  # characters encoded by one thread at a time, and parts in memory
# No word spans this place, and what is left of it is not read with a look at what follows: the
# words of GPT-2's pattern have white space only as their first letter, or consist of it
_DIVISION = r"\S(?=[ \t\n\r])"
_NEXT, _LAST = re.compile(_DIVISION), re.compile(".*" + _DIVISION, re.DOTALL)


def _letters() -> dict[int, str]:
    """GPT-2's letter for each byte: its own character if it can be seen, else one from U+0100 on.

    Radford et al. 2019, section 2.2; the table is that of GPT-2's files.
    """
    seen = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    unseen = (byte for byte in range(256) if byte not in seen)
    return {byte: chr(byte) for byte in seen} | {b: chr(256 + n) for n, b in enumerate(unseen)}


LETTERS = _letters()
_BYTES = {letter: byte for byte, letter in LETTERS.items()}


class SubwordTokenizer(Tokenizer):
    """Cuts a text into words as GPT-2 does, then each word into tokens of a fixed list.

    Every text can be written, since each byte is a token; decoding gives it back exactly. The
    cutting is the work of the library `tokenizers`. `tokens` are spelled with a letter for each
    byte, "Ġthe" for " the"; their places are the ids. `ConfigError` for tokens that cannot be.
    """

    prefixes: ClassVar[tuple[str, ...]] = ("",)  # how a token may begin, beside its bytes

    def __init__(self, tokens: Sequence[str]):
        self.tokens = tuple(tokens)
        self._ids = {token: i for i, token in enumerate(self.tokens)}
        if len(self._ids) < len(self.tokens):
            twice = next(t for i, t in enumerate(self.tokens) if self._ids[t] != i)
            raise ConfigError(f"the token {twice!r} stands twice in the vocabulary")
        for prefix in self.prefixes:
            if lacking := [b for b, c in LETTERS.items() if prefix + c not in self._ids]:
                raise ConfigError(
                    f"the vocabulary of {len(self.tokens)} tokens lacks {len(lacking)} of the 256 "
                    f"bytes, such as {prefix + LETTERS[lacking[0]]!r}; every byte must be a token"
                )
        self._spelled = [_spelled(token, self.prefixes) for token in self.tokens]

    @classmethod
    @abstractmethod
    def train(cls, texts: str | Iterable[str], vocab_size: int = 4000) -> Self:
        """Learn at most `vocab_size` tokens from a text, or several: the same from the same texts.

        Runs that occur once are not learned. `ConfigError` if the size is too small or too large.
        """

    @classmethod
    def check_size(cls, vocab_size: int) -> None:
        """`ConfigError` unless there is room for each byte and the end of a text."""
        least, whole = len(cls.prefixes) * len(LETTERS) + 1, type(vocab_size) is int
        if not whole or not least <= vocab_size <= MOST:
            raise ConfigError(
                f"vocab_size={vocab_size!r} must be a whole number from {least} to {MOST:,}: each "
                f"byte is a token, with which any text can be written, and so is {END_OF_TEXT}"
            )

    @abstractmethod
    def _library(self) -> "tokenizers.Tokenizer":
        """The library's tokenizer with this vocabulary."""

    @property
    def vocab_size(self) -> int:
        """V, the number of different tokens."""
        return len(self.tokens)

    @property
    def end_of_text(self) -> int | None:
        """The id of <|endoftext|>, which no text is encoded to; None if there is none."""
        return self._ids.get(END_OF_TEXT)

    def token_bytes(self, token: int) -> bytes:
        """The UTF-8 bytes of a token: maybe a part of a character; none for the end of a text."""
        return self._spelled[token]

    def encode_array(self, text: str) -> np.ndarray:
        """The ids of a text. `UnknownCharacterError` for half of a surrogate pair, the only thing
        that cannot be written. A megabyte takes about half a second of a core.
        """
        refuse_surrogates(text)
        parts, found = _parts(text), []
        while some := list(islice(parts, PARTS)):
            found += self._encoded(some)
        return np.concatenate(found)

    def encode_many(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The ids of each of several texts, which the threads of the library share."""
        for text in texts:
            refuse_surrogates(text)
        return self._encoded(list(texts))

    def cut(self, text: str) -> int:
        """After the last word that white space follows."""
        return found.end() if (found := _LAST.match(text)) else 0

    def to_json(self) -> dict[str, Any]:
        """The tokens, in the order of their ids."""
        return {"tokens": list(self.tokens)}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """The tokenizer of stored tokens."""
        return cls(strings(content, "tokens"))

    def _encoded(self, texts: list[str]) -> list[np.ndarray]:
        encoded = self._encoder.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array(each.ids, dtype=np.int32) for each in encoded]

    @cached_property
    def _encoder(self) -> "tokenizers.Tokenizer":
        return self._library()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.vocab_size} tokens)"


def strings(content: dict[str, Any], name: str) -> list[str]:
    """A list of strings in what was read from a file. `ConfigError` if it is none."""
    found = content[name]
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise ConfigError(f"{name!r} must be a list of texts")
    return found


def refuse_surrogates(text: str) -> None:
    """Raise `UnknownCharacterError` for halves of surrogate pairs."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        places: dict[str, list[int]] = {}
        for found in re.finditer("[\ud800-\udfff]", text):
            places.setdefault(found[0], []).append(found.start())
        raise UnknownCharacterError(
            places, "half of a surrogate pair is no character", "Remove it, or give the whole pair."
        ) from error


def training_parts(texts: Iterable[str]) -> Iterator[str]:
    """Texts to train on in parts that several threads can share. `UnknownCharacterError`."""
    for text in [texts] if isinstance(texts, str) else texts:
        refuse_surrogates(text)
        yield from _parts(text)


def _parts(text: str) -> Iterator[str]:
    start = 0
    while found := _NEXT.search(text, start + PART):
        yield text[start : found.end()]
        start = found.end()
    yield text[start:]


def _spelled(token: str, prefixes: tuple[str, ...]) -> bytes:
    if token == END_OF_TEXT:
        return b""
    prefix = max((p for p in prefixes if token.startswith(p)), key=len)
    try:
        found = bytes([_BYTES[letter] for letter in token[len(prefix) :]])
    except KeyError as error:
        raise ConfigError(
            f"the token {token!r:.80} has {error.args[0]!r}, which stands for no byte"
        ) from None
    if not found:
        raise ConfigError(f"the token {token!r} stands for no byte")
    return found
