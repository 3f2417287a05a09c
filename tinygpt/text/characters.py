"""The tokenizer whose tokens are single characters."""

import hashlib
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ..errors import ConfigError, UnknownCharacterError
from .tokenizer import Tokenizer


class CharTokenizer(Tokenizer):
    """Gives each character of an alphabet its own id, in sorted order, from 0.

    >>> tok = CharTokenizer("abc")
    >>> tok.encode("cab"), tok.decode([2, 0, 1])
    ([2, 0, 1], 'cab')
    """

    kind = "char"

    def __init__(self, alphabet: Iterable[str]):
        symbols = sorted(alphabet)
        _check_symbols(symbols)
        self.characters = "".join(symbols)
        points = _code_points(self.characters)  # (V,)
        self._ids = np.full(int(points.max()) + 2, -1, dtype=np.int32)  # last: anything beyond
        self._ids[points] = np.arange(len(points))

    @classmethod
    def from_text(cls, text: str) -> "CharTokenizer":
        """The tokenizer whose alphabet is the characters of `text`."""
        return cls(set(text))

    @property
    def vocab_size(self) -> int:
        """V, the number of different characters."""
        return len(self.characters)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the alphabet: equal exactly when two tokenizers encode alike."""
        return hashlib.sha256(self.characters.encode()).hexdigest()

    def encode_array(self, text: str) -> np.ndarray:
        """The ids of a text's characters `(len(text),)`: a million of them in milliseconds.

        `UnknownCharacterError` lists those that the alphabet lacks.
        """
        points = np.minimum(_code_points(text), len(self._ids) - 1)
        ids = self._ids[points]
        if (missing := np.flatnonzero(ids < 0)).size:
            unknown: dict[str, list[int]] = {}
            for position in missing.tolist():
                unknown.setdefault(text[position], []).append(position)
            raise UnknownCharacterError(
                unknown,
                f"not in this tokenizer's alphabet of {self.vocab_size} characters",
                "Remove them, or build the tokenizer from a text that has them "
                "(CharTokenizer.from_text).",
            )
        return ids

    def cut(self, text: str) -> int:
        """A text can be divided after each character."""
        return len(text)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of a sequence (list, array or 1-D tensor) of ids."""
        return "".join([self.characters[i] for i in self._checked(ids)])

    def token_bytes(self, token: int) -> bytes:
        """The UTF-8 bytes of a character."""
        return self.characters[token].encode()

    def to_json(self) -> dict[str, Any]:
        """The alphabet."""
        return {"characters": list(self.characters)}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "CharTokenizer":
        """The tokenizer of a stored alphabet."""
        return cls(content["characters"])

    def __repr__(self) -> str:
        return f"CharTokenizer({self.characters!r})"


def _check_symbols(symbols: list[str]) -> None:
    if not symbols:
        raise ConfigError("an empty alphabet can encode nothing; give at least one character")
    for symbol in symbols:
        if len(symbol) != 1 or "\ud800" <= symbol <= "\udfff":
            raise ConfigError(
                f"{symbol!r} is not one character; an alphabet is made of single ones, and half a "
                f"surrogate pair is none"
            )
    for symbol, following in pairwise(symbols):
        if symbol == following:
            raise ConfigError(
                f"{symbol!r} stands twice in the alphabet; CharTokenizer.from_text takes the "
                f"characters of a text"
            )


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
