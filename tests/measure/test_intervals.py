import math
import statistics

import pytest
import torch

from tinygpt.errors import ConfigError
from tinygpt.measure import bootstrap_interval, holm, paired_difference, unpaired_difference


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


def test_the_difference_of_paired_measurements_is_students():
    """By the formulas: the mean of the pairs' differences, its standard error, n - 1 degrees."""
    a, b = [1.91, 1.88, 1.90, 1.87, 1.93], [1.85, 1.86, 1.84, 1.87, 1.88]
    differences = [x - y for x, y in zip(a, b, strict=True)]
    mean, error = statistics.fmean(differences), statistics.stdev(differences) / math.sqrt(5)

    def beyond(t):  # the area of Student's density beyond t, on both sides, summed up by hand
        x = torch.linspace(t, 4000, 4_000_000, dtype=torch.float64)
        scale = math.gamma(2.5) / math.gamma(2) / math.sqrt(4 * math.pi)
        return 2 * torch.trapezoid(scale * (1 + x**2 / 4) ** -2.5, x).item()

    found = paired_difference(a, b)
    assert found.mean == pytest.approx(mean)
    assert found.p == pytest.approx(beyond(mean / error), rel=1e-3)
    assert found.low + found.high == pytest.approx(2 * mean)
    assert beyond((found.high - mean) / error) == pytest.approx(0.05, rel=1e-3)
    wide = paired_difference(a, b, level=0.99)
    assert beyond((wide.high - mean) / error) == pytest.approx(0.01, rel=1e-3)
    # what all pairs share does not count
    shifted = paired_difference(a, [x - 0.03 + 1e-4 * i for i, x in enumerate(a)])
    assert shifted.high - shifted.low < 1e-3


@pytest.mark.parametrize("second", [[1.0], [1.0, 2.0, 3.0]])
def test_a_difference_needs_two_pairs(second):
    with pytest.raises(ConfigError, match="needs 2 pairs, not 2 and"):
        paired_difference([1.0, 2.0], second)
    with pytest.raises(ConfigError, match="needs 2 pairs, not 1 and 1"):
        paired_difference([1.0], [1.0])


def test_holm_as_its_definition_says():
    """The level from which p <= level / (questions left) for it and all smaller ones."""
    generator = torch.Generator().manual_seed(0)
    for m in (1, 2, 3, 7):
        p = torch.rand(m, generator=generator).pow(3).tolist()
        p[-1] = p[0]
        for adjusted, mine in zip(holm(p), p, strict=True):
            ordered = sorted(p)
            tried = [x * (m - rank) for rank, x in enumerate(ordered) if x <= mine]
            assert adjusted == pytest.approx(min(1, max(tried)))
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []
    assert holm([0.04, math.nan, 0.01, 0.03]) == pytest.approx([0.09, 1, 0.04, 0.09])


def test_an_unpaired_difference_has_an_interval_that_fits_its_p():
    a, b = [1.0, 1.2, 1.1, 1.3], [0.9, 0.2, 1.4]
    found = unpaired_difference(a, b)
    assert found.mean == pytest.approx(1.15 - 2.5 / 3)
    edge = unpaired_difference(a, b, level=1 - found.p)
    assert edge.low == pytest.approx(0, abs=1e-6)
    assert unpaired_difference(b, a).low == pytest.approx(-found.high)
    with pytest.raises(ConfigError, match="2 values on each side, not 4 and 1"):
        unpaired_difference(a, [1.0])
