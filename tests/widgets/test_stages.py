import math

import numpy as np
import pytest
import torch

from tinygpt import CharTokenizer, DecodingConfig
from tinygpt.widgets.stages import MANY, ROWS, fate, rows, sample, stages


def test_what_became_of_each_symbol(stage):
    found = [
        stage(None, None, [0.4, 0.3, 0.2, 0.1]),
        stage("top-k", 3, [0.5, 0.3, 0.2, 0]),
        stage("top-p", 0.6, [0.6, 0.4, 0, 0]),
    ]
    fates = [fate(found, i) for i in range(4)]
    assert fates == ["kept", "kept", "cut by top-p 0.6", "cut by top-k 3"]
    assert fate([stage(None, None, [1.0, 0.0], kept=[True, True])], 1) == "kept"


def test_tiny_is_not_cut():
    logits = torch.tensor([0.0, -2000.0])
    found = stages(logits, torch.tensor([0]), DecodingConfig(temperature=0.5), CharTokenizer("ab"))
    assert found[-1].p[1] == 0
    assert found[-1].kept.all()


def test_the_written_symbol_is_among_the_rows():
    p = np.linspace(2, 1, 65) / np.linspace(2, 1, 65).sum()
    shown = rows(p, written=60)
    assert len(shown) == ROWS
    assert shown[-1] == 60
    assert (rows(p, written=3) == np.arange(ROWS)).all()


def test_a_sure_thing_has_no_entropy(stage):
    sure = stage(None, None, [1.0, 0.0])
    assert f"{sure.entropy:.2f}" == "0.00"
    assert stage(None, None, [0.5, 0.5]).entropy == pytest.approx(math.log(2))


@pytest.mark.parametrize("V", [4, MANY + 1])
def test_the_draws_follow_the_distribution_and_the_seed(V):
    p = np.zeros(V)
    p[:3] = 0.5, 0.3, 0.2
    counts = sample(p, 20_000, seed=3)
    assert counts.sum() == 20_000
    assert counts / 20_000 == pytest.approx(p, abs=0.015)
    assert counts[3:].sum() == 0
    assert (sample(p, 200, seed=3) == sample(p, 200, seed=3)).all()
    assert (sample(p, 200, seed=3) != sample(p, 200, seed=4)).any()
