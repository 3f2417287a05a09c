from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tinygpt import TrainConfig
from tinygpt.errors import CheckpointError
from tinygpt.training import lr_factor
from tinygpt.training.rounds import factor_at, first_round, from_numbers, resumed_rounds, to_numbers

COSINE = TrainConfig(max_steps=100, warmup_steps=10, min_lr_ratio=0.1)
WSD = replace(COSINE, schedule="wsd", min_lr_ratio=0.0, decay_fraction=0.6)
CONSTANT = replace(COSINE, schedule="constant")


def longer(config, step, end, **changes):
    """The factors of a run over 100 updates that at `step` gets another end; and the words."""
    new = replace(config, max_steps=end, **changes)
    numbers = to_numbers(first_round(100, config))
    state = {"step": step, "max_steps": 100, "rounds": numbers}
    rounds, words = resumed_rounds(state, config, new, 100, end)
    before = [lr_factor(at, 100, config) for at in range(min(step, end))]
    return before + [factor_at(rounds, at) for at in range(step, end)], words


@pytest.mark.parametrize("config", [COSINE, WSD, CONSTANT])
def test_a_run_has_one_round_which_is_its_schedule(config):
    rounds = first_round(100, config)
    assert [factor_at(rounds, at) for at in range(100)] == [
        lr_factor(at, 100, config) for at in range(100)
    ]
    factors, words = longer(config, 40, 100)
    assert factors == [lr_factor(at, 100, config) for at in range(100)]
    assert words == ""


def largest_step_up(factors):
    return max(b - a for a, b in pairwise(factors))


@pytest.mark.parametrize("config", [COSINE, WSD])
@pytest.mark.parametrize("end", [101, 105, 120, 200, 1000])
@pytest.mark.parametrize("step", [70, 100])
def test_once_it_falls_a_longer_run_gets_a_further_round(config, end, step):
    """Finished or not: the schedule goes to its end, then rises slowly and falls once more."""
    factors, words = longer(config, step, end)
    assert factors[:100] == [lr_factor(at, 100, config) for at in range(100)]
    assert words == f"; from step 100 to {end} the learning rate rises and falls once more"
    assert largest_step_up(factors[95:]) < 0.1  # as in the first round
    peak = min(1, config.min_lr_ratio + (1 - config.min_lr_ratio) * (end - 100) / 50)
    assert max(factors[100:]) == pytest.approx(peak, abs=0.05)
    assert factors[-1] == pytest.approx(config.min_lr_ratio, abs=0.06)


@pytest.mark.parametrize("config", [COSINE, WSD, CONSTANT])
@pytest.mark.parametrize("step", [5, 10, 30, 40])
@pytest.mark.parametrize("end", [150, 1000])
def test_before_it_falls_a_longer_run_is_as_if_it_had_been_so_from_the_start(config, step, end):
    if config is COSINE and step > 10:
        return  # it has begun to fall
    factors, words = longer(config, step, end)
    assert factors == [lr_factor(at, end, config) for at in range(end)]
    assert words == f"; the schedule now ends at step {end}"


def test_a_constant_learning_rate_stays():
    factors, _ = longer(CONSTANT, 100, 300)
    assert factors[10:] == [1.0] * 290


def test_a_stable_run_that_is_to_end_soon_falls_at_once():
    factors, words = longer(WSD, 38, 50)
    assert "falls from here on" in words
    assert factors[38:] == [1 - done / 12 for done in range(12)]


def test_a_shorter_run_ends_before_its_schedule():
    factors, words = longer(COSINE, 50, 70)
    assert factors == [lr_factor(at, 100, COSINE) for at in range(70)]
    assert words == "; the run ends before its schedule does, at step 100"
    factors, words = longer(COSINE, 50, 40)
    assert words == "; nothing is left to do"


def test_other_settings_of_the_schedule_begin_where_it_stands():
    factors, words = longer(COSINE, 100, 200, schedule="wsd")
    assert words.startswith("; the learning rate goes on by the new schedule, from 0.1")
    assert factors[99] < 0.11
    assert largest_step_up(factors[99:]) < 0.1
    assert factors[130] == 1.0
    factors, _ = longer(COSINE, 0, 100, schedule="constant", warmup_steps=0)
    assert factors == [1.0] * 100


