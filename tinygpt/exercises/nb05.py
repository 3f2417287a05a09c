"""The exercises of notebook 05, each with a diagnosis of the usual mistakes.

R runs, H heads, T queries and as many keys
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..measure import paired_difference
from .registry import NotYet, exercise
from .tools import expect, is_number, is_tensor, short, shown

Curve = list[tuple[float, float]]  # budgets, rising, with the loss at each


@exercise
def paired_interval(answer: Callable) -> str:
    first, second = [1.90, 1.94, 1.89, 1.95, 1.92], [1.88, 1.90, 1.89, 1.90, 1.91]
    got = _three(answer(list(first), list(second)))
    right = paired_difference(first, second)
    seen = f"For the losses {first} and {second} "
    mean = right.mean
    if not math.isclose(got[0], mean, abs_tol=1e-6):
        expect(
            not math.isclose(got[0], -mean, abs_tol=1e-6),
            f"{seen}the sign of the mean is wrong: it is that of first minus second, {mean:+.4f}.",
        )
        raise NotYet(f"{seen}the mean difference is {mean:+.4f}, but you return {got[0]:+.4f}.")
    half, yours = (right.high - right.low) / 2, (got[2] - got[1]) / 2
    expect(yours > 0, f"{seen}low and high are exchanged, or the same.")
    expect(
        math.isclose((got[1] + got[2]) / 2, mean, abs_tol=1e-6),
        f"{seen}the interval is not centred on the mean: it goes as far down as up.",
    )
    if not math.isclose(yours, half, rel_tol=1e-4):
        _explain_half(seen, yours, half, first, second)
    return (
        "right. Where pairs go up and down together, their differences vary less than the losses "
        "themselves, and the interval is narrower than Welch's. Where they do not, it is mostly "
        "wider, since it has fewer degrees of freedom."
    )


def _explain_half(
    seen: str, yours: float, half: float, first: Sequence[float], second: Sequence[float]
) -> None:
    """Say which of the usual half-widths this one is."""
    from scipy.stats import norm, t

    a, b = torch.tensor([first, second], dtype=torch.float64)
    n, d = len(a), a - b
    quantile, error = t.ppf(0.975, n - 1), d.std().item() / n**0.5
    apart = ((a.var() + b.var()) / n).item() ** 0.5
    mistakes = {
        norm.ppf(0.975) * error: "it has the quantile of the normal distribution, 1.96. So few "
        "values need Student's t.",
        2 * error: "two standard errors are a rule for many values. So few need Student's t.",
        t.ppf(0.95, n - 1) * error: "it is a 90 % interval. 5 % lie outside on both sides "
        "together, so the quantile is that of 0.975.",
        t.ppf(0.975, n) * error: "t has n degrees of freedom; one of them went into the mean.",
        t.ppf(0.975, 2 * n - 2) * error: "t has 2n - 2 degrees of freedom. Pairs are n values.",
        quantile * error * n**0.5: "that is the spread of one difference. The mean of n varies "
        "less, by √n.",
        quantile * error / n**0.5: "it is divided by n, not by √n.",
        quantile * d.std(correction=0).item() / n**0.5: "the standard deviation is divided by n; "
        "of a sample it is n - 1.",
        error: "that is one standard error. Multiply it by the quantile of t.",
    }
    for other in (quantile, t.ppf(0.975, 2 * n - 2)):
        mistakes[other * apart] = "the runs are taken apart (Welch). Take the differences first."
    for value, why in mistakes.items():
        expect(not math.isclose(yours, value, rel_tol=1e-4), f"{seen}the width is wrong: {why}")
    raise NotYet(f"{seen}the interval goes {half:.4f} to each side, but yours {yours:.4f}.")


def _three(result) -> tuple[float, float, float]:
    try:
        mean, low, high = result
    except (TypeError, ValueError):
        raise NotYet(f"mean, low and high are asked, but you return {shown(result)}.") from None
    return is_number(mean), is_number(low), is_number(high)


@exercise
def at_equal_budget(answer: Callable) -> str:
    cheap = [(0.0, 4.0), (2.0, 3.0), (6.0, 2.0)]
    costly = [(0.0, 4.3), (4.0, 2.6), (12.0, 1.8)]
    seen = f"For the curves {cheap} and {costly} "
    got = is_number(answer(list(cheap), list(costly)))
    right = 2.0 - 2.4
    mistakes = {
        -right: "the sign is wrong: first minus second.",
        2.0 - 1.8: "you compare the ends of both curves. The second has cost 12 there, the first "
        "6.",
        2.0 - 2.2: "that is the mean of the second curve's neighbours; 6 is nearer to 4.",
        2.0 - 2.6: "you take the second curve's last point before 6. It goes on falling until 6: "
        "draw the line between its neighbours.",
        2.5 - 2.6: "you compare at 4; both curves reach 6.",
        4.0 - 4.3: "you compare at the start.",
        2.4: "that is one loss, not a difference.",
    }
    _explain_number(seen, got, right, mistakes)
    swapped = is_number(answer(list(costly), list(cheap)))
    expect(
        math.isclose(swapped, -right, abs_tol=1e-6),
        f"With the same curves exchanged the difference is {-right:+.2f}, but you return "
        f"{swapped:+.4f}: either curve may be the one that ends first.",
    )
    return (
        "right. One thing it cannot mend: a run in the middle of its schedule has a high learning "
        "rate yet, so it is worse than a run that was planned to end there. Hence an arm of its "
        "own for equal seconds."
    )


def _explain_number(seen: str, got: float, right: float, mistakes: dict[float, str]) -> None:
    if math.isclose(got, right, abs_tol=1e-6):
        return
    for value, why in mistakes.items():
        expect(not math.isclose(got, value, abs_tol=1e-6), seen + why)
    raise NotYet(f"{seen}the answer is {right:.4g}, but you return {got:.4g}.")


CASES = ((0.006, 0.03), (0.006, 0.01), (0.006, 0.004))  # standard deviations and differences


@exercise
def seeds_needed(answer: Callable) -> str:
    got, right = [is_number(answer(*case)) for case in CASES], [_seeds(*case) for case in CASES]
    got = [int(n) if n.is_integer() else n for n in got]
    of = "standard deviations and differences"
    for wrong, why in _wrong_seeds():
        expect(got == right or got != wrong, f"For the {of} {CASES} you return {got}: {why}")
    expect(got == right, f"For the {of} {CASES} {right} seeds are needed, but you return {got}.")
    return (
        "right. Where many are needed, half the difference takes nearly four times the seeds. And "
        "this is the least: with so many, a true difference of that size is found about every "
        "second time only. To find it nine times in ten takes nearly three times as many."
    )


def _seeds(
    sd: float,
    difference: float,
    both: int = 2,
    tail: float = 0.975,
    freedom: Callable = lambda n: 2 * n - 2,
) -> int:
    """The fewest n for which the half-width of the interval is below the difference."""
    from scipy.stats import t

    n = 2
    while t.ppf(tail, freedom(n)) * sd * math.sqrt(both / n) >= difference:
        n += 1
    return n


def _wrong_seeds() -> list[tuple[list[int], str]]:
    """What the usual mistakes give for all cases."""
    usual = [
        ({"both": 1}, "both arms vary, so the variances add up: √(2 / n)."),
        ({"freedom": lambda n: n - 1}, "both arms tell of the spread: 2n - 2 degrees of freedom."),
        ({"freedom": lambda n: 1e9}, "1.96 is for many runs. Take Student's t."),
        ({"tail": 0.95}, "the quantile of a 95 % interval is that of 0.975."),
        ({"both": 8}, "half the interval must be narrower than the difference, not the whole."),
    ]
    wrong = [([_seeds(*case, **changed) for case in CASES], why) for changed, why in usual]
    right = [_seeds(*case) for case in CASES]
    fewer = [max(2, n - 1) for n in right]
    from_three = [max(3, n) for n in right]
    return [
        *wrong,
        (fewer, "with one seed less than needed the interval is too wide."),
        ([1] * 3, "one run has no spread, and t no degrees of freedom. Begin with n = 2."),
        (from_three, "of two runs each the pooled spread is known, too. Begin with n = 2."),
        ([2] * 3, "the loop ends at once. It goes on while the interval is too wide."),
        ([3] * 3, "the loop ends after one step. Does a `return` stand inside it?"),
    ]


@exercise
def mean_distance(answer: Callable) -> str:
    maps, t = _maps(), torch.arange(4)
    back = t[:, None] - t
    each = (maps * back).sum(-1)
    right = each[:, 1:].mean(-1)
    given = maps.clone()
    got = is_tensor(answer(given))
    expect(torch.equal(given, maps), "you changed the maps that were given.")
    seen = (
        "For three heads over four tokens, one that looks at itself, one that looks at the token "
        "before, and one that looks at itself and at the first: "
    )
    expect(
        got.shape == right.shape,
        f"a number for each head is asked, shape {tuple(right.shape)}, but you return "
        f"{tuple(got.shape)}.",
    )
    largest = maps.argmax(-1)
    mistakes = [
        (-right, "the sign is wrong: how far *back*, query minus key."),
        (each.mean(-1), "the first query counts. It can only look at itself."),
        (each[:, 1:].sum(-1), "you add the queries up; a mean is asked."),
        (
            right / 4,
            "weights add up to 1 in a row, so their sum over the keys is a mean already.",
        ),
        (
            (maps * back).sum(-2)[:, 1:].mean(-1),
            "you add up over the queries; the weights of one query are a row, dim=-1.",
        ),
        (largest[:, 1:].float().mean(-1), "that is a place, not a distance."),
        (
            (t - largest)[:, 1:].float().mean(-1),
            "that is the distance of the largest weight. All weights count.",
        ),
    ]
    close = torch.allclose(got.double(), right.double(), atol=1e-5)
    for wrong, why in mistakes:
        same = torch.allclose(got.double(), wrong.double(), atol=1e-5)
        expect(close or not same, seen + why)
    expect(close, f"{seen}the distances are {short(right)}, but yours are {short(got)}.")
    return (
        "right. Beside it stands what a head would have that attends alike to all it sees: in a "
        "window of T tokens about T / 4. A distance says little without that."
    )


def _maps() -> Tensor:
    """Attention maps of three heads over four tokens, `(3, 4, 4)`."""
    itself = torch.eye(4)
    before = torch.diag(torch.ones(3), -1)
    before[0, 0] = 1.0
    first = torch.zeros(4, 4)
    first[:, 0] = 1.0
    return torch.stack([itself, before, 0.4 * itself + 0.6 * first])
