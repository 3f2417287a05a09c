"""The pictures of the router lab, read back from their HTML."""

import re
from dataclasses import replace

import pytest
import torch

from tinygpt.widgets import router_chart as chart
from tinygpt.widgets.router_training import Look, Rules


def look(update, load, weight=0.5, loss=2.5):
    load = torch.tensor(load)
    return Look(update, load, load, weight, 1.0, loss, 3**0.5)


LOADS = ([0.25, 0.25, 0.25, 0.25], [0.7, 0.1, 0.2, 0.0], [0.03, 0.02, 0.05, 0.9])
LOOKS = [look(5 * i, load, 0.2 * i, 3.0 - 0.3 * i) for i, load in enumerate(LOADS)]


def bands(page):
    """The upper edge of each expert's band, from the path that is filled with its colour."""
    paths = re.findall(r"<path d='M[\d.]+ 176L([^V]*)V176Z' class='(.*?)'/>", page)
    return {
        name: [tuple(map(float, point.split(","))) for point in points.split()]
        for points, name in paths
    }


def test_bands_are_as_high_as_the_shares():
    found = bands(chart.stack(LOOKS, []))
    assert list(found) == ["e3", "e2", "e1", "e0"]  # the higher ones lie behind
    for i, load in enumerate(LOADS):
        edges = [found[f"e{e}"][i] for e in range(4)]
        assert [x for x, _ in edges] == pytest.approx([520 * 5 * i / 600] * 4, abs=0.06)
        tops = [176 * (1 - sum(load[: e + 1])) for e in range(4)]
        assert [y for _, y in edges] == pytest.approx(tops, abs=0.06)


def test_more_experts_than_colours_are_told_apart():
    found = bands(chart.stack([look(0, [1 / 16] * 16)], []))
    assert len(found) == 16
    assert {"e0", "e0 again", "e7", "e7 again"} <= set(found)


def test_only_bands_that_are_high_enough_have_a_number():
    page = chart.stack(LOOKS, [])
    assert re.findall(r">(\d)</text>", page.split("<path d='M0 0")[0])[-1:] == ["3"]
    labels = re.findall(r"y='([\d.]+)'>3</text>", page)
    assert [float(y) for y in labels] == pytest.approx([176 * 0.45 + 4], abs=0.1)
    for e, percent in enumerate((3, 2, 5, 90)):
        assert f"expert {e} {percent} %" in re.search("aria-label='(.*?)'", page)[1]


def test_only_the_last_updates_are_drawn():
    looks = [look(u, LOADS[0], loss=9.0 if u < 400 else 2.0) for u in range(0, 1001, 5)]
    before = [look(u, LOADS[0], loss=3.0) for u in range(0, 2001, 5)]
    page = chart.charts(looks, [(0, Rules()), (100, Rules("biases", 0.01))], before)
    assert len(bands(page)["e0"]) == 121
    assert ">400</text>" in page
    assert ">1,000 updates</text>" in page
    assert "biases" not in page
    lines = re.findall(r"<polyline points='(.*?)'", page)
    assert [len(line.split()) for line in lines] == [121] * 4
    assert ">3</text>" in page  # the loss axis: what is drawn, not what was
    assert ">9</text>" not in page


def test_lines_are_the_figures():
    page = chart.charts(LOOKS, [(0, Rules())], [])
    _, weight, _, loss = (line.split() for line in re.findall(r"<polyline points='(.*?)'", page))
    assert [float(p.split(",")[1]) for p in weight] == pytest.approx([62, 49.6, 37.2], abs=0.06)
    low, high = 2.25, 3.0
    expected = [62 * (high - value) / (high - low) for value in (3.0, 2.7, 2.4)]
    assert [float(p.split(",")[1]) for p in loss] == pytest.approx(expected, abs=0.06)
    assert "aria-label='Mean weight: 0.40 after update 10'" in page
    assert "aria-label='Loss (nats): 2.40 after update 10'" in page


def test_changes_are_marked_once_and_named_where_there_is_room():
    at = 300, Rules("Switch loss", 0.1)
    changes = [(0, Rules()), (0, Rules(top_k=2)), at, (300, Rules("Switch loss", 0.3))]
    changes += [(310, replace(at[1], z_weight=0.0))]
    assert chart.switches(changes) == [
        (300, "Switch loss 0.3, k = 1"),
        (310, "Switch loss 0.1, z-loss 0"),
    ]
    page = chart.stack([look(400, LOADS[0])], chart.switches(changes))
    assert page.count("stroke-dasharray='3 3'") == 2
    assert "z-loss 0" in page
    assert "Switch loss 0.3" not in page


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"balance": "none", "strength": 0.5}, "balance: none"),
        ({"strength": 0.03}, "biases 0.03"),
        ({"noise": "jitter"}, "noise: jitter"),
        ({"router_lr": 25.0}, "router × 25"),
        ({}, ""),
    ],
)
def test_what_changed(change, words):
    rules = Rules("biases", 0.01)
    assert chart.changed(rules, replace(rules, **change)) == words
    assert chart.changed(Rules(strength=0.1), Rules(strength=0.3)) == ""  # of no method


def test_facts_are_those_of_the_last_look():
    page = chart.facts(look(1234, [0.5, 0.498, 0.002, 0.0], 0.25, 2.345), "character")
    values = re.findall(r"<b>(.*?)</b><span>(.*?)</span>", page)
    assert ("1,234", "updates") in values
    assert ("1.00", "variation of mean load") in values
    assert ("2 of 4", "experts dead") in values
    assert ("0.25", "mean weight") in values
    assert ("2.35", "loss") in values or ("2.34", "loss") in values
    assert "0: even, 1.73: collapsed" in page
    assert "1.39: undecided" in page


def test_each_tile_has_its_character_number_and_colour():
    page = chart.tiles(
        ["<", "\n", "a"], torch.tensor([0, 9, 3]), torch.tensor([1.0, 0.5, 0.0]), "c"
    )
    assert re.findall(r"<b class='(.*?)' style='--a:(.*?)'>(.*?)<i>(\d+)</i></b>", page) == [
        ("e0", "0.72", "&lt;", "0"),
        ("e1 again", "0.42", "⏎", "9"),
        ("e3", "0.12", "a", "3"),
    ]
