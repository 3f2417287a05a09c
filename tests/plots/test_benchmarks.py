"""Figures of the benchmarks write what their tables hold where it is to be read."""

import pandas as pd
from matplotlib.colors import to_rgba

from tinygpt import plots


def test_scaling_has_a_panel_for_each_size_and_writes_the_slopes():
    rows = [
        {"varied": varied, "what": what, "size": size, "us_per_token": cost * size * more}
        for varied, more in (("context", 1), ("batch", 10))
        for what, cost in (("training step", 30.0), ("decoding", 31.0))
        for size in (64, 128)
    ]
    for row in rows[1::2]:
        row |= {"slope_us_per_token": -0.254, "slope_mflop_per_token": 0.55}
    figure = plots.plot_scaling(pd.DataFrame(rows))
    left, right = figure.axes
    assert [axes.get_xlabel() for axes in (left, right)] == ["context", "batch"]
    assert left.get_ylim() == right.get_ylim()
    assert (left.get_xscale(), left.get_yscale()) == ("log", "log")
    assert [list(line.get_ydata()) for line in left.lines] == [[1920, 3840], [1984, 3968]]
    assert len({line.get_marker() for line in left.lines}) == 2
    first, second = left.texts
    assert first.get_text() == second.get_text() == "−0.25 (0.55)"
    assert second.xy[1] > 1.3 * first.xy[1]  # else one would lie on the other
    assert "Against batch from 64 to 128: training step −0.25 (0.55), decoding" in figure.alt


def test_tricks_are_sorted_by_time_and_coloured_where_seeds_can_tell():
    frame = pd.DataFrame(
        [
            {"recipe": "base", "seconds_to_goal": 2.0},
            {"recipe": "better", "change": -0.05, "p_holm": 0.01, "seconds_to_goal": 4.0},
            {"recipe": "worse", "change": 0.05, "p_holm": 0.01, "seconds_to_goal": 3.0},
            {"recipe": "unclear", "change": -0.05, "p_holm": 0.1, "seconds_to_goal": 1.0},
            {"recipe": "never", "change": 0.5, "p_holm": 0.01},
        ]
    )
    frame["half_interval"] = 0.01  # of which none has 0: one is chance among so many
    figure = plots.plot_tricks(frame, 1.88)
    left, right = figure.axes
    names = [label.get_text() for label in left.get_yticklabels()]
    assert names == ["never", "better", "worse", "base", "unclear"]  # from below
    dots = left.collections[-1].get_facecolors()
    expected = (plots.ORANGE, plots.BLUE, plots.ORANGE, plots.GREY, plots.GREY)
    assert [tuple(dot) for dot in dots] == [to_rgba(colour) for colour in expected]
    assert left.get_ylim() == right.get_ylim()
    assert [text.get_text() for text in right.texts] == ["not known", "4.0", "3.0", "2.0", "1.0"]
    assert figure.alt == (
        "5 recipes reach 1.88 in 1.0 to 4.0 seconds. Clearly better at equal updates: better."
    )
