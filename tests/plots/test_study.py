"""The figures of a study draw what its tables say."""

import itertools

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from tinygpt import plots
from tinygpt.study import ARMS, COMPARISONS, differences, judge

MS = {"dense": 20.0, "top-1": 25.0}


@pytest.fixture
def evaluations():
    """Two arms, three seeds, losses that fall from 3 to 2.x and differ by 0.1 between seeds."""
    return pd.DataFrame(
        {
            "arm": arm,
            "seed": seed,
            "step": step,
            "tokens": 10 * step,
            "flops": 1000 * step,
            "val_loss": 3 - step / 100 + 0.1 * seed + (0.5 if arm == "dense" else 0.0),
        }
        for arm, seed, step in itertools.product(MS, (1, 2, 3), range(0, 101, 10))
    )


def curves(figure):
    (axes,) = figure.axes
    return {line.get_color(): line.get_xydata() for line in axes.lines}


@pytest.mark.parametrize(
    ("budget", "ends"),
    [
        ("step", [100, 100]),
        ("tokens", [1000, 1000]),
        ("flops", [100_000, 100_000]),
        ("seconds", [2.0, 2.5]),
    ],
)
def test_curves_are_means_over_seeds_on_each_axis(evaluations, budget, ends):
    figure = plots.plot_study_curves(evaluations, MS, budget)
    dense, top_1 = curves(figure).values()
    assert [dense[-1][0], top_1[-1][0]] == pytest.approx(ends)
    assert dense[:, 1] == pytest.approx(3.7 - np.arange(30, 101, 10) / 100)  # seed 2's
    assert [text.get_text() for text in figure.axes[0].texts] == ["top-1", "dense"]
    assert figure.axes[0].get_xlabel() == plots.study.BUDGETS[budget]
    assert "means of 3 seeds" in figure.alt
    assert f"top-1 2.2000 at {ends[1]:,.4g}; dense 2.7000 at {ends[0]:,.4g}" in figure.alt


def test_no_line_is_only_dotted(evaluations):
    arms = [evaluations.assign(arm=f"arm {i}") for i in range(5)]
    lines = plots.plot_study_curves(pd.concat(arms), {}).axes[0].lines
    assert len({str(line._dash_pattern) for line in lines}) == 4  # then again, in another colour
    assert not any(line.get_linestyle() == ":" for line in lines)


def test_seeds_are_dots_and_their_mean_a_line():
    axes = plots.plot_seeds({"tuned": {1: 3.5, 2: 3.7}, "scratch": {4: 4.5}}).axes[0]
    drawn = [line.get_xydata().tolist() for line in axes.lines]
    assert drawn == [[[3.5, 0], [3.7, 0]], [[3.6, 0]], [[4.5, 1]], [[4.5, 1]]]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["tuned", "scratch"]
    assert axes.yaxis_inverted()


def test_bands_go_from_the_lowest_seed_to_the_highest(evaluations):
    band = plots.plot_study_curves(evaluations, MS).axes[0].collections[0].get_paths()[0]
    at_end = band.vertices[band.vertices[:, 0] == 100][:, 1]
    assert (at_end.min(), at_end.max()) == pytest.approx((2.6, 2.8))


def test_names_at_the_ends_do_not_lie_on_each_other(evaluations):
    many = pd.concat(evaluations.assign(arm=f"arm {i}") for i in range(11))
    figure = plots.plot_study_curves(many, {}, "tokens")
    heights = sorted(text.get_position()[1] for text in figure.axes[0].texts)
    low, high = figure.axes[0].get_ylim()
    assert min(np.diff(heights)) > 0.049 * (high - low)
    looks = [(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines]
    assert len(set(looks)) == 11


def test_differences_are_dots_with_intervals_and_only_sure_ones_are_filled():
    noise = [0.002, -0.002, 0.001, -0.001]
    means = {"dense": 1.90, "top-1": 1.80, "top-2": 1.9005, "dense-total": 1.70}
    losses = {
        arm: dict(enumerate(mean + np.roll(noise, i)))
        for i, (arm, mean) in enumerate(means.items())
    }
    table = differences(judge(losses, COMPARISONS, ARMS))
    figure = plots.plot_differences(table)
    left = figure.axes[0]
    zero, *lines = left.lines
    assert list(zero.get_xdata()) == [0, 0]
    intervals, dots = lines[::2], lines[1::2]
    assert [list(line.get_xdata()) for line in intervals] == table[["low", "high"]].values.tolist()
    assert [dot.get_xdata()[0] for dot in dots] == pytest.approx(table["difference"].tolist())
    filled = {
        name.get_text(): to_hex(dot.get_markerfacecolor()).upper()
        for name, dot in zip(left.get_yticklabels(), dots, strict=True)
    }
    assert filled == {
        "top-1 − dense": plots.BLUE,
        "top-2 − dense": "#FFFFFF",
        "top-1 − dense-total": plots.VERMILION,
        "top-2 − dense-total": plots.VERMILION,
    }
    assert "top-1 minus dense -0.1000; top-2 minus dense +0.0005 (no difference" in figure.alt
    right = figure.axes[0].child_axes[0].get_yticklabels()
    assert [label.get_text() for label in right] == table["equal"].tolist()
