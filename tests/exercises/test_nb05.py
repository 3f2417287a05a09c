"""The exercises of notebook 05: typical mistakes are named."""

from functools import partial

import pytest
from scipy import stats

from tinygpt.exercises import examine, nb05
from tinygpt.files import ROOT

from .answers import with_body

NOTEBOOK = ROOT / "notebooks" / "05_comparison_attention_heatmaps.ipynb"


defined_as = partial(with_body, NOTEBOOK)


PAIRS = "d = np.array(first) - np.array(second)\nn, m, s = len(d), d.mean(), d.std(ddof=1)\n"
WIDE = "return m, m - h, m + h"


def paired(half: str) -> tuple[str, str]:
    return "paired_interval", f"{PAIRS}h = {half}\n{WIDE}"


T = "stats.t.ppf(0.975, n - 1)"
APART = "math.sqrt((np.var(first, ddof=1) + np.var(second, ddof=1)) / n)"
READ = (
    "def at(curve, x):\n"
    "    return np.interp(x, *zip(*curve, strict=True))\n"
    "end = min(first[-1][0], second[-1][0])\n"
)


def loop(half: str, start: int = 2) -> tuple[str, str]:
    return "seeds_needed", f"n = {start}\nwhile {half} >= difference:\n    n += 1\nreturn n"


ERROR = "sd * math.sqrt(2 / n)"
BACK = "t = torch.arange(maps.shape[-1])\nback = t[:, None] - t\n"

# other ways to be right
ALTERNATIVES = [
    (
        "paired_interval",
        "test = stats.ttest_rel(first, second)\n"
        "low, high = test.confidence_interval()\n"
        "return [(low + high) / 2, low, high]",
    ),
    ("at_equal_budget", READ + "return at(first, end) - at(second, end)"),
    (
        "seeds_needed",
        "for n in range(2, 1000):\n"
        "    interval = stats.t.interval(0.95, 2 * n - 2, scale=sd * (2 / n) ** 0.5)\n"
        "    if interval[1] < difference:\n"
        "        return n",
    ),
    (
        "mean_distance",
        "H, T, _ = maps.shape\n"
        "far = torch.zeros(H)\n"
        "for t in range(1, T):\n"
        "    for s in range(t):\n"
        "        far += maps[:, t, s] * (t - s)\n"
        "return far / (T - 1)",
    ),
]


@pytest.mark.parametrize(("name", "body"), ALTERNATIVES)
def test_another_right_answer_passes(name, body):
    passed, said = examine(defined_as(name, body))
    assert passed, said


