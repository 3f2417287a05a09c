"""The register of exercises: who checks what, and what a learner is told."""

import traceback
from collections.abc import Callable

from ..errors import TinyGPTError

_CHECKS: dict[str, Callable] = {}


class NotYet(TinyGPTError):
    """The answer is wrong; the message tells the learner what was seen and why that is not it."""


class Untouched(Exception):
    """The skeleton still returns `...`."""


def exercise(test: Callable) -> Callable:
    """Register `test(answer)` as the check of the learner's function of the same name.

    A test calls the answer, raises `NotYet` with a diagnosis, and returns a sentence of praise that
    adds something worth knowing.
    """
    _CHECKS[test.__name__] = test
    return test


def check(answer: Callable) -> None:
    """Say whether a learner's function is right and, if not, what is wrong. Never raises."""
    print(examine(answer)[1])


def examine(answer: Callable) -> tuple[bool, str]:
    """Whether a learner's function passes its check, and what `check` says of it."""
    name = getattr(answer, "__name__", repr(answer))
    if name not in _CHECKS:
        return False, f"There is no exercise called {name!r}. Keep the skeleton's function name."

    def attempted(*args, **options):
        result = answer(*args, **options)
        if result is ...:
            raise Untouched
        return result

    try:
        praise = _CHECKS[name](attempted)
    except Untouched:
        return False, f"{name}: not attempted yet (it returns ...)"
    except NotYet as wrong:
        return False, f"✗ {name}: {wrong}"
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        inside = [frame for frame in frames if frame.name == name]
        where = f", in its line «{inside[-1].line}»" if inside and inside[-1].line else ""
        return False, f"✗ {name} stopped with {type(error).__name__}: {error}{where}"
    return True, f"✓ {name}: {praise}"
