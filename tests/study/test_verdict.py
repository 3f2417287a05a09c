"""Each sentence from a made-up table whose differences are known."""

import itertools
import math
import statistics
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tinygpt import study
from tinygpt.study import ARMS, COMPARISONS, Comparison, differences, losses_of, summary

NOISE = [0.004, -0.003, 0.001, -0.002, 0.002, -0.001, 0.003, -0.004]


def table(**means: float) -> dict[str, dict[int, float]]:
    """Losses of eight seeds around these means; `_` for the `-` in names."""
    shifts = itertools.count()
    return {
        name.replace("_", "-"): dict(enumerate(mean + np.roll(NOISE, next(shifts)), start=1))
        for name, mean in means.items()
    }


def judge(losses):
    """By the comparisons of models with and without experts."""
    return study.judge(losses, COMPARISONS, ARMS)


def only(losses):
    (verdict,) = judge(losses)
    return verdict


def test_the_first_is_better():
    verdict = only(table(dense=1.90, top_1=1.86))
    assert verdict.found == -1
    assert verdict.words.startswith(
        "top-1 of 4 experts is better than dense at equal active parameters and training FLOPs: "
        "by 0.0400 nats (95 % interval 0.03"
    )
    assert verdict.words.endswith("p < 0.001 after Holm's correction, 8 seeds)")


def test_the_first_is_worse():
    verdict = only(table(top_2=1.83, dense_total=1.80))
    assert verdict.found == 1
    assert verdict.words.startswith(
        "dense 4 times as wide is better than top-2 of 8 experts half as wide at equal total "
        "parameters: by 0.0300 nats (95 % interval 0.02"
    )


def test_no_difference_is_detected():
    verdict = only(table(top_1=1.861, dense_seconds_1=1.860))
    assert verdict.found == 0
    assert verdict.welch.low < 0 < verdict.welch.high
    assert verdict.words.startswith(
        "no difference detected between top-1 of 4 experts and dense given top-1's seconds in "
        "equal seconds: +0.0010 nats (95 % interval -0.00"
    )
    assert "alone" not in verdict.words


def test_an_interval_that_excludes_zero_may_be_chance_among_many_comparisons():
    two = {"top_1": 1.8600, "dense": 1.8640}
    alone = only(table(**two))
    assert alone.found == -1
    others = ("top_2", "shared", "dense_total", "frozen", "learned_x10", "frozen_x10")
    many = judge(table(**two, **dict.fromkeys(others, 1.862)))
    verdict = next(v for v in many if v.comparison == alone.comparison)
    assert verdict.welch == alone.welch
    assert verdict.welch.high < 0
    assert verdict.found == 0
    assert verdict.words.startswith("no difference detected between top-1")
    assert ", which alone would exclude 0, p = 0." in verdict.words


def test_where_experts_win_and_lose():
    means = {"dense": 1.90, "top_1": 1.86, "top_2": 1.83, "shared": 1.90}
    means |= {"dense_seconds_1": 1.86, "dense_seconds_2": 1.85, "dense_total": 1.80}
    top_1, top_2, shared = (ARMS[name].words for name in ("top-1", "top-2", "shared"))
    assert summary(judge(table(**means))) == [
        f"per training FLOP: experts win ({top_1} and {top_2}); no difference detected ({shared})",
        f"per second: experts win ({top_2}); no difference detected ({top_1})",
        f"per parameter in all: experts lose ({top_1} and {top_2} and {shared})",
    ]
    assert summary([]) == []


def test_the_figures_are_those_of_scipy_and_of_holm_by_hand():
    verdicts = judge(losses := table(dense=1.90, top_1=1.897, top_2=1.899, shared=1.8985))
    for verdict in verdicts:
        a, b = ([*losses[name].values()] for name in (verdict.comparison.first, "dense"))
        welch, paired = stats.ttest_ind(a, b, equal_var=False), stats.ttest_rel(a, b)
        interval = welch.confidence_interval()
        assert (verdict.welch.low, verdict.welch.high) == pytest.approx(tuple(interval))
        assert verdict.welch.p == pytest.approx(welch.pvalue)
        assert verdict.paired.p == pytest.approx(paired.pvalue)
        assert verdict.welch.mean == pytest.approx(statistics.fmean(a) - statistics.fmean(b))
    ordered = sorted(verdicts, key=lambda v: v.welch.p)
    by_hand = [min(1, (3 - i) * v.welch.p) for i, v in enumerate(ordered)]
    assert [v.p_holm for v in ordered] == pytest.approx(np.maximum.accumulate(by_hand))


