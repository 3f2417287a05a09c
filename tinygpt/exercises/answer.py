"""A learner's function, and what can be said of it: what it was given, what it took besides."""

import dis
from collections.abc import Callable, Iterator
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

from torch import Tensor

from .words import in_one_line, shown

TOOLS = (BuiltinFunctionType, FunctionType, ModuleType, type)
MUCH = 160  # characters of a list of arguments


class Untouched(Exception):
    """The skeleton still returns `...`."""


class Answer:
    """A learner's function, what it was given last, and what it returned then."""

    given: tuple = ()
    result: Any = None

    def __init__(self, function: Callable):
        self.function = function

    def __call__(self, *args, **options) -> Any:
        self.given = args
        self.result = self.function(*args, **options)
        if self.result is ...:
            raise Untouched
        return self.result


def arguments(given: tuple) -> str:
    """What an answer was given, in one line: tensors by their shape, models by their kind."""
    return in_one_line(", ".join(map(_told, given)), MUCH)


def _told(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}" if value.dim() else f"{value}"
    plain = isinstance(value, (bool, int, float, str, list, tuple))
    return shown(value, 40) if plain else f"a {type(value).__name__}"


def borrowed(function: FunctionType) -> list[str]:
    """The notebook's variables that a function reads: functions, classes and modules aside."""
    names = dict.fromkeys(_global_names(function.__code__))
    known = function.__globals__
    return [name for name in names if name in known and not isinstance(known[name], TOOLS)]


def _global_names(code: CodeType) -> Iterator[str]:
    for step in dis.get_instructions(code):
        if step.opname == "LOAD_GLOBAL":  # co_names would have those of attributes, too
            yield step.argval
        elif isinstance(step.argval, CodeType):
            yield from _global_names(step.argval)
