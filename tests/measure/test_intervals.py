import math
import statistics

import pytest
import torch

from tinygpt.errors import ConfigError
from tinygpt.measure import bootstrap_interval, mean_difference


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


def test_the_difference_of_two_means_is_welchs():
    """By the formulas: standard errors apart, degrees of freedom by Welch and Satterthwaite."""
    a, b = [1.91, 1.88, 1.90, 1.87, 1.93], [1.85, 1.86, 1.84, 1.87]
    errors = [statistics.variance(x) / len(x) for x in (a, b)]
    error, mean = math.sqrt(sum(errors)), statistics.fmean(a) - statistics.fmean(b)
    freedom = sum(errors) ** 2 / sum(
        e**2 / (len(x) - 1) for e, x in zip(errors, (a, b), strict=True)
    )

    def beyond(t):  # the area of Student's density beyond t, on both sides, summed up by hand
        x = torch.linspace(t, 400, 2_000_000, dtype=torch.float64)
        log_scale = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)
        scale = math.exp(log_scale) / math.sqrt(freedom * math.pi)
        return 2 * torch.trapezoid(scale * (1 + x**2 / freedom) ** (-(freedom + 1) / 2), x).item()

    found = mean_difference(a, b)
    assert found.mean == pytest.approx(mean)
    assert found.p == pytest.approx(beyond(mean / error), rel=1e-3)
    assert found.low + found.high == pytest.approx(2 * mean)
    assert beyond((found.high - mean) / error) == pytest.approx(0.05, rel=1e-3)
    wide = mean_difference(a, b, level=0.99)
    assert beyond((wide.high - mean) / error) == pytest.approx(0.01, rel=1e-2)


def test_a_difference_needs_two_values_on_each_side():
    with pytest.raises(ConfigError, match="2 values on each side, not 2 and 1"):
        mean_difference([1.0, 2.0], [1.0])
