"""How varied a text is."""

import math
import re
from collections.abc import Collection

from ..errors import ConfigError


def words(text: str) -> list[str]:
    """The words of a text in small letters, with the apostrophes inside them.

    >>> words("O'er the hill, ROMEO!")
    ["o'er", 'the', 'hill', 'romeo']
    """
    return re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)*", text.lower())


def distinct_n(text: str, n: int = 2) -> float:
    """Share of different ones among all runs of n words (after Li et al. 2016).

    1 means that no run of n words comes twice; a text of fewer than n words is nan.

    >>> distinct_n("to be or not to be", 2)  # to be, be or, or not, not to, to be
    0.8
    """
    if n < 1:
        raise ConfigError(f"n={n} must be at least 1")
    found = words(text)
    grams = [tuple(found[i : i + n]) for i in range(len(found) - n + 1)]
    return len(set(grams)) / len(grams) if grams else math.nan


def repetition_rate(text: str, n: int = 12) -> float:
    """Share of the characters that lie in a run of n characters which stood in the text before.

    A text that goes round in a circle comes close to 1; an empty text is nan.

    >>> repetition_rate("abcabcabx", n=3)  # abcab: the second time round
    0.5555555555555556
    """
    if n < 1:
        raise ConfigError(f"n={n} must be at least 1")
    seen, repeated = set(), [False] * len(text)
    for i in range(len(text) - n + 1):
        if text[i : i + n] in seen:
            repeated[i : i + n] = [True] * n
        seen.add(text[i : i + n])
    return sum(repeated) / len(text) if text else math.nan


def valid_word_share(text: str, vocabulary: Collection[str]) -> float:
    """Share of a text's words that are in `vocabulary` (small letters); nan without words.

    A word that the text breaks off in the middle of is left out.

    >>> valid_word_share("The catt sat on", {"the", "cat", "sat"})  # on: cut off?
    0.6666666666666666
    """
    found = words(text)
    if text[-1:].isalpha():
        found = found[:-1]
    return sum(word in vocabulary for word in found) / len(found) if found else math.nan
