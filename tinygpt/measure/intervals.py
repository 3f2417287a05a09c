"""How sure a mean of several measurements is."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ConfigError

SURE = 0.05  # a smaller p-value, after Holm's correction, is a difference


def bootstrap_interval(
    values: Tensor, level: float = 0.95, draws: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """Mean of independent measurements `(n,)`, and the ends of its confidence interval.

    The percentile bootstrap (Efron and Tibshirani 1993, chapter 13): measure anew by drawing n of
    the values with replacement, many times; the middle `level` of those means is the interval.
    """
    if len(values) < 2 or not 0 < level < 1:
        raise ConfigError(
            f"an interval needs at least 2 values and a level between 0 and 1, "
            f"not {len(values)} and {level}"
        )
    values = values.double()
    generator = torch.Generator().manual_seed(seed)
    picks = torch.randint(len(values), (draws, len(values)), generator=generator)
    tails = torch.tensor([0.5 - level / 2, 0.5 + level / 2], dtype=torch.float64)
    low, high = values[picks].mean(dim=1).quantile(tails).tolist()
    return values.mean().item(), low, high


@dataclass(frozen=True)
class Difference:
    """Between two means: its interval, and how likely chance alone makes one as large."""

    mean: float
    low: float
    high: float
    p: float


def paired_difference(
    first: Sequence[float], second: Sequence[float], level: float = 0.95
) -> Difference:
    """The mean of `first` minus that of `second`, which were measured in pairs (Student's t).

    So are the losses of two recipes with the same seeds: chance drew the same batches for both.
    """
    from scipy.stats import ttest_rel

    if len(first) != len(second) or len(first) < 2:
        raise ConfigError(f"a difference needs 2 pairs, not {len(first)} and {len(second)} values")
    test = ttest_rel(first, second)
    low, high = test.confidence_interval(level)
    mean = statistics.fmean(first) - statistics.fmean(second)
    return Difference(mean, float(low), float(high), float(test.pvalue))


def unpaired_difference(
    first: Sequence[float], second: Sequence[float], level: float = 0.95
) -> Difference:
    """The mean of `first` minus that of `second`, measured apart (Welch's t, unequal variances)."""
    from scipy.stats import ttest_ind

    if min(len(first), len(second)) < 2:
        raise ConfigError(
            f"a difference needs 2 values on each side, not {len(first)} and {len(second)}"
        )
    test = ttest_ind(first, second, equal_var=False)
    low, high = test.confidence_interval(level)
    mean = statistics.fmean(first) - statistics.fmean(second)
    return Difference(mean, float(low), float(high), float(test.pvalue))


def holm(p: Sequence[float]) -> list[float]:
    """The p-values of several questions, each as large as their number demands (Holm 1979).

    The smallest of m times m, the next times m - 1 and so on, none below one before it. Of a
    question without an answer, nan, it is 1.
    """
    p = [1.0 if math.isnan(each) else each for each in p]
    order = sorted(range(len(p)), key=lambda i: p[i])
    adjusted, highest = [0.0] * len(p), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p) - rank) * p[i]))
        adjusted[i] = highest
    return adjusted
