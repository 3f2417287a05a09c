"""How a lesson goes on with what a learner wrote: a function of its core, a guess of its result."""

from collections.abc import Callable

from .registry import examine


def solved(answer: Callable) -> bool:
    """Whether a learner's function passes its check, so that the lesson goes on with it; says so.

    >>> if not solved(draw):
    ...     def draw(logits, generator):  # the shown solution
    ...         return torch.multinomial(logits.softmax(-1), 1, generator=generator).item()
    """
    passed, _ = examine(answer)
    name = getattr(answer, "__name__", "this")
    if passed:
        print(f"{name} passes its check: the notebook goes on with it")
    else:
        print(f"{name} is not there yet: the notebook goes on with the shown solution")
    return passed


def beside(guess: object, found: object) -> None:
    """Print a guess that was written before a run beside what the run found.

    The guess is `...` as long as there is none. Of two numbers, their difference is told as well.
    """
    if guess is ...:
        print(f"your guess: none yet (write it in place of ...) · this run: {_told(found)}")
        return
    numbers = [value for value in (guess, found) if isinstance(value, (int, float))]
    off = f" · off by {_told(abs(guess - found))}" if len(numbers) == 2 else ""
    print(f"your guess: {_told(guess)} · this run: {_told(found)}{off}")


def _told(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
