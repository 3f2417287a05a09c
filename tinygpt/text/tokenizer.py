"""From text to numbers and back: what every tokenizer can do."""

import codecs
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from ..errors import ConfigError
from ..files import write_text

CHUNK = 1 << 22  # tokens counted at a time
END_OF_TEXT = (
    "<|endoftext|>"  # how the mark between documents is shown, and called in GPT-2's files
)


@dataclass(frozen=True)
class TextSize:
    """How long a text is, in each of its units."""

    tokens: int
    characters: int
    bytes: int

    def nats_per_character(self, nats_per_token: float) -> float:
        """A mean loss per token as one per character, which tokenizers can be compared by."""
        return nats_per_token * (self.tokens / self.characters)


class Tokenizer(ABC):
    """Turns text into ids from 0 to `vocab_size` - 1, and back.

    A token stands for a run of UTF-8 bytes: one character, several, or a part of one. So the
    length of a text in tokens is `len(encode(text))`; what is looked for in a text that is being
    written is looked for in its characters, not in its tokens; and a text that comes token by
    token is read through a `Decoder`, which waits until a character is complete.

    Two rules hold wherever text comes in: `encode`, prompts, stop and banned texts, corpora. All
    of it is text: the words `<|endoftext|>` are spelled in ordinary tokens and never become the
    id `end_of_text`, which is put between documents as an id and has no text. And half of a
    surrogate pair, which no UTF-8 file can hold, is an `UnknownCharacterError`.
    """

    kind: ClassVar[str]  # its name in a file
    kinds: ClassVar[dict[str, type["Tokenizer"]]] = {}  # all that can be read from a file

    def __init_subclass__(cls) -> None:
        if "kind" in vars(cls):  # a subclass without one of its own is written as its parent is
            Tokenizer.kinds[cls.kind] = cls

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """V, the number of different tokens."""

    @property
    def end_of_text(self) -> int | None:
        """The id of the mark that ends a document, and a text that is generated; None: no mark."""
        return None

    @abstractmethod
    def encode_array(self, text: str) -> np.ndarray:
        """The ids of a text as an int32 array. `UnknownCharacterError` for what it cannot write."""

    @abstractmethod
    def cut(self, text: str) -> int:
        """A place, as late as may be, at which a text that goes on can be divided.

        The ids of the part before it and those of the rest, however that goes on, are together
        the ids of the whole. 0 where no place is sure.
        """

    @abstractmethod
    def token_bytes(self, token: int) -> bytes:
        """The UTF-8 bytes that a token stands for; none for a mark such as an end of text."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """What `save` writes beside the kind."""

    @classmethod
    @abstractmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """The tokenizer that `to_json` described."""

    def encode(self, text: str) -> list[int]:
        """The ids of a text."""
        return self.encode_array(text).tolist()

    def encode_many(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The ids of each of several texts."""
        return [self.encode_array(text) for text in texts]

    def encode_pieces(self, pieces: Iterable[str]) -> Iterator[np.ndarray]:
        """The ids of a text that comes in pieces of any size, as arrays; joined, the whole text's.

        Only what follows the last `cut` is held back until the next piece.
        """
        held = ""
        for piece in pieces:
            held += piece
            place = self.cut(held)
            yield self.encode_array(held[:place])
            held = held[place:]
        yield self.encode_array(held)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of a sequence (list, array or 1-D tensor) of ids.

        Bytes that are no whole character become U+FFFD. `ValueError` for an id that is none.
        """
        return b"".join([self._bytes[i] for i in self._checked(ids)]).decode(errors="replace")

    def decoder(self) -> "Decoder":
        """Reads tokens that come one by one."""
        return Decoder(self)

    def size(self, ids: Sequence[int]) -> TextSize:
        """How long the text of ids (array or 1-D CPU tensor) is in tokens, characters and bytes.

        They are counted piece by piece: ids that are memory-mapped stay on disk.
        """
        counts = np.zeros(self.vocab_size, dtype=np.int64)
        for start in range(0, len(ids), CHUNK):
            part = np.asarray(ids[start : start + CHUNK])
            self._checked([part.min(), part.max()])
            counts += np.bincount(part, minlength=len(counts))
        # every character has one byte that is not a continuation, 10xxxxxx
        begun = [sum(byte & 0xC0 != 0x80 for byte in token) for token in self._bytes]
        length = [len(token) for token in self._bytes]
        return TextSize(len(ids), characters=int(counts @ begun), bytes=int(counts @ length))

    @cached_property
    def texts(self) -> list[str | None]:
        """The text of each token alone; None where its bytes are no whole characters."""
        return [_text(token) for token in self._bytes]

    @cached_property
    def pieces(self) -> list[str]:
        """Each token as it is shown: its text, or its bytes as <E2><80>, or <|endoftext|>."""
        found = [
            "".join(f"<{byte:02X}>" for byte in token) if text is None else text
            for token, text in zip(self._bytes, self.texts, strict=True)
        ]
        if self.end_of_text is not None:
            found[self.end_of_text] = END_OF_TEXT
        return found

    def containing(self, characters: str) -> list[int]:
        """The tokens without which none of these characters can be written.

        Those that hold one of them, and those that end in its first bytes.
        """
        self.encode(characters)  # unknown ones are an error
        whole = [c.encode() for c in set(characters)]
        begun = tuple(c[:n] for c in whole for n in range(1, len(c)))
        return [
            i
            for i, token in enumerate(self._bytes)
            if any(c in token for c in whole) or token.endswith(begun)
        ]

    def made_of(self, characters: str) -> list[int]:
        """The tokens that stand for these characters and nothing else."""
        self.encode(characters)  # unknown ones are an error
        allowed = set(characters)
        return [i for i, text in enumerate(self.texts) if text and set(text) <= allowed]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what `save` writes: equal exactly when two tokenizers are."""
        content = json.dumps(self._content(), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def save(self, path: str | Path) -> None:
        """Write the tokenizer as JSON."""
        write_text(Path(path), json.dumps(self._content(), indent=0) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote; called on `Tokenizer`, of any kind. Else a `ConfigError`."""
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            name = content["type"]
            kind = Tokenizer.kinds.get(name)
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise ConfigError(f"{path} is not a tokenizer that `save` wrote: {error!r}") from error
        if kind is None or not issubclass(kind, cls):
            known = ", ".join(k.kind for k in Tokenizer.kinds.values() if issubclass(k, cls))
            raise ConfigError(
                f"{path} holds a tokenizer of the kind {name!r}; read here are: {known}. "
                f"Was it written by a later version?"
            )
        try:
            return kind.from_json(content)
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{path} is not a tokenizer that `save` wrote: {error}") from error

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    @cached_property
    def _bytes(self) -> list[bytes]:
        return [self.token_bytes(i) for i in range(self.vocab_size)]

    def _content(self) -> dict[str, Any]:
        return {"type": self.kind, **self.to_json()}

    def _checked(self, ids: Sequence[int]) -> list[int]:
        ids = ids.tolist() if hasattr(ids, "tolist") else list(ids)
        for i in ids:
            if not 0 <= i < self.vocab_size:
                raise ValueError(
                    f"id {i} is not in 0 to {self.vocab_size - 1}, the ids of this tokenizer"
                )
        return ids


class Decoder:
    """The text of tokens that come one by one; a character that is not complete is waited for.

    All that `add` and at last `end` return, joined, is `decode` of the tokens.
    """

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, token: int) -> str:
        """The characters that this token completes. `ValueError` for an id that is none."""
        (token,) = self._tokenizer._checked([token])
        return self._utf8.decode(self._tokenizer.token_bytes(token))

    def end(self) -> str:
        """U+FFFD if a character has been left unfinished."""
        return self._utf8.decode(b"", final=True)


def _text(piece: bytes) -> str | None:
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return None
