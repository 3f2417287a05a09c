"""Which tokens may follow a text, when a function says which characters may."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..errors import ConfigError, TinyGPTError
from ..text import Tokenizer
from .filters import NONE, allow_only

Constraint = Callable[[str], Iterable[str]]  # a text -> the characters that may follow it


@dataclass
class _Node:
    """The tokens whose text ends here, and the ways on, by the next character."""

    tokens: list[int] = field(default_factory=list)
    further: dict[str, "_Node"] = field(default_factory=dict)


class Constrained:
    """Keeps the tokens whose every character a constraint allows in its place.

    The first must be allowed after the text, the second after the text and the first, and so on.
    A token that is no whole text, such as a part of a character, is never allowed.
    """

    def __init__(self, constraint: Constraint, tokenizer: Tokenizer):
        if not callable(constraint):
            raise ConfigError(
                f"constraint={constraint!r:.80} must be a function: of a text, to the characters "
                f"that may follow it"
            )
        self.constraint, self.tokenizer, self.root = constraint, tokenizer, _Node()
        for token, text in enumerate(tokenizer.texts):
            node = self.root
            for character in text or "":
                node = node.further.setdefault(character, _Node())
            node.tokens.append(token)  # at the root: no whole text, never found

    def __call__(self, logits: Tensor, tokens: Tensor, prompt_length: int) -> Tensor:
        """A step of the chain, see `Processor`."""
        mask = torch.zeros_like(logits, dtype=torch.bool)
        for row, history in zip(mask, tokens, strict=True):
            text = self.tokenizer.decode(history[history != NONE])
            row[self._allowed(text, self.root)] = True
        return allow_only(logits, mask)

    def _allowed(self, text: str, node: _Node) -> list[int]:
        """The tokens below a node that may go on after the text; each text is asked about once."""
        found = []
        for character in self._answer(text) & node.further.keys():
            below = node.further[character]
            found += below.tokens
            if below.further:
                found += self._allowed(text + character, below)
        return found

    def _answer(self, text: str) -> set[str]:
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
        self.tokenizer.encode(characters)  # unknown ones are an error
        return set(characters)
