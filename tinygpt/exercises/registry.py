"""The register of exercises: who checks what, and what a learner is told."""

import inspect
import linecache
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FunctionType

from ..errors import TinyGPTError
from .answer import Answer, Untouched, arguments, borrowed
from .words import attempt, in_one_line, on_a_screen, shown

_CHECKS: dict[str, Callable] = {}
PACKAGE = str(Path(__file__).resolve().parents[1])
MUCH = 600  # characters of an error's text


class NotYet(TinyGPTError):
    """The answer is wrong; the message tells the learner what was seen and why that is not it."""


def exercise(test: Callable) -> Callable:
    """Register `test(answer)` as the check of the learner's function of the same name.

    A test calls the answer, raises `NotYet` with a diagnosis, and returns a sentence of praise that
    adds something worth knowing.
    """
    _CHECKS[test.__name__] = test
    return test


def exercises() -> dict[str, str]:
    """The names of all exercises, with what those of one notebook have in common."""
    return {name: test.__module__ for name, test in _CHECKS.items()}


def check(answer: Callable) -> None:
    """Say whether a learner's function is right and, if not, what is wrong. Never raises.

    Also the ■ that ends an endless loop ends the answer alone: it is said where it was.
    """
    print(on_a_screen(examine(answer)[1]))


def examine(answer: Callable) -> tuple[bool, str]:
    """Whether a learner's function passes its check, and what `check` says of it."""
    function = attempt(lambda: inspect.unwrap(answer), None)
    if not isinstance(function, FunctionType):
        return False, f"check takes a function, as in check(make_windows), not {shown(answer)}."
    name, watched = function.__name__, Answer(answer)
    if name not in _CHECKS:
        return False, f"There is no exercise called {name!r}. Keep the skeleton's function name."
    try:
        return True, f"✓ {name}: {_CHECKS[name](watched)}"
    except Untouched:
        return False, f"{name}: not attempted yet (it returns ...)"
    except NotYet as wrong:
        return False, f"✗ {name}: {wrong}{_borrowing(function)}"
    except BaseException as error:
        return False, f"✗ {name} {_stopped(error, function, watched)}{_borrowing(function)}"


def _stopped(error: BaseException, function: FunctionType, answer: Answer) -> str:
    """What went wrong, and in which line of the learner's: of the function, or of one it calls.

    Lines of the same notebook have the same global names; the package's lines are never shown.
    """
    frames = list(traceback.walk_tb(error.__traceback__))
    own = [
        linecache.getline(frame.f_code.co_filename, line).strip()
        for frame, line in frames
        if frame.f_globals is function.__globals__
        and not frame.f_code.co_filename.startswith(PACKAGE)
    ]
    where = f", in its line «{in_one_line(own[-1], 80)}»" if own and own[-1] else ""
    if isinstance(error, KeyboardInterrupt):
        return f"was stopped by hand{where}. Does its loop end?"
    text = in_one_line(attempt(lambda: str(error), ""), MUCH)
    what = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if any(frame.f_code is Answer.__call__.__code__ for frame, _ in frames):
        given = attempt(lambda: arguments(answer.given), "")
        return f"stopped with {what}{where}" + (f". It was given {given}." if given else "")
    return f"returns {shown(answer.result)}, which cannot be checked ({what})"


def _borrowing(function: FunctionType) -> str:
    """A word on the notebook's variables that the answer reads: their sizes are the notebook's."""
    if not (names := attempt(lambda: borrowed(function), [])):
        return ""
    quoted = " and ".join(f"`{name}`" for name in names)
    return f"\n  Your function reads {quoted} from the notebook, not its arguments. Is that meant?"
