import math

import pytest
import torch

from tinygpt.errors import ConfigError
from tinygpt.measure import bootstrap_interval


def test_bootstrap_interval_holds_the_true_mean_as_often_as_it_says():
    generator = torch.Generator().manual_seed(0)
    hits = 0
    for _ in range(400):
        mean, low, high = bootstrap_interval(torch.randn(50, generator=generator) + 3, draws=500)
        assert low < mean < high
        hits += low < 3 < high
    assert 0.90 < hits / 400 < 0.98


def test_bootstrap_interval_has_the_width_of_theory_and_is_repeatable():
    values = torch.randn(200, generator=torch.Generator().manual_seed(1))
    mean, low, high = bootstrap_interval(values, draws=20_000)
    half = 1.96 * values.std().item() / math.sqrt(200)
    assert mean == pytest.approx(values.mean().item(), abs=1e-6)
    assert (mean - low, high - mean) == pytest.approx((half, half), rel=0.05)
    assert bootstrap_interval(values) == bootstrap_interval(values)
    assert bootstrap_interval(torch.ones(5)) == (1, 1, 1)
    narrow = bootstrap_interval(values, level=0.5)
    assert low < narrow[1] < narrow[2] < high


def test_an_interval_needs_values_and_a_level():
    for values, level in ((torch.ones(1), 0.95), (torch.ones(9), 1.0)):
        with pytest.raises(ConfigError, match="at least 2 values and a level between 0 and 1"):
            bootstrap_interval(values, level)
