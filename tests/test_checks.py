from dataclasses import dataclass
from typing import Annotated, Literal

import pytest

from tinygpt.checks import Limit, Rule, check_value
from tinygpt.errors import ConfigError

Odds = Annotated[float, Limit(above=0, way_out="leave it away")]


@dataclass(frozen=True)
class Settings:
    n: Annotated[int, Limit(at_least=1, at_most=9)] = 1
    odds: Odds | None = None
    way: Literal["a", "b"] | None = None
    names: tuple[str, ...] = ()
    inner: Rule | None = None


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("n", 10, "n=10 must be between 1 and 9"),
        ("n", 10**30, f"n={10**30} must be between 1 and 9"),
        ("n", None, "n=None must be a whole number"),
        ("odds", 0, "odds=0 must be above 0, or None (leave it away)"),
        ("odds", "1", "odds='1' must be a finite number, or None (leave it away)"),
        ("way", "c", "way='c' must be one of a, b, or None"),
        ("way", ["a"], "way=['a'] must be one of a, b, or None"),
        ("names", ["a"], "names=['a'] must be a tuple of texts"),
        ("inner", {}, "inner={} must be a Rule, or None"),
    ],
)
def test_the_message_says_what_the_hint_says(name, value, message):
    with pytest.raises(ConfigError) as caught:
        check_value(Settings, name, value)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("name", "value"),
    [("n", 9), ("odds", 1), ("odds", 1e300), ("odds", None), ("way", None), ("names", ("a",))],
)
def test_what_the_hint_allows(name, value):
    check_value(Settings, name, value)


@pytest.mark.parametrize(
    "hint", [dict[str, float], list[int], tuple[int, ...], int | str, int | str | None, object]
)
def test_a_hint_that_no_check_is_made_from_is_an_error_of_the_programmer(hint):
    with pytest.raises(TypeError, match="no check is made from the type hint"):
        Rule.of(hint)
