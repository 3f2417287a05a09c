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
