import math
import re

import numpy as np
import pytest
import torch

from tinygpt import CharTokenizer, DecodingConfig
from tinygpt.widgets import playground_chart as chart


def stage(name, p, kept=None):
    p = np.array(p)
    return chart.Stage(name, p, p > 0 if kept is None else np.array(kept))


def test_thresholds_are_drawn_where_they_are():
    model_, cut = stage("model", [0.1, 0.5, 0.1, 0.3]), stage("top-p 0.7", [0, 0.625, 0, 0.375])
    shown = chart.bars([model_, cut], "abcd")
    assert "<u style='--x:0.7000;--rows:4'></u>" in shown
    assert re.findall(r"<em style='--x:(.*?)'", shown) == ["0.5000", "0.8000", "0.9000", "1.0000"]
    column = shown[shown.index("title='top-p 0.7'") :]
    classes = re.findall(r"<div class='(row.*?)'>", column)
    assert classes == ["row", "row last", "row cut", "row cut"]
    peak, small = stage("model", [0.8, 0.1, 0.1]), stage("min-p 0.5", [0.4, 0.3, 0.3])
    assert "<u style='--x:0.2500" in chart.bars([peak, small], "abc")  # .5 * .4, on a scale to .8


def test_a_cut_that_leaves_gaps_has_no_line():
    stages = [stage("model", [0.5, 0.3, 0.2]), stage("bans", [0.6, 0, 0.4])]
    shown = chart.bars(stages, "abc")
    assert " cut'" in shown
    assert " last" not in shown


def test_what_became_of_each_symbol():
    stages = [
        stage("model", [0.4, 0.3, 0.2, 0.1]),
        stage("top-k 3", [0.5, 0.3, 0.2, 0]),
        stage("top-p 0.6", [0.6, 0.4, 0, 0]),
    ]
    fates = [chart.fate(stages, i) for i in range(4)]
    assert fates == ["kept", "kept", "cut by top-p 0.6", "cut by top-k 3"]
    assert chart.fate([stage("model", [1.0, 0.0], kept=[True, True])], 1) == "kept"
    assert "cut by top-k 3, put here" in chart.table(stages, "abcd", written=3)


def test_tiny_is_not_cut():
    logits = torch.tensor([0.0, -2000.0])
    found = chart.stages(
        logits, torch.tensor([0]), DecodingConfig(temperature=0.5), CharTokenizer("ab")
    )
    assert found[-1].p[1] == 0
    assert found[-1].kept.all()


def test_the_rare_symbols_share_a_row():
    symbols = "".join(map(chr, range(65, 130)))
    p = np.linspace(2, 1, 65) / np.linspace(2, 1, 65).sum()
    shown = chart.rows(p, written=60)
    assert len(shown) == chart.ROWS
    assert shown[-1] == 60
    assert (chart.rows(p, written=3) == np.arange(chart.ROWS)).all()
    kept = np.arange(65) < 30
    stages = [stage("model", p), stage("top-k 30", p * kept / p[kept].sum(), kept)]
    assert ">+45</div>" in chart.bars(stages, symbols)
    assert "<small>35 cut</small>" in chart.bars(stages, symbols)
    shown = chart.table(stages, symbols)
    assert f"<td>{100 * p[20:].sum():.2f}</td>" in shown
    assert "10 kept" in shown


def test_a_sure_thing_has_no_entropy():
    sure = stage("model", [1.0, 0.0])
    assert f"{sure.entropy:.2f}" == "0.00"
    assert stage("model", [0.5, 0.5]).entropy == pytest.approx(math.log(2))