# name, body of the function, a word of the diagnosis
MISTAKES = [
    (*paired("stats.norm.ppf(0.975) * s / math.sqrt(n)"), "normal distribution"),
    (*paired("2 * s / math.sqrt(n)"), "rule for many"),
    (*paired("stats.t.ppf(0.95, n - 1) * s / math.sqrt(n)"), "90 % interval"),
    (*paired("stats.t.ppf(0.975, n) * s / math.sqrt(n)"), "n degrees of freedom"),
    (*paired("stats.t.ppf(0.975, 2 * n - 2) * s / math.sqrt(n)"), "Pairs are n values"),
    (*paired(f"{T} * s"), "spread of one difference"),
    (*paired(f"{T} * s / n"), "divided by n, not by √n"),
    (*paired(f"{T} * d.std() / math.sqrt(n)"), "of a sample it is n - 1"),
    (*paired("s / math.sqrt(n)"), "one standard error"),
    (*paired(f"stats.t.ppf(0.975, 2 * n - 2) * {APART}"), "Take the differences first"),
    (*paired(f"{T} * {APART}"), "Take the differences first"),
    (*paired("0.3"), "to each side"),
    (*paired(f"-{T} * s / math.sqrt(n)"), "exchanged"),
    ("paired_interval", f"{PAIRS}return -m, -m - 1, -m + 1", "sign of the mean"),
    ("paired_interval", f"{PAIRS}return m + 1, m, m + 2", "mean difference is"),
    ("paired_interval", f"{PAIRS}return m, m, m + 1", "not centred"),
    ("paired_interval", f"{PAIRS}return m", "mean, low and high"),
    ("paired_interval", "first", "`return` missing"),
    ("at_equal_budget", READ + "return at(second, end) - at(first, end)", "sign is wrong"),
    ("at_equal_budget", "return first[-1][1] - second[-1][1]", "ends of both curves"),
    (
        "at_equal_budget",
        READ + "return first[-1][1] - [y for x, y in second if x <= end][-1]",
        "draw the line",
    ),
    ("at_equal_budget", READ + "return at(first, 4) - at(second, 4)", "both curves reach 6"),
    (
        "at_equal_budget",
        "x, y = first[-1]\nbelow = [b for a, b in second if a <= x][-1]\n"
        "above = [b for a, b in second if a >= x][0]\nreturn y - (below + above) / 2",
        "nearer to 4",
    ),
    ("at_equal_budget", "return first[0][1] - second[0][1]", "at the start"),
    ("at_equal_budget", READ + "return at(second, end)", "one loss"),
    ("at_equal_budget", READ + "return first[-1][1] - at(second, first[-1][0])", "either curve"),
    ("at_equal_budget", "return 7.0", "the answer is -0.4"),
    ("at_equal_budget", "return [2.0, 2.4]", "one number is asked, but you return [2.0, 2.4]"),
    (*loop("stats.t.ppf(0.975, 2 * n - 2) * sd * math.sqrt(1 / n)"), "variances add up"),
    (*loop(f"stats.t.ppf(0.975, n - 1) * {ERROR}"), "both arms tell"),
    (*loop(f"1.96 * {ERROR}"), "Student's t"),
    (*loop(f"2 * stats.t.ppf(0.975, 2 * n - 2) * {ERROR}"), "not the whole"),
    (*loop(f"stats.t.ppf(0.95, 2 * n - 2) * {ERROR}"), "quantile of a 95 % interval"),
    (*loop("stats.t.ppf(0.975, 2 * n) * sd * math.sqrt(2 / (n + 1))"), "one seed less than needed"),
    ("seeds_needed", "return 1000", "seeds are needed"),
    (*loop(f"stats.t.ppf(0.975, 2 * n - 2) * {ERROR}", start=1), "Begin with n = 2"),
    (*loop(f"stats.t.ppf(0.975, 2 * n - 2) * {ERROR}", start=3), "Begin with n = 2"),
    ("seeds_needed", "return 2", "the loop ends at once"),
    ("seeds_needed", "return 3", "Does a `return` stand inside it?"),
    ("mean_distance", BACK + "return (maps * -back).sum(-1)[:, 1:].mean(-1)", "sign is wrong"),
    ("mean_distance", BACK + "return (maps * back).sum(-1).mean(-1)", "first query counts"),
    ("mean_distance", BACK + "return (maps * back).sum((1, 2))", "a mean is asked"),
    ("mean_distance", BACK + "return (maps * back).sum(1)[:, 1:].mean(1)", "over the queries"),
    ("mean_distance", BACK + "return (maps * back).mean(-1)[:, 1:].mean(-1)", "mean already"),
    ("mean_distance", "return maps.argmax(-1)[:, 1:].float().mean(-1)", "a place"),
    (
        "mean_distance",
        BACK + "return (t - maps.argmax(-1))[:, 1:].float().mean(-1)",
        "largest weight",
    ),
    ("mean_distance", BACK + "return (maps * back).sum(-1)", "number for each head"),
    ("mean_distance", BACK + "maps *= back\nreturn maps.sum(-1)[:, 1:].mean(-1)", "you changed"),
    ("mean_distance", "return maps[:, 0, 0]", "the distances are"),
    ("mean_distance", "return torch.diagonal(maps, -1, 1, 2).mean(-1)", "the distances are"),
    (
        "mean_distance",
        "return 1 - torch.diagonal(maps, 0, 1, 2)[:, 1:].mean(-1)",
        "the distances are",
    ),
    ("mean_distance", "return 1.0", "a tensor is asked"),
]


@pytest.mark.parametrize(("name", "body", "word"), MISTAKES)
def test_typical_mistake_is_diagnosed(name, body, word):
    passed, said = examine(defined_as(name, body))
    assert not passed
    assert said.startswith("✗")
    assert word in said


def test_the_interval_of_the_seeds_that_are_asked_is_narrow_enough_and_one_less_is_not():
    def half(n):
        return stats.t.interval(0.95, 2 * n - 2, scale=0.006 * (2 / n) ** 0.5)[1]

    for difference in (0.02, 0.01, 0.005):
        n = nb05._seeds(0.006, difference)
        assert half(n) < difference <= half(n - 1)
