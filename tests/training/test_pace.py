import math

from tinygpt.training.pace import Pace


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
