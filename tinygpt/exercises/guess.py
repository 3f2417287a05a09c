"""Guess before you run: a place for the guess, and the result beside it."""

import math
from collections.abc import Collection
from typing import Any

Result = float | str


def reveal(guess: Any, result: Result, unit: str = "", among: Collection[Result] = ()) -> None:
    """Print a learner's guess beside the result; `...` is no guess yet.

    A number is compared with a number in its `unit`, a name with a name. With some to choose
    `among`, also numbers are names.
    """
    print(beside(guess, result, unit, among))


def beside(guess: Any, result: Result, unit: str = "", among: Collection[Result] = ()) -> str:
    """What `reveal` prints."""
    told = f"the run: {_told(result)} {unit}".rstrip()
    if guess is ...:
        return f"no guess yet (put one in place of ...); {told}"
    said = f"your guess: {_told(guess)}; {told}"
    if not among:
        return said + _verdict(guess, result)
    if _name(guess) not in map(_name, among):
        return f"{said}. Your guess is none of {', '.join(map(_told, among))}."
    return said + _verdict(_name(guess), _name(result))


def _told(value: Any) -> str:
    return f"{value:.4g}" if _is_number(value) else f"{value}"


def _name(value: Any) -> str:
    """A value as a name: `MLP 0` is `mlp-0`."""
    return _told(value).strip().casefold().replace(" ", "-")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _verdict(guess: Any, result: Result) -> str:
    """How far off, or whether it was the one; nothing where the two cannot be compared."""
    if isinstance(guess, str) and isinstance(result, str):
        same = _name(guess) == _name(result)
        return ". Right!" if same else ". Another one: why?"
    if guess == result:
        return ". Right!"
    if not (_is_number(guess) and _is_number(result)):
        return ""
    if math.isclose(guess, result, rel_tol=0.05):
        return ". Close!"
    return f", {abs(guess - result):.3g} {'lower' if result < guess else 'higher'}. Why?"
