"""How a lesson goes on with what a learner wrote of its core."""

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
