"""Lines with their names beside them, trainings, and intervals."""

import math

import numpy as np
import pandas as pd
import pytest

from tinygpt import plots


def test_lines_baselines_and_whole_numbers():
    figure = plots.plot_lines([0, 1, 2], {"a": [3, 2, 1]}, "context", "loss", baselines={"ln V": 4})
    (axes,) = figure.axes
    assert "ln V" in [text.get_text() for text in axes.texts]
    assert all(float(tick).is_integer() for tick in axes.get_xticks())
    many = plots.plot_lines([0, 1], {str(i): [i, i] for i in range(9)}, "", "")
    assert len(many.axes[0].lines) == 9
    named = plots.plot_lines(["one", "two"], {"a": [2, 1]}, "", "")
    assert list(named.axes[0].lines[0].get_ydata()) == [2, 1]


@pytest.mark.parametrize("names", [["real", "sampled", "beam search"], "abcdefghi", ["one batch"]])
def test_the_names_of_lines_lie_beside_the_panel_where_no_line_is(names):
    lines = {name: np.random.default_rng(i).random(200) for i, name in enumerate(names)}
    figure = plots.plot_lines(range(200), lines, "x", "y", "title", baselines={"even": 0.5})
    figure.draw_without_rendering()
    (legend,), (axes,) = figure.legends, figure.axes
    assert [text.get_text() for text in legend.get_texts()] == list(names)
    assert legend.get_window_extent().x0 >= axes.get_window_extent().x1
    assert legend.get_window_extent().x1 <= figure.bbox.x1
    assert legend.get_window_extent().y0 >= 0
    assert axes.get_legend() is None
    (label,) = axes.texts  # of the dotted line, where no curve can cross it
    assert label.get_window_extent().x0 >= axes.get_window_extent().x1
    assert label.get_window_extent().x1 <= legend.get_window_extent().x0


def test_training_draws_both_splits_and_the_baselines():
    losses = {"train_lm_loss": [2.0] * 3, "val_lm_loss": [2.5] * 3}
    perplexities = {"train_perplexity": [7.39] * 3, "val_perplexity": [math.exp(2.5)] * 3}
    frame = pd.DataFrame({"epoch": [0.0, 0.5, 1.0]} | losses | perplexities)
    left, right = plots.plot_training(frame, baselines={"bigram": 2.45}).axes
    assert [line.get_label() for line in left.lines[:2]] == ["train", "val"]
    assert list(left.lines[1].get_ydata()) == [2.5] * 3
    assert right.lines[1].get_ydata()[0] == pytest.approx(math.exp(2.5))
    assert "bigram" in [text.get_text() for text in left.texts]


def test_intervals_mark_the_reference():
    rows = {"greedy": (0.5, 0.4, 0.6), "real": (1.5, 1.2, 1.9)}
    figure = plots.plot_intervals({"surprise": rows, "words": rows}, reference="real")
    left, right = figure.axes
    assert [axes.get_title() for axes in (left, right)] == ["surprise", "words"]
    assert [label.get_text() for label in left.get_yticklabels()] == ["greedy", "real"]
    assert list(left.lines[0].get_xdata()) == [0.4, 0.6]
    assert left.lines[-1].get_linestyle() == ":"
    assert left.lines[-1].get_xdata()[0] == 1.5
    assert len(plots.plot_intervals({"surprise": rows}).axes[0].lines) == 4


def test_convergence_marks_the_best_and_draws_what_the_log_has():
    rows = {"step": [0, 10, 20], "train_lm_loss": [4.0, 2.0, 1.0], "val_lm_loss": [4.0, 2.25, 2.5]}
    nothing = {"lr": [0.0, 0.1, 0.05], "grad_norm": [math.nan, 1, 1], "load_cv": [math.nan] * 3}
    figure = plots.plot_convergence(pd.DataFrame(rows | nothing))
    names = [axes.get_ylabel() for axes in figure.axes]
    assert names == ["loss (nats per token)", "learning rate", "gradient norm"]
    best = figure.axes[0].lines[2]
    assert (list(best.get_xdata()), list(best.get_ydata())) == ([10], [2.25])
    assert len({axes.get_xlim() for axes in figure.axes}) == 1
    assert figure.alt == (
        "Loss from 4.000 on: after 20 updates train 1.000 and validation 2.500 nats per token; "
        "best: 2.250 at 10."
    )
    mixture = plots.plot_convergence(pd.DataFrame(rows | nothing | {"load_cv": [1.0, 0.5, 0.1]}))
    assert mixture.axes[-1].get_ylabel() == "load CV of experts"


def test_a_long_title_does_not_meet_the_legend():
    title = "Temperature flattens: more choices where the model was undecided"
    lines = {"'will not q'": [1, 2], "'What is the ', and more": [2, 9]}
    figure = plots.plot_lines([0, 1], lines, "x", "y", title)
    figure.draw_without_rendering()
    above, beside = figure.axes[0].title.get_window_extent(), figure.legends[0].get_window_extent()
    assert not above.overlaps(beside)
    assert above.x0 >= 0
    assert figure.alt.startswith(title)