def test_intervals_hold_the_true_difference_as_often_as_they_say():
    """Arms with five seeds and unequal spread: 95 of 100 intervals; of nothing, few findings."""
    random, inside, found, times = np.random.default_rng(0), 0, 0, 600
    for _ in range(times):
        one, other = random.normal(1.86, 0.002, 5), random.normal(1.86, 0.009, 5)
        verdict = only({"top-1": dict(enumerate(one)), "dense": dict(enumerate(other))})
        inside += verdict.welch.low < 0 < verdict.welch.high
        found += verdict.found != 0
    assert 0.93 < inside / times < 0.97
    assert found == times - inside


def test_what_cannot_be_compared_is_left_out():
    losses = table(dense=1.9, top_1=1.8, top_2=1.8)
    losses["top-2"] = {1: 1.8}
    assert [v.comparison.first for v in judge(losses)] == ["top-1"]
    losses["top-1"][3] = math.inf  # diverged
    assert judge(losses) == []


def test_seeds_may_be_others_in_each_arm():
    losses = {"top-1": {1: 1.8, 2: 1.81, 3: 1.79}, "dense": {3: 1.9, 4: 1.91}}
    verdict = only(losses)
    assert verdict.paired is None
    assert "3 and 2 seeds" in verdict.words
    (row,) = differences([verdict]).to_dict("records")
    assert row["first"] == "top-1"
    assert math.isnan(row["paired_p"])


PAIRED = [Comparison("mine", "yours", "with one start", paired=True)]


def test_what_begins_alike_is_judged_seed_by_seed():
    """A seed moves both by 0.01 and more; between them it makes 0.001."""
    yours = {1: 3.55, 2: 3.57, 3: 3.53}
    losses = {"mine": {1: 3.541, 2: 3.56, 3: 3.519}, "yours": yours}
    (apart,) = study.judge(losses, [Comparison("mine", "yours")])
    (verdict,) = study.judge(losses, PAIRED)
    assert apart.found == 0
    assert verdict.found == -1
    test = stats.ttest_rel([*losses["mine"].values()], [*yours.values()])
    assert verdict.p_holm == pytest.approx(test.pvalue)
    low, high = test.confidence_interval()
    assert verdict.words == (
        "mine is better than yours with one start: by 0.0100 nats (95 % interval "
        f"{-high:.4f} to {-low:.4f}, p = 0.003 after Holm's correction, 3 seeds, in pairs)"
    )
    (row,) = differences([verdict]).to_dict("records")
    assert (row["low"], row["high"], row["p"]) == pytest.approx((low, high, test.pvalue))


def test_pairs_need_two_seeds_in_common():
    losses = {"mine": {1: 3.5, 2: 3.6, 3: 3.5}, "yours": {3: 3.5, 4: 3.6}}
    assert study.judge(losses, PAIRED) == []


def test_a_chance_below_the_limit_is_not_rounded_to_it():
    verdict = only(table(dense=1.9, top_1=1.8))
    said = {p: replace(verdict, p_holm=p).words for p in (0.0495, 0.0504, 0.049, 0.051)}
    for p, words in said.items():
        assert f"p = {p} after" in words
        assert ("no difference" in words) == (p > 0.05)


def test_losses_from_a_table_of_runs():
    runs = pd.DataFrame(
        {"arm": ["a", "b", "a"], "seed": [1, 1, 2], "best_val_loss": [3.0, 4.0, 5.0]}
    )
    assert losses_of(runs) == {"a": {1: 3.0, 2: 5.0}, "b": {1: 4.0}}


def test_names_that_are_no_arms_of_ours_stand_for_themselves():
    (verdict,) = study.judge(table(mine=1.9, yours=1.8), [Comparison("mine", "yours")])
    assert verdict.words.startswith("yours is better than mine: by 0.1000 nats")
