"""A loss in the units that it is told in: per token, word, character and byte of the same text."""

import math

from torch import Tensor

from ..text import TextSize, Tokenizer

LARGEST = 700.0  # nats: the exponential of more is no float
PART = 1 << 20  # tokens that are read at a time


def perplexity(nats: float) -> float:
    """e to the loss; with nats per token it is a perplexity per token."""
    return math.exp(min(nats, LARGEST))


def in_units(nats_per_token: float, size: TextSize, words: int) -> dict[str, float | None]:
    """One mean loss in other units, each named with its unit; None per word where there is none.

    All of them are the same total over the same text, so only those per word, character and byte
    can be compared between tokenizers. A figure per word is often a hundred times that per token.
    """
    nats = nats_per_token * size.tokens
    return {
        "perplexity_per_token": perplexity(nats_per_token),
        "perplexity_per_word": perplexity(nats / words) if words else None,
        "bits_per_char": nats / size.characters / math.log(2),
        "bits_per_byte": nats / size.bytes / math.log(2),
    }


def count_words(tokenizer: Tokenizer, tokens: Tensor) -> int:
    """How many runs of characters without white space the text of 1-D tokens has.

    It is read part by part: tokens that are memory-mapped stay on disk.
    """
    words, inside = 0, False
    for start in range(0, len(tokens), PART):
        # a character that is cut in two is no white space on either side
        if text := tokenizer.decode(tokens[start : start + PART]):
            words += len(text.split()) - (inside and not text[0].isspace())
            inside = not text[-1].isspace()
    return words