def test_a_run_that_is_longer_may_become_longer_again():
    first = replace(COSINE, max_steps=200)
    rounds, _ = resumed_rounds({"step": 100}, COSINE, first, 100, 200)
    numbers = to_numbers(rounds)
    assert to_numbers(from_numbers(numbers, first)) == numbers
    at = {"max_steps": 200, "rounds": numbers}
    before_it_rises, _ = resumed_rounds(at | {"step": 105}, first, first, 200, 300)
    assert [factor_at(before_it_rises, step) for step in range(110, 300)] == [
        lr_factor(step - 100, 200, COSINE) for step in range(110, 300)
    ]
    later, _ = resumed_rounds(at | {"step": 150}, first, first, 200, 300)
    assert [factor_at(later, at) for at in range(100, 200)] == [
        factor_at(rounds, at) for at in range(100, 200)
    ]
    assert len(later) == 3


def test_a_constant_learning_rate_begins_where_a_falling_one_stands():
    first = replace(COSINE, max_steps=1000, warmup_steps=100)
    constant = replace(first, schedule="constant")
    rounds, _ = resumed_rounds({"step": 950}, first, constant, 1000, 1000)
    assert lr_factor(949, 1000, first) == pytest.approx(0.107, abs=1e-3)
    risen = rounds[-1].peak  # for a fifth of what is left
    assert risen == pytest.approx(0.107 + 0.893 * 10 / 100, abs=1e-3)
    assert [factor_at(rounds, at) for at in range(960, 1000)] == [risen] * 40
    assert largest_step_up([factor_at(rounds, at) for at in range(949, 1000)]) < 1 / 100


def test_a_further_round_that_is_to_end_soon_falls_from_its_own_peak():
    first = replace(WSD, max_steps=1000, warmup_steps=100)
    longer_, shorter = replace(first, max_steps=1200), replace(first, max_steps=1100)
    rounds, _ = resumed_rounds({"step": 1000}, first, longer_, 1000, 1200)
    state = {"step": 1060, "max_steps": 1200, "rounds": to_numbers(rounds)}
    ended, words = resumed_rounds(state, longer_, shorter, 1200, 1100)
    assert "falls from here on" in words
    assert factor_at(ended, 1060) == factor_at(rounds, 1059) == rounds[-1].peak == 0.4


SETTINGS = st.builds(
    TrainConfig,
    schedule=st.sampled_from(["constant", "cosine", "wsd"]),
    warmup_steps=st.sampled_from([0, 1, 10, 100]),
    min_lr_ratio=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    decay_fraction=st.sampled_from([0.0, 0.05, 0.6, 1.0]),
)
RESUMES = st.lists(  # updates made before, the end that is then set, settings if they change
    st.tuples(st.integers(1, 150), st.integers(1, 600), st.none() | SETTINGS), max_size=4
)


AGAIN = replace(CONSTANT, min_lr_ratio=0.0)


@given(SETTINGS, st.integers(1, 300), RESUMES)
@example(replace(COSINE, warmup_steps=0, min_lr_ratio=0.0), 80, [(80, 130, AGAIN), (1, 140, None)])
def test_however_a_run_is_resumed_its_learning_rate_never_jumps(config, end, resumes):
    """From one update to the next it rises by 1 / warmup_steps of its peak at most (where there is
    no warm-up, of the default's), by the settings of the later one."""
    rounds, step, factors = first_round(end, config), 0, []
    for updates, next_end, changed in [*resumes, (1000, 1, None)]:
        for at in range(step, min(step + updates, end)):
            factors.append(factor_at(rounds, at))
            assert factors[-1] - factors[max(0, at - 1)] <= slope(config) + 1e-9
        step = len(factors)
        if next_end > step:  # else nothing is done, and the checkpoint stays as it is
            state = {"step": step, "max_steps": end, "rounds": to_numbers(rounds)}
            end, before, config = next_end, config, changed or config
            rounds, _ = resumed_rounds(state, before, config, state["max_steps"], end)


def slope(config):
    return 1 / (config.warmup_steps or TrainConfig.warmup_steps)


@pytest.mark.parametrize(
    "numbers",
    [
        {},
        [],
        3,
        "x",
        [[0, 1]],
        [[0, 5, 0.0, 1.0, "a", 0.5]],
        [[5, 0, 0.0, 1.0, 1, 0.5]],
        [[0, 5, 9.0, 1.0, 1, 1]],
    ],
)
def test_what_are_no_rounds(numbers):
    with pytest.raises(CheckpointError, match="are none"):
        from_numbers(numbers, COSINE)
