"""Figures of routing over training draw the tables of `measure` and say what is in them."""

import numpy as np
import pandas as pd
import pytest

from tinygpt import plots


def development(steps=(0, 50, 100), layers=(0, 1), seeds=(0, 1)):
    """Rows as `routing_over_training` makes them."""
    rows = [
        {
            "seed": seed,
            "step": step,
            "layer": layer,
            "saturation": 0.4 + step / 200 + 0.1 * layer * (step < 100) + 0.02 * seed,
            "saturation_by_chance": 0.25,
            "max_violation": 2 - step / 100 + layer + 0.5 * seed,
            "class_share": 0.1 + 0.2 * layer + 0.04 * seed,
            "style_share": 0.01,
        }
        for seed in seeds
        for step in steps
        for layer in layers
    ]
    return pd.DataFrame(rows)


def test_routing_over_training_draws_means_per_layer_and_says_where_it_was_half_way():
    figure = plots.plot_routing_over_training(development())
    left, right = figure.axes
    saturation, by_chance = left.lines[2:4]  # of the second layer
    assert list(saturation.get_xdata()) == [0, 50, 100]
    assert saturation.get_ydata() == pytest.approx([0.51, 0.76, 0.91])
    assert by_chance.get_ydata() == pytest.approx([0.25] * 3)
    assert right.lines[1].get_ydata() == pytest.approx([3.25, 2.75, 2.25])
    assert len({line.get_marker() for line in right.lines}) == 2  # told apart without colour
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["layer 0", "0 by chance", "layer 1", "1 by chance"]
    assert figure.alt == (
        "After 50 of 100 updates layer 0 makes 66 % of its final choices, 25 % by chance, and its "
        "MaxVio goes from 2.25 to 1.25; layer 1 makes 76 % of its final choices, 25 % by chance, "
        "and its MaxVio goes from 3.25 to 2.25."
    )


def test_co_activation_leaves_the_diagonal_and_idle_experts_empty():
    table = np.array([[0, 0.7, 0.3], [np.nan] * 3, [0.2, 0.8, 0]])
    figure = plots.plot_co_activation(table)
    shown = figure.axes[0].collections[0].get_array().reshape(3, 3)
    assert shown.mask.tolist() == [[True, False, False], [True] * 3, [False, False, True]]
    assert shown.compressed() == pytest.approx([0.7, 0.3, 0.2, 0.8])
    assert figure.alt == (
        "The closest of 3 experts are 2 and 1: 80 % of the tokens of 2 also go to 1; the mean over "
        "all pairs is 50 %."
    )
    assert table[0, 0] == 0  # what was given is as it was


def test_specialisation_is_that_of_the_last_step_with_a_dot_per_run():
    frame = development()
    frame.loc[frame["step"] < 100, "class_share"] = 0.9
    figure = plots.plot_specialisation(frame, ["class", "style"])
    left, right = figure.axes
    assert [bar.get_height() for bar in left.patches] == pytest.approx([12, 32])
    assert [bar.get_height() for bar in right.patches] == pytest.approx([1, 1])
    assert left.get_ylim() == right.get_ylim()
    (dots,) = left.lines
    assert sorted(dots.get_ydata()) == pytest.approx([10, 14, 30, 34])
    assert figure.alt == (
        "A token's expert tells of the class 12 % in layer 0, 32 % in layer 1; of the style 1 % in "
        "layer 0, 1 % in layer 1."
    )
    assert len(plots.plot_specialisation(frame, ["class"]).axes) == 1
