"""From text to numbers and back, one character at a time."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from .errors import ConfigError, UnknownCharacterError
from .files import write_text


class CharTokenizer:
    """Gives each character of an alphabet its own id, in sorted order, from 0.

    >>> tok = CharTokenizer("abc")
    >>> tok.encode("cab"), tok.decode([2, 0, 1])
    ([2, 0, 1], 'cab')
    """

    def __init__(self, alphabet: Iterable[str]):
        self.characters = "".join(sorted(set(alphabet)))
        if not self.characters:
            raise ConfigError("an empty alphabet can encode nothing; give at least one character")
        points = _code_points(self.characters)  # (V,)
        self._ids = np.full(int(points.max()) + 2, -1, dtype=np.int32)  # last: anything beyond
        self._ids[points] = np.arange(len(points))

    @classmethod
    def from_text(cls, text: str) -> "CharTokenizer":
        """The tokenizer whose alphabet is the characters of `text`."""
        return cls(text)

    @property
    def vocab_size(self) -> int:
        """V, the number of different characters."""
        return len(self.characters)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the alphabet: equal exactly when two tokenizers encode alike."""
        return hashlib.sha256(self.characters.encode("utf-8", "surrogatepass")).hexdigest()

    def encode(self, text: str) -> list[int]:
        """The ids of a text's characters; `UnknownCharacterError` lists those it lacks."""
        return self.encode_array(text).tolist()

    def encode_array(self, text: str) -> np.ndarray:
        """As `encode`, as an int32 array `(len(text),)`: a million characters in milliseconds."""
        points = np.minimum(_code_points(text), len(self._ids) - 1)
        ids = self._ids[points]
        if (missing := np.flatnonzero(ids < 0)).size:
            unknown: dict[str, list[int]] = {}
            for position in missing.tolist():
                unknown.setdefault(text[position], []).append(position)
            raise UnknownCharacterError(unknown, self.vocab_size)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of a sequence (list, array or 1-D tensor) of ids."""
        ids = ids.tolist() if hasattr(ids, "tolist") else list(ids)
        bad = [i for i in ids if not 0 <= i < self.vocab_size]
        if bad:
            raise ValueError(
                f"id {bad[0]} is not in 0 to {self.vocab_size - 1}, the ids of this tokenizer"
            )
        return "".join([self.characters[i] for i in ids])

    def save(self, path: str | Path) -> None:
        """Write the alphabet as JSON."""
        content = {"type": "char", "characters": list(self.characters)}
        write_text(Path(path), json.dumps(content, indent=0) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> "CharTokenizer":
        """Read what `save` wrote."""
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            return cls(content["characters"])
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{path} is not a tokenizer that `save` wrote: {error}") from error

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CharTokenizer) and self.characters == other.characters

    def __hash__(self) -> int:
        return hash(self.characters)

    def __repr__(self) -> str:
        return f"CharTokenizer({self.characters!r})"


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
