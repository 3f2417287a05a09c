"""Descents are drawn step by step, on one scale."""

from tinygpt import plots

PATHS = {"small": [(0.0, 4.0), (1.0, 3.0)], "large": [(0.0, 4.0), (3.0, 3.5), (-2.0, 7.0)]}


def test_each_descent_has_a_panel_and_each_step_a_number():
    figure = plots.plot_descent([-1, 0, 1, 2, 3], [5, 4, 3, 3, 3.5], PATHS, "a weight")
    small, large = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["small", "large"]
    assert small.get_xlim() == large.get_xlim() == (-1, 3)
    assert small.get_ylim() == large.get_ylim()
    for axes, path in zip(figure.axes, PATHS.values(), strict=True):
        curve, steps = axes.get_lines()
        assert curve.get_ydata().tolist() == [5, 4, 3, 3, 3.5]
        assert list(zip(*steps.get_data(), strict=True)) == path
        assert [text.get_text() for text in axes.texts] == [str(i) for i in range(len(path))]
    assert figure.alt == "Descents, loss (nats) after each step. small: 4, 3; large: 4, 3.5, 7."
