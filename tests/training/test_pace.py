import math

import pytest

from tinygpt.training.pace import Pace, Stretch


def test_neither_compilation_nor_what_lies_between_is_in_the_pace():
    """Updates of 2.0 (compiled) and 0.1 s, one that was held up; an evaluation of 5 s between."""
    now = 0.0
    pace = Pace(lambda: now)
    for seconds in (2.0, 0.1, 0.1, 3.0, 0.1):
        with pace.update():
            now += seconds
        now += 5.0
        assert math.isclose(pace.seconds(), 2.0 if now < 8 else 0.1)


def test_one_update_counts_and_none_is_not_known():
    now = 0.0
    pace = Pace(lambda: now)
    assert math.isnan(pace.seconds())
    with pace.update():
        now += 2.0
    assert pace.seconds() == 2.0


def test_the_speed_is_that_of_the_median_update():
    now = 0.0
    pace = Pace(lambda: now)
    assert pace.tokens_per_s(100) is None
    for seconds in (9.0, 0.5, 0.5):
        with pace.update():
            now += seconds
    assert pace.tokens_per_s(100) == 200


def test_a_stretch_counts_from_where_it_began(monkeypatch):
    now = 7.0
    monkeypatch.setattr("time.perf_counter", lambda: now)
    stretch = Stretch(step=40, tokens_per_step=100)
    now = 9.0
    assert stretch.seconds() == 2.0
    assert stretch.tokens_per_s(step=50) == pytest.approx(500)
