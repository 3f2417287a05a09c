"""Attention maps on one scale, thumbnails that keep each peak, a dot for each head."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from tinygpt import plots


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
