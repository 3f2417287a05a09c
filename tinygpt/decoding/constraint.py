"""Which tokens may follow a text, when a function says which characters may."""

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from ..errors import ConfigError, TinyGPTError
from ..text import Tokenizer
from .filters import NONE, allow_only

Constraint = Callable[[str], Iterable[str]]  # a text -> the characters that may follow it


class _Node:
    """The tokens that begin with the same `length` characters; parted when they are asked for."""

    def __init__(self, texts: Sequence[str | None], tokens: list[int], length: int):
        self.tokens = [t for t in tokens if len(texts[t]) == length]  # they end here
        self._texts, self._length = texts, length
        self._longer = [t for t in tokens if len(texts[t]) > length]

    @cached_property
    def further(self) -> dict[str, "_Node"]:
        """The ways on, by the next character."""
        groups: dict[str, list[int]] = {}
        for token in self._longer:
            groups.setdefault(self._texts[token][self._length], []).append(token)
        return {c: _Node(self._texts, group, self._length + 1) for c, group in groups.items()}


class Constrained:
    """Keeps the tokens whose every character a constraint allows in its place.

    The first must be allowed after the text, the second after the text and the first, and so on.
    A token that is no whole text, such as a part of a character, is never allowed. The constraint
    is asked after each beginning of a token that it allows: seldom for digits, thousands of times
    if all that 50,000 tokens write is allowed.
    """

    def __init__(self, constraint: Constraint, tokenizer: Tokenizer):
        if not callable(constraint):
            raise ConfigError(
                f"constraint={constraint!r:.80} must be a function: of a text, to the characters "
                f"that may follow it"
            )
        self.constraint, self.tokenizer = constraint, tokenizer
        whole = [token for token, text in enumerate(tokenizer.texts) if text]
        self.root = _Node(tokenizer.texts, whole, 0)
        self._characters: dict[str, frozenset[str]] = {}  # of answers, which are much the same

    def __call__(self, logits: Tensor, tokens: Tensor, prompt_length: int) -> Tensor:
        """A step of the chain, see `Processor`."""
        mask = torch.zeros_like(logits, dtype=torch.bool)
        for row, history in zip(mask, tokens, strict=True):
            text = self.tokenizer.decode(history[history != NONE])
            row[self._allowed(text)] = True
        return allow_only(logits, mask)

    def _allowed(self, text: str) -> list[int]:
        """The tokens that may go on after the text; each text is asked about once."""
        found, left = [], [(text, self.root)]
        while left:
            text, node = left.pop()
            for character in self._answer(text) & node.further.keys():
                below = node.further[character]
                found += below.tokens
                if below.further:
                    left.append((text + character, below))
        return found

    def _answer(self, text: str) -> frozenset[str]:
        """The characters that the constraint allows after a text."""
        try:
            characters = "".join(self.constraint(text))
        except TinyGPTError:
            raise
        except Exception as error:
            raise ConfigError(
                f"the constraint gave no characters after {text[-40:]!r}: {error!r}; it must "
                f"return a text, or several"
            ) from error
        if characters not in self._characters:
            self.tokenizer.encode(characters)  # unknown ones are an error
            self._characters[characters] = frozenset(characters)
        return self._characters[characters]
