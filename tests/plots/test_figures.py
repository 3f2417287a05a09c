"""Figures are shown by a kernel as they are, and draw what they were given."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_rgba

from tinygpt import plots


def test_a_figure_shows_itself_as_png():
    figure = plots.plot_bars("ab", [1, 2], "count")
    assert figure._repr_png_().startswith(b"\x89PNG")


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


def test_attention_maps_share_one_scale():
    assert plots.plot_attention(np.eye(3)[None], "to ", ["head 0"]).axes
    maps = np.stack([np.eye(3), np.full((3, 3), 1 / 3)])
    figure = plots.plot_attention(maps, "to ", ["head 0", "head 1"])
    panels = [axes for axes in figure.axes if axes.get_title()]
    assert [axes.get_title() for axes in panels] == ["head 0", "head 1"]
    assert {axes.collections[0].get_clim() for axes in panels} == {(0.0, 1.0)}
    assert [label.get_text() for label in panels[0].get_xticklabels()] == ["t", "o", "␣"]


def test_attention_hatches_what_may_not_be_seen_and_nothing_else():
    maps = np.array([[[1, 0, 0], [0, 1, 0], [0.5, 0, 0.5]], [[0.5, 0, 0.5], [1, 0, 0], [1, 0, 0]]])
    figure = plots.plot_attention(maps, " \nx", ["causal", "sees the future"])
    causal, leaking = (axes for axes in figure.axes if axes.get_title())
    assert causal.patch.get_hatch()
    hidden = np.ma.getmaskarray(causal.collections[0].get_array()).reshape(3, 3)
    assert hidden.tolist() == np.triu(np.ones((3, 3), bool), 1).tolist()
    assert leaking.collections[0].get_array().reshape(3, 3)[0, 2] == 0.5
    assert [label.get_text() for label in causal.get_yticklabels()] == ["␣", "⏎", "x"]
    # looks back: 0, 0, 1 and -1, 1, 2; on the token before: 0, 0 and 1, 0
    assert "causal 0.3 (0.00); sees the future 0.7 (0.50)." in figure.alt


def test_scores_are_drawn_alike_with_limits_of_their_own():
    scores = np.where(np.tri(3, dtype=bool), np.arange(9.0).reshape(3, 3) - 4, -np.inf)
    figure = plots.plot_attention(scores[None], "abc", ["scores"], size=4, limits=(-4, 4))
    mesh = figure.axes[0].collections[0]
    assert mesh.get_clim() == (-4, 4)
    assert mesh.get_array().mask.reshape(3, 3).tolist() == np.triu(np.ones((3, 3)), 1).tolist()
    assert figure.alt == "Attention scores over 3 tokens, from -4.0 to 4.0."


@pytest.mark.parametrize("size", [3, plots.THUMBNAIL, 250])
def test_thumbnails_of_all_heads_keep_every_peak(size):
    maps = [np.stack([np.eye(size), np.tril(np.ones((size, size)), -1)]) for _ in range(3)]
    maps[2][1, -1, 1] = 0.5
    figure = plots.plot_all_heads([torch.tensor(layer) for layer in maps])
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "layer 0",
        "layer 1",
        "layer 2",
    ]
    wall = axes.images[0].get_array()
    side = min(size, plots.THUMBNAIL)
    assert wall.shape == (3 * (side + plots.GUTTER), 2 * (side + plots.GUTTER))
    first = wall[:side, :side]
    assert (first.diagonal() == 1).all()  # also where several places share a point
    assert first.mask[0, -1]
    assert (axes.images[0].norm.vmin, axes.images[0].norm.vmax) == (0, 1)
    assert "layer 0, head 0 0.0 (0.00); layer 0, head 1 " in figure.alt


def test_a_point_of_a_thumbnail_is_the_largest_weight_of_its_place():
    head = np.random.default_rng(0).random((200, 200))
    small, edges = plots.thumbnail(head), np.arange(plots.THUMBNAIL + 1) * 200 // plots.THUMBNAIL
    for i, j in ((0, 0), (17, 3), (95, 95)):
        part = head[edges[i] : edges[i + 1], edges[j] : edges[j + 1]]
        assert small[i, j] == part.max()


def test_a_dot_for_each_head_and_a_line_for_one_that_attends_alike():
    rows = [(arm, seed, n, h, n + 0.1 * h + seed) for arm in "ab" for seed in (0, 1)
            for n in (0, 1) for h in range(3)]  # fmt: skip
    heads = pd.DataFrame(rows, columns=["arm", "seed", "layer", "head", "entropy"])
    heads = heads.assign(distance=1.0, previous_token=0.5, same_token=0.2, speaker_line=math.nan)
    even = {"entropy": 2.5, "distance": 3.0, "previous_token": 0.1, "same_token": 0.1}
    figure = plots.plot_heads(heads, even)
    assert [axes.get_title() for axes in figure.axes] == [*plots.HEAD_FIGURES.values()][:4]
    a, b, line = figure.axes[0].lines
    assert list(a.get_ydata()) == list(heads[heads.arm == "a"].entropy)
    assert set(np.round(b.get_xdata(), 3)) == {1 - 0.175, 1 + 0.175}  # its layers
    assert a.get_marker() != b.get_marker()
    assert list(line.get_ydata()) == [2.5, 2.5]
    assert "entropy (nats): a 0.00 to 2.20, b 0.00 to 2.20, attending alike to all" in figure.alt


def test_page_places_each_character_and_leaves_the_unknown_blank():
    figure = plots.plot_page("ab\nc", [np.nan, 1.0, 2.0, 3.0], "nats")
    axes = figure.axes[0]
    grid = axes.images[0].get_array()
    assert grid.mask[0, 0]
    assert grid[0, 1] == 1
    assert grid[1, 0] == 3
    assert [text.get_text() for text in axes.texts] == ["a", "b", "⏎", "c"]


def test_lines_baselines_and_whole_numbers():
    figure = plots.plot_lines([0, 1, 2], {"a": [3, 2, 1]}, "context", "loss", baselines={"ln V": 4})
    (axes,) = figure.axes
    assert "ln V" in [text.get_text() for text in axes.texts]
    assert all(float(tick).is_integer() for tick in axes.get_xticks())
    many = plots.plot_lines([0, 1], {str(i): [i, i] for i in range(9)}, "", "")
    assert len(many.axes[0].lines) == 9
    named = plots.plot_lines(["one", "two"], {"a": [2, 1]}, "", "")
    assert list(named.axes[0].lines[0].get_ydata()) == [2, 1]


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


def test_training_draws_both_splits_and_the_baselines():
    losses = {"train_lm_loss": [2.0] * 3, "val_lm_loss": [2.5] * 3}
    perplexities = {"train_perplexity": [7.39] * 3, "val_perplexity": [math.exp(2.5)] * 3}
    frame = pd.DataFrame({"epoch": [0.0, 0.5, 1.0]} | losses | perplexities)
    left, right = plots.plot_training(frame, baselines={"bigram": 2.45}).axes
    assert [line.get_label() for line in left.lines[:2]] == ["train", "val"]
    assert list(left.lines[1].get_ydata()) == [2.5] * 3
    assert right.lines[1].get_ydata()[0] == pytest.approx(math.exp(2.5))
    assert "bigram" in [text.get_text() for text in left.texts]


def test_scaling_has_a_panel_for_each_size_and_writes_the_slopes(tmp_path):
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
    figure.save(tmp_path / "cost.svg")
    assert f"<title>{figure.alt}</title>" in (tmp_path / "cost.svg").read_text(encoding="utf-8")
    figure.save(tmp_path / "cost.png")
    assert (tmp_path / "cost.png").read_bytes().startswith(b"\x89PNG")


def test_tricks_are_sorted_by_time_and_coloured_where_seeds_can_tell():
    frame = pd.DataFrame(
        [
            {"recipe": "base", "seconds_to_goal": 2.0},
            {"recipe": "better", "change": -0.05, "half_interval": 0.01, "seconds_to_goal": 4.0},
            {"recipe": "worse", "change": 0.05, "half_interval": 0.01, "seconds_to_goal": 3.0},
            {"recipe": "unclear", "change": -0.05, "half_interval": 0.1, "seconds_to_goal": 1.0},
            {"recipe": "never", "change": 0.5, "half_interval": 0.1},
        ]
    )
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
