"""Guess before you run: a place for the guess, and the result beside it."""

import math
from typing import Any


def reveal(guess: Any, result: float | str, unit: str = "") -> None:
    """Print a learner's guess beside the result; `...` is no guess yet.

    A number is compared with a number in its `unit`, a name with a name.
    """
    print(beside(guess, result, unit))


def beside(guess: Any, result: float | str, unit: str = "") -> str:
    """What `reveal` prints."""
    told = f"the run: {_told(result)} {unit}".rstrip()
    if guess is ...:
        return f"no guess yet (put one in place of ...); {told}"
    return f"your guess: {_told(guess)}; {told}{_verdict(guess, result)}"


def _told(value: Any) -> str:
    return f"{value:.4g}" if _is_number(value) else f"{value}"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _verdict(guess: Any, result: float | str) -> str:
    """How far off, or whether it was the one; nothing where the two cannot be compared."""
    if isinstance(guess, str) and isinstance(result, str):
        same = guess.strip().casefold() == result.strip().casefold()
        return ". Right!" if same else ". Another one: why?"
    if guess == result:
        return ". Right!"
    if not (_is_number(guess) and _is_number(result)):
        return ""
    if math.isclose(guess, result, rel_tol=0.05):
        return ". Close!"
    return f", {abs(guess - result):.3g} {'lower' if result < guess else 'higher'}. Why?"
