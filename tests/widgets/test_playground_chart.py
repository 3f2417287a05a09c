import re

import numpy as np

from tinygpt.widgets import playground_chart as chart
from tinygpt.widgets.stages import ROWS


def test_thresholds_are_drawn_where_they_are(stage):
    found = [stage(None, None, [0.1, 0.5, 0.1, 0.3]), stage("top-p", 0.7, [0, 0.625, 0, 0.375])]
    shown = chart.bars(found, "abcd")
    assert "<u style='--x:0.7000;--rows:4'></u>" in shown
    assert re.findall(r"<em style='--x:(.*?)'", shown) == ["0.5000", "0.8000", "0.9000", "1.0000"]
    column = shown[shown.index("title='top-p 0.7'") :]
    classes = re.findall(r"<div class='(row.*?)'>", column)
    assert classes == ["row", "row last", "row cut", "row cut"]
    peak, small = stage(None, None, [0.8, 0.1, 0.1]), stage("min-p", 0.5, [0.4, 0.3, 0.3])
    assert "<u style='--x:0.2500" in chart.bars([peak, small], "abc")  # .5 * .4, on a scale to .8


def test_the_value_of_a_step_is_not_read_from_its_label(stage):
    """A third of the total is the threshold, although the heading says less precisely so."""
    third = stage("top-p", 1 / 3, [1.0, 0, 0])
    shown = chart.bars([stage(None, None, [0.5, 0.3, 0.2]), third], "abc")
    assert "<u style='--x:0.3333;--rows:3'></u>" in shown
    assert "title='top-p 0.333333'" in shown


def test_a_cut_that_leaves_gaps_has_no_line(stage):
    stages = [stage(None, None, [0.5, 0.3, 0.2]), stage("bans", None, [0.6, 0, 0.4])]
    shown = chart.bars(stages, "abc")
    assert " cut'" in shown
    assert " last" not in shown
    assert "title='bans'" in shown


def test_a_token_that_was_cut_and_put_there_is_said_to_be(stage):
    stages = [stage(None, None, [0.4, 0.3, 0.2, 0.1]), stage("top-k", 3, [0.5, 0.3, 0.2, 0])]
    assert "cut by top-k 3, put here" in chart.table(stages, "abcd", written=3)


def test_the_rare_symbols_share_a_row(stage):
    symbols = "".join(map(chr, range(65, 130)))
    p = np.linspace(2, 1, 65) / np.linspace(2, 1, 65).sum()
    kept = np.arange(65) < 30
    stages = [stage(None, None, p), stage("top-k", 30, p * kept / p[kept].sum(), kept)]
    assert ">+45</div>" in chart.bars(stages, symbols)
    assert "<small>35 cut</small>" in chart.bars(stages, symbols)
    shown = chart.table(stages, symbols)
    assert f"<td>{100 * p[ROWS:].sum():.2f}</td>" in shown
    assert "10 kept" in shown


def test_longer_tokens_have_a_wider_column(stage):
    stages = [stage(None, None, [0.6, 0.4])]
    widths = [
        int(re.search(r"--width:(\d+)px", chart.bars(stages, symbols))[1])
        for symbols in ("ab", ["a", " kitchen"], ["a", "<" * 80])
    ]
    assert widths == [34, 74, 106]
    assert "<div class='row'>␣kitchen</div>" in chart.bars(stages, ["a", " kitchen"])
