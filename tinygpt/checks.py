"""One check of a configuration, made from its type hints.

A field's hint says all that its value must be: the type, whether None is allowed, and, in an
`Annotated` hint, the range. So a new field is checked without another line.
"""

import math
import sys
from dataclasses import dataclass, is_dataclass, replace
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from .errors import ConfigError

NAMES = {
    int: "a whole number",
    float: "a finite number",
    bool: "True or False",
    str: "a text",
    tuple: "a tuple of texts",
}


@dataclass(frozen=True)
class Limit:
    """The range of a number; `way_out` says beside it what to do, or what the ends mean."""

    at_least: float = -math.inf
    above: float = -math.inf
    at_most: float = math.inf
    below: float = math.inf
    way_out: str = ""

    def holds(self, value: float) -> bool:
        return self.at_least <= value <= self.at_most and self.above < value < self.below

    def __str__(self) -> str:
        if math.isfinite(self.at_least) and math.isfinite(self.at_most):
            return f"between {self.at_least} and {self.at_most}"
        names = ("at_least", "above", "at_most", "below")
        ends = {name.replace("_", " "): getattr(self, name) for name in names}
        return " and ".join(f"{name} {end}" for name, end in ends.items() if math.isfinite(end))


@dataclass(frozen=True)
class Rule:
    """What a type hint asks of a value."""

    kind: type  # one of NAMES, or another configuration
    optional: bool = False  # None is allowed
    choices: tuple[str, ...] = ()  # empty: any
    limit: Limit = Limit()

    @classmethod
    def of(cls, hint: Any) -> "Rule":
        """The rule that a type hint writes down; `TypeError` for a hint that none is made for."""
        origin, inner = get_origin(hint), get_args(hint)
        if origin is Annotated:
            return replace(cls.of(inner[0]), limit=inner[1])
        if origin is Literal:
            return cls(str, choices=inner)
        if origin in (Union, UnionType) and len(inner) == 2 and inner[1] is NoneType:
            return replace(cls.of(inner[0]), optional=True)
        kind = tuple if hint == tuple[str, ...] else hint
        if kind not in NAMES and not is_dataclass(kind):
            raise TypeError(f"no check is made from the type hint {hint}")
        return cls(kind)

    def admits(self, value: Any) -> bool:
        """Whether a value is valid."""
        if value is None:
            return self.optional
        if not _is(value, self.kind) or (self.choices and value not in self.choices):
            return False
        return self.kind not in (int, float) or self.limit.holds(value)

    def wanted(self, value: Any) -> str:
        """What a value that is not valid would have to be."""
        if self.choices:
            words = f"one of {', '.join(self.choices)}"
        elif _is(value, self.kind):
            words = str(self.limit)
        else:
            words = NAMES.get(self.kind) or f"a {self.kind.__name__}"
            if self.kind in (int, float) and hasattr(value, "item"):  # numpy's, or a tensor
                words += f" of Python: {self.kind.__name__}(...) makes one"
        way_out = f" ({self.limit.way_out})" if self.limit.way_out else ""
        return words + (", or None" if self.optional else "") + way_out


@cache
def rules(kind: type) -> dict[str, Rule]:
    """The rule of each field of a configuration class."""
    hints = get_type_hints(kind, include_extras=True)
    return {name: Rule.of(hint) for name, hint in hints.items()}


def check_value(kind: type, name: str, value: Any) -> None:
    """Raise `ConfigError` unless a value is valid for a field of a configuration class."""
    rule = rules(kind)[name]
    if not rule.admits(value):
        raise ConfigError(f"{name}={value!r} must be {rule.wanted(value)}")


def check_all(config: Any) -> None:
    """Raise `ConfigError` for the first field whose value its type hint does not allow."""
    for name in rules(type(config)):
        check_value(type(config), name, getattr(config, name))


def check(condition: bool, message: str) -> None:
    """Raise `ConfigError` unless a condition holds: for what hints cannot say."""
    if not condition:
        raise ConfigError(message)


def _is(value: Any, kind: type) -> bool:
    """Whether a value has a type. True is no number, 3.0 not whole, and NaN no float."""
    if isinstance(value, bool):
        return kind is bool
    if kind is float:
        return isinstance(value, (int, float)) and abs(value) <= sys.float_info.max
    if kind is tuple:
        return isinstance(value, tuple) and all(isinstance(item, str) for item in value)
    return isinstance(value, kind)
