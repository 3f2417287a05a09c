"""Pages of characters on their experts' colours, and what each expert gets."""

import pytest
import torch

from tinygpt import plots


def test_plot_routing_places_and_colours_each_character():
    experts, weights = [0, 1, 8, 9], [1.0, 0.5, 0.0, 0.3]
    figure = plots.plot_routing("a\n\nb", experts, weights, 9)
    words = [text.get_text() for text in figure.axes[0].texts]
    assert words == ["a", "0", "⏎", "1", "⏎", "8", "b", "–"]
    above = [text.get_position()[1] < 0.5 for text in figure.axes[0].texts[::2]]
    assert above == [True, True, True, False]
    colours = figure.axes[0].collections[0].get_facecolor()
    assert colours[0][3] == pytest.approx(plots.tint(1.0))
    assert colours[2][3] == pytest.approx(plots.tint(0.5))
    assert [text.get_text() for text in figure.legends[0].texts][-1] == "expert 8"


def test_plot_routing_draws_the_second_expert_and_cuts_lines():
    figure = plots.plot_routing("abcde", [[0, 1]] * 5, [[0.6, 0.4]] * 5, 2, columns=2)
    places = [text.get_position() for text in figure.axes[0].texts[::2]]
    assert [(x, round(y + 0.1)) for x, y in places] == [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2)]
    assert len(figure.axes[0].collections[0].get_paths()) == 3 * 5


def test_plot_loads_has_the_even_line():
    figure = plots.plot_loads([[0.1, 0.9], [0.5, 0.5]], ["layer 0", "layer 1"])
    assert [axes.get_title() for axes in figure.axes] == ["layer 0", "layer 1"]
    for axes in figure.axes:
        assert axes.lines[0].get_ydata()[0] == 0.5
    assert [bar.get_height() for bar in figure.axes[0].patches] == [0.1, 0.9]
    assert len(plots.plot_loads(torch.full((16,), 1 / 16), ["all"]).axes[0].patches) == 16


def test_the_distribution_is_told_over_an_even_share_with_the_cv_of_each_layer():
    figure = plots.plot_expert_distribution([[0.1, 0.9], [0.5, 0.5]], [1, 3])
    left, right, _ = figure.axes
    assert [text.get_text() for text in left.texts] == ["0.20", "1.80", "1.00", "1.00"]
    assert [label.get_text() for label in left.get_yticklabels()] == ["1", "3"]
    assert [bar.get_width() for bar in right.patches] == pytest.approx([0.8, 0])
    assert left.get_ylim() == right.get_ylim()  # the bars lie beside their rows
    assert "the fullest gets 1.80 of an even share, the emptiest 0.20" in figure.alt
    many = plots.plot_expert_distribution(torch.full((12, 64), 1 / 64), range(12))
    assert len(many.axes[0].get_xticklabels()) == 32
    assert many.get_figwidth() < 13
