"""Figures of characters draw what they were given, each in its place."""

import numpy as np
import pytest
import torch

from tinygpt import plots


def test_bars_and_visible_characters():
    figure = plots.plot_bars(" \nx", [3, 2, 1], "count")
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["␣", "⏎", "x"]
    assert [bar.get_height() for bar in axes.patches] == [3, 2, 1]


@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_table_takes_arrays_and_tensors(kind):
    table = kind([[0.1, 0.9], [0.5, 0.5]])
    figure = plots.plot_table(table, "ab", "xy", xlabel="next", ylabel="current", vmax=1)
    mesh = figure.axes[0].collections[0]
    assert np.allclose(mesh.get_array().compressed(), [0.1, 0.9, 0.5, 0.5])
    assert mesh.get_clim() == (0, 1)


def test_page_places_each_character_and_leaves_the_unknown_blank():
    figure = plots.plot_page("ab\nc", [np.nan, 1.0, 2.0, 3.0], "nats")
    axes = figure.axes[0]
    grid = axes.images[0].get_array()
    assert grid.mask[0, 0]
    assert grid[0, 1] == 1
    assert grid[1, 0] == 3
    assert [text.get_text() for text in axes.texts] == ["a", "b", "⏎", "c"]


def test_filters_hatch_what_was_cut_and_say_what_is_left():
    stages = [("model", [0.1, 0.5, 0.25, 0.15]), ("top-k 2", torch.tensor([0, 2 / 3, 1 / 3, 0]))]
    figure = plots.plot_filters(stages, "a\nbc", count=3)
    model, top_k = figure.axes
    assert [label.get_text() for label in model.get_yticklabels()] == ["⏎", "b", "c"]
    assert [round(bar.get_width(), 3) for bar in model.patches] == [0.5, 0.25, 0.15]
    assert [round(bar.get_width(), 3) for bar in top_k.patches] == [0.667, 0.333, 0.15]
    assert [bool(bar.get_hatch()) for bar in top_k.patches] == [False, False, True]
    assert model.get_title().startswith("model\n4 characters")
    assert top_k.get_title() == "top-k 2\n2 characters\n$H$ 0.64, $e^H$ 1.9"
    assert model.get_xlim() == top_k.get_xlim()


def test_a_cut_bar_keeps_the_length_it_had_last():
    stages = [("model", [0.5, 0.3, 0.2]), ("a", [0.6, 0.4, 0.0]), ("b", [1.0, 0.0, 0.0])]
    last = plots.plot_filters(stages, "xyz").axes[-1]
    assert [round(bar.get_width(), 3) for bar in last.patches] == [1.0, 0.4, 0.2]
    assert last.get_title().endswith("$H$ 0.00, $e^H$ 1.0")


def test_one_filter_alone_can_be_drawn():
    (axes,) = plots.plot_filters([("model", [0.5, 0.5])], "ab").axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
