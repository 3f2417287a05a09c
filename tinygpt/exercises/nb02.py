"""Checks of notebook 02."""

import math
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional as F

from ..config import ModelConfig, TrainConfig
from ..model import Block
from ..training import lr_factor
from .registry import NotYet, exercise
from .tools import expect, is_number, is_tensor


@exercise
def causal_attention(answer):
    q, k, v = torch.randn(3, 2, 3, 5, 4, generator=torch.Generator().manual_seed(1))  # (B, H, T, D)
    got = is_tensor(answer(q.clone(), k.clone(), v.clone()))
    expect(
        got.shape != (2, 3, 5, 5),
        "q of shape (2, 3, 5, 4) gives a result of shape (2, 3, 5, 5), one number per pair of "
        "positions. These are scores or weights; the weighted sum of the values, @ v, is missing.",
    )
    expect(
        got.shape == q.shape,
        f"the result should have the shape of q, (B, H, T, D) = {tuple(q.shape)}, but yours is "
        f"{tuple(got.shape)}.",
    )
    if not _close(got, F.scaled_dot_product_attention(q, k, v, is_causal=True)):
        raise NotYet(_what_is_wrong_with_attention(got, q, k, v))
    q, k, v = torch.randn(3, 1, 2, 7, 16, generator=torch.Generator().manual_seed(2))
    expect(
        _close(
            is_tensor(answer(q.clone(), k.clone(), v.clone())),
            F.scaled_dot_product_attention(q, k, v, is_causal=True),
        ),
        "right for 5 positions and heads of 4 channels, wrong for 7 and 16. Is a size written into "
        "your function as a number? Take T and D from q.shape.",
    )
    q, k, v = q[0], k[0], v[0]  # (H, T, D)
    try:
        got = is_tensor(answer(q.clone(), k.clone(), v.clone()))
    except (IndexError, ValueError, RuntimeError) as error:
        raise NotYet(
            f"right for (B, H, T, D), but three axes stop with an error ({error}). Count axes from "
            f"the end: q.shape[-2:], transpose(-2, -1), dim=-1."
        ) from error
    expect(
        _close(got, F.scaled_dot_product_attention(q, k, v, is_causal=True)),
        "right for (B, H, T, D), wrong for three axes. Count them from the end: dim=-1, -2.",
    )
    return "right. It equals PyTorch's fused function, which never stores the T x T weights."


# Typical mistakes as message -> what is done; None is the right way.
SCALES = {
    None: lambda T, D, C: D**-0.5,
    "The scores are not scaled. Divide them by sqrt(D) before the softmax, or it becomes nearly "
    "one-hot for large heads.": lambda T, D, C: 1.0,
    "The scores are divided by D. It is its square root that brings their variance back to "
    "1.": lambda T, D, C: 1 / D,
    "The scores are multiplied by sqrt(D) instead of divided: this makes the softmax still "
    "sharper.": lambda T, D, C: D**0.5,
    "The scores are divided by sqrt(C), with all channels. Each head's dot product is a sum of "
    "only D products: q.shape[-1].": lambda T, D, C: C**-0.5,
    "The scores are divided by sqrt(T). Their variance grows with the number of channels D, not "
    "with the number of positions.": lambda T, D, C: T**-0.5,
}


MASKS = {
    None: "causal",
    "There is no mask: the first position reads the last one. Set the scores of later positions to "
    "minus infinity before the softmax.": "none",
    "The mask comes after the softmax: the weights of a row no longer add up to 1. Put minus "
    "infinity into the scores before the softmax.": "zero weights",
    "Minus infinity is put into the weights, after the softmax. It belongs into the scores before "
    "it; the softmax turns it into 0.": "infinite weights",
    "The masked scores are 0, or nearly. A score of 0 still gets weight, since e^0 = 1; only minus "
    "infinity gives 0.": "zero scores",
    "Each position also reads the next one, which it has to predict: the mask starts one column "
    "too far to the right. It should be triu(diagonal=1).": "peek",
    "The mask also covers the diagonal, so the first position has nothing left to read and becomes "
    "nan. A position may read itself: triu(diagonal=1).": "strict",
    "The mask is the wrong way round: each position reads itself and the future. Mask where the "
    "column (key) is larger than the row (query).": "future",
}


AXES = {
    None: -1,
    "The softmax runs over the queries (dim=-2), so the columns add up to 1. It must run over the "
    "keys, so that each row does: dim=-1.": -2,
    "The softmax runs over the heads (dim=1). It must run over the keys, so that each row of each "
    "head adds up to 1: dim=-1.": 1,
}


def _what_is_wrong_with_attention(got: Tensor, q: Tensor, k: Tensor, v: Tensor) -> str:
    """Try the typical mistakes and their combinations; name those that give what was returned."""
    combinations = list(product(SCALES, MASKS, AXES))
    for messages in sorted(combinations, key=lambda m: 3 - m.count(None)):
        scale, mask, axis = messages
        if _close(got, _attention(q, k, v, SCALES[scale], MASKS[mask], AXES[axis])):
            return " And: ".join(message for message in messages if message)
    if got.isnan().any():
        return (
            "there is nan (not a number) in the result. The softmax of a row that holds only minus "
            "infinity is nan, and so is 0 times infinity: which row has nothing left to read?"
        )
    off = (got[:, :, 0] - v[:, :, 0]).abs().max()
    if off > 1e-5:
        return (
            "the first position can read only itself, with weight 1, so its result should be its "
            f"own value v[:, :, 0]. Yours differs from that by up to {off:.2f}."
        )
    return (
        "the first position is right, later ones are not. Compare your steps with the formula, "
        "softmax(q kᵀ / sqrt(D) + mask) v."
    )


def _attention(q: Tensor, k: Tensor, v: Tensor, scale, mask: str, axis: int) -> Tensor:
    H, T, D = q.shape[1:]
    scores = q @ k.transpose(2, 3) * scale(T, D, H * D)
    ones = torch.ones(T, T, dtype=torch.bool)
    future = ones.triu(1)
    hidden = {
        "causal": future,
        "peek": ones.triu(2),
        "strict": ones.triu(0),
        "future": ones.tril(-1),
    }
    if mask in hidden:
        scores = scores.masked_fill(hidden[mask], -torch.inf)
    elif mask == "zero scores":
        scores = scores.masked_fill(future, 0.0)
    weights = scores.softmax(axis)
    if mask == "zero weights":
        weights = weights.masked_fill(future, 0.0)
    elif mask == "infinite weights":
        weights = weights.masked_fill(future, -torch.inf)
    return weights @ v


@exercise
def count_block_parameters(answer):
    got = {C: is_number(answer(C)) for C in (10, 100, 64, 768)}
    expect(
        len(set(got.values())) > 1,
        f"you return {got[10]:,.0f} for every n_embd. Give a formula in which n_embd stands.",
    )
    # the a and b of a C² + b C, from C = 10 and C = 100
    a = (got[100] / 100 - got[10] / 10) / 90
    b = got[10] / 10 - 10 * a
    fits = all(math.isclose(a * C * C + b * C, n, rel_tol=1e-9) for C, n in got.items())
    if fits and (wrong := _missing_weights(round(a, 6), round(b, 6))):
        raise NotYet(f"your count is {a:.6g} C² {'-' if b < 0 else '+'} {abs(b):.6g} C. {wrong}")
    for C, count in got.items():
        truth = 12 * C * C + 13 * C
        expect(
            count == truth,
            f"for n_embd = {C} a block has {truth:,} weights, you return {count:,.0f}. All its "
            f"tensors grow with C or C² (in Python C**2, not C^2); nothing in it depends on V or "
            f"T.",
        )
    assert got[64] == sum(p.numel() for p in Block(ModelConfig(n_embd=64)).parameters())
    return (
        f"right. It is 12 C² + 13 C, {got[64]:,.0f} for this model. GPT-2 has 12 blocks with "
        f"C = 768, together {12 * got[768]:,.0f}. The number of heads does not matter."
    )


def _missing_weights(a: float, b: float) -> str | None:
    matrices = {
        12: None,
        11: "One C x C matrix is missing: attention has q, k, v and the projection.",
        10: "Two C x C matrices are missing: attention has q, k, v and the projection.",
        9: "Three C x C matrices are missing: c_attn is C x 3C.",
        8: "The four C x C matrices of attention are missing: q, k, v and the projection.",
        6: "The MLP goes up to 4C channels and back: its two matrices have 8 C².",
        4: "The two matrices of the MLP are missing: C x 4C and 4C x C.",
        24: "That is twice the matrices; one block was asked.",
    }
    if a != 12:
        return matrices.get(a, "The matrices have 12 C²: 4 C² in attention, 8 C² in the MLP.")
    vectors = {
        13: None,
        0: "The matrices are right. The biases of the four layers and the LayerNorms are missing.",
        4: "The biases of the four linear layers are missing: one for each of their outputs.",
        8: "5 C are missing: the two layers of the MLP have biases too, 4C and C.",
        9: "4 C are missing: the two LayerNorms (a scale and a shift each), or the biases of the "
        "MLP's first layer.",
        10: "3 C are missing: c_attn has a bias for each of its 3C outputs.",
        11: "2 C are missing: there are two LayerNorms, and each has a scale and a shift.",
        12: "C are missing, a bias perhaps: the layers have 3C + C + 4C + C outputs.",
        15: "2 C too many: the LayerNorm after the last block belongs to no block.",
    }
    default = "The matrices are right. The biases have 9 C (3C + C + 4C + C), the LayerNorms 4 C."
    return vectors.get(b, default)


@exercise
def cross_entropy_by_hand(answer):
    logits = torch.randn(6, 6, generator=torch.Generator().manual_seed(1))
    targets = torch.tensor([2, 0, 3, 1, 2, 5])
    got = answer(logits.clone(), targets.clone())
    if isinstance(got, Tensor):
        expect(got.shape != (6,), "you return one number per row, (6,). Their mean is asked.")
        expect(
            got.shape != (6, 6),
            "you return a table of shape (6, 6). logits[targets] takes whole rows, z[:, targets] "
            "whole columns; z[torch.arange(len(targets)), targets] takes one number per row.",
        )
    got, truth = is_number(got), F.cross_entropy(logits, targets).item()
    seen = f"random logits (6, 6) should give {truth:.4f}, but you return {got:.4f}."
    for value, why in _cross_entropy_mistakes(logits, targets):
        if math.isclose(got, value, abs_tol=1e-4):
            raise NotYet(f"{seen} {why}")
    expect(
        math.isclose(got, truth, abs_tol=1e-4),
        f"{seen} Compare your steps with the formula, one row at a time.",
    )
    wide = torch.randn(3, 9, generator=torch.Generator().manual_seed(2))
    got, truth = is_number(answer(wide.clone(), targets[:3])), F.cross_entropy(wide, targets[:3])
    expect(
        math.isclose(got, truth, abs_tol=1e-4),
        f"right for logits (6, 6), but logits (3, 9) give {got:.4f} instead of {truth:.4f}. Is a "
        "size written into your function, or an axis mixed up?",
    )
    _expect_stable(answer)
    return "right. Subtracting the largest logit is what every library does inside."


def _cross_entropy_mistakes(logits: Tensor, targets: Tensor) -> list[tuple[float, str]]:
    rows = torch.arange(len(targets))
    log_p, z = logits.log_softmax(1), logits - logits.amax(1, keepdim=True)
    right, log_sum = -log_p[rows, targets].mean(), logits.exp().sum(1).log()
    axis = "The exponentials are summed over the rows (dim=0). Each row is a distribution of its "
    axis += "own: sum over its V characters, dim=1."
    pick = "logits[targets] takes whole rows, z[:, targets] whole columns. One number per row is "
    pick += "wanted: z[torch.arange(len(targets)), targets]."
    whole = "One sum was taken over the whole table. Each row has its own: sum(dim=1)."
    no_sum = "The first term is missing, the log of the sum of exponentials."
    flat = logits - logits.amax(1)
    mistakes = [
        (-logits.log_softmax(0)[rows, targets].mean(), axis),
        (logits.exp().sum(0).log().mean() - logits[rows, targets].mean(), axis),
        (z.exp().sum(0).log().mean() - z[rows, targets].mean(), axis),
        (right / math.log(2), "That is in bits: log2. The natural logarithm gives nats."),
        (right / math.log(10), "That is log10. The natural logarithm gives nats."),
        (-right, "The sign is wrong: the log of a probability is negative, a loss is not."),
        (right * len(rows), "That is the sum over the rows. The mean is asked."),
        (right / logits.shape[1], "That divides by N times V. There are only N predictions."),
        (-log_p.mean(), "That is the mean over all V characters. Only the true one of each row "
         "counts: pick it with `targets`."),
        (-log_p[targets].mean(), pick),
        (-log_p[:, targets].mean(), pick),
        (log_sum.mean() - logits[targets].mean(), pick),
        (z.exp().sum(1).log().mean() - z[targets].mean(), pick),
        (-log_p[rows, targets].exp().mean().log(), "The mean was taken before the logarithm. Take "
         "the mean of the surprises, not the surprise of the mean probability."),
        (log_p[rows, targets].exp().mean(), "That is the mean probability; the log is missing."),
        (right.exp(), "That is the perplexity, the exponential of the loss."),
        (flat.exp().sum(1).log().mean() - flat[rows, targets].mean(), "The largest logit of row i "
         "was taken from column i. With keepdim=True the maxima stay a column, one for each row."),
        (-z[rows, targets].mean(), no_sum),
        (-logits[rows, targets].mean(), no_sum),
        (logits.exp().sum().log() - logits[rows, targets].mean(), whole),
        (z.exp().sum().log() - z[rows, targets].mean(), whole),
        (log_sum.mean() - z[rows, targets].mean(), "m is subtracted from z_y only. It belongs in "
         "both terms."),
        (z.exp().sum(1).log().mean() - logits[rows, targets].mean(), "m is subtracted in the sum "
         "only. It belongs in both terms."),
    ]  # fmt: skip
    return [(float(value), why) for value, why in mistakes]


def _expect_stable(answer) -> None:
    large = torch.tensor([[1000.0, 0.0], [0.0, 1000.0]])
    sure = is_number(answer(large.clone(), torch.tensor([0, 1])))
    expect(
        math.isfinite(sure),
        f"right for small logits, but logits of 1000 give {sure}: e^1000 is beyond the largest "
        "float, so it becomes infinity. Subtract each row's largest logit first.",
    )
    wrong = is_number(answer(large.clone(), torch.tensor([1, 0])))
    expect(
        not math.isinf(wrong),
        "with logits [1000, 0] and target 1 the loss is 1000, but you return infinity: e^-1000 "
        "rounds to 0, and its log is minus infinity. Take the log of the sum, never that of a "
        "probability.",
    )
    expect(
        math.isclose(wrong, 1000, rel_tol=1e-4),
        f"with logits [1000, 0] and target 1 the loss is 1000, but you return {wrong:.2f}. Was a "
        "small number added, or a minimum set, to save the log? It hides how wrong the model is.",
    )
    for rows, why in (
        ([[-1000.0] * 5] * 2, "Without a maximum, e^-1000 rounds to 0."),
        ([[1000.0] * 5, [0.0] * 5], "Each row needs its own m: amax(dim=1, keepdim=True)."),
    ):
        even = is_number(answer(torch.tensor(rows), torch.tensor([0, 4])))
        expect(
            math.isclose(even, math.log(5), abs_tol=1e-3),
            f"rows of 5 equal logits, {rows[0][0]:.0f} and {rows[1][0]:.0f}, are uniform: loss "
            f"ln 5 = {math.log(5):.4f}. You return {even:.4f}. {why}",
        )


@exercise
def warmup_cosine(answer):
    config = TrainConfig(warmup_steps=100, min_lr_ratio=0.1, schedule="cosine")
    got = {s: is_number(answer(s, 1000, 100, 0.1)) for s in (0, 50, 99, 100, 250, 550, 999)}
    truth = {s: lr_factor(s, 1000, config) for s in got}
    _expect_warmup(got, truth)
    _expect_cosine(got, truth)
    config = TrainConfig(warmup_steps=5, min_lr_ratio=0.0, schedule="cosine")
    for s in (0, 4, 5, 20, 39):
        value, right = is_number(answer(s, 40, 5, 0.0)), lr_factor(s, 40, config)
        expect(
            math.isclose(value, right, abs_tol=1e-6),
            f"right for 1000 steps with 100 of warm-up, but with max_steps=40, warmup_steps=5 and "
            f"min_ratio=0 step {s} gives {value:.4f} instead of {right:.4f}. Is a number written "
            "into your function where an argument should stand?",
        )
    try:
        none = is_number(answer(0, 40, 0, 0.1))
    except ZeroDivisionError:
        raise NotYet("warmup_steps=0 divides by zero; it means that there is no rise.") from None
    expect(none == 1, f"without warm-up step 0 has the full rate, 1; you return {none:.4f}.")
    return "right. It equals the package's lr_factor, which set the pace of section 4."


def _expect_warmup(got: dict[int, float], truth: dict[int, float]) -> None:
    times = got[0] / truth[0]
    expect(
        times <= 0
        or math.isclose(times, 1)
        or any(not math.isclose(got[s], times * truth[s]) for s in got),
        f"the curve is right, but {times:.4g} times as high everywhere. The share of the peak is "
        "asked, which is 1 at step w; not the learning rate.",
    )
    expect(
        got[0] != 0,
        "step 0 has the share 0, so the first update changes nothing. Steps count from 0: start "
        "with 1 / (w + 1).",
    )
    expect(
        not (math.isclose(got[0], 1 / 100) and math.isclose(got[50], 51 / 100)),
        f"step 0 gives {got[0]:.4f} and step 50 gives {got[50]:.4f}. That is (s + 1) / w, which "
        "reaches 1 one step before the warm-up ends. Divide by w + 1.",
    )
    expect(
        got[0] < 0.9,
        f"step 0 has the share {got[0]:.3f}: there is no warm-up. While step < warmup_steps, the "
        "share rises in a straight line.",
    )
    for s in (0, 50, 99):
        expect(
            math.isclose(got[s], truth[s], abs_tol=1e-6),
            f"in the warm-up of 100 steps, step {s} should give ({s} + 1) / 101 = {truth[s]:.4f}; "
            f"you return {got[s]:.4f}.",
        )


def _expect_cosine(got: dict[int, float], truth: dict[int, float]) -> None:
    def hill(angle, low=0.1, high=1.0):
        return low + (high - low) * 0.5 * (1 + math.cos(angle))

    radians = "math.cos takes radians: the angle is math.pi times the way done."
    mistakes = [
        (lambda x, s: hill(math.pi * x, low=0),
         "min_ratio is not used, so the curve ends at 0. Squeeze it between r and 1."),
        (lambda x, s: max(0.1, hill(math.pi * x, low=0)),
         "the curve is cut off at r. Squeeze all of it between r and 1."),
        (lambda x, s: 0.1 + hill(math.pi * x, low=0),
         "r is added to the whole curve, so it starts at 1 + r. The factor 1 - r is missing."),
        (lambda x, s: hill(math.pi * s / 1000),
         "the way done is counted from step 0, so the curve jumps at the end of the warm-up. Count "
         "from there: (s - w) / (N - w)."),
        (lambda x, s: hill(math.pi * (s - 100) / 1000),
         "the way done is (s - w) / N, which never reaches 1. The fall takes N - w steps."),
        (lambda x, s: 1 - 0.9 * x, "this is a straight line. Half a cosine starts and ends flat."),
        (lambda x, s: 0.1 + 0.9 * (1 + math.cos(math.pi * x)),
         "1 + cos runs from 2 to 0. The factor 1/2 is missing."),
        (lambda x, s: 0.1 + 0.9 * math.cos(math.pi * x),
         "the cosine itself runs from 1 to -1, so the share gets negative. Take (1 + cos) / 2."),
        (lambda x, s: hill(2 * math.pi * x),
         "the curve falls and rises again: 2 pi is a whole cosine, half of one is wanted."),
        (lambda x, s: 1.0, "the way done is 0 at every step. Is it rounded down by `//`?"),
        (lambda x, s: hill(x), radians),
        (lambda x, s: hill(180 * x), radians),
        (lambda x, s: hill(math.pi * (1 - x)), "the curve rises instead of falling."),
    ]  # fmt: skip
    after = [s for s in got if s >= 100]
    for wrong, why in mistakes:
        if all(math.isclose(got[s], wrong((s - 100) / 900, s), abs_tol=1e-6) for s in after):
            raise NotYet(f"step 550 should give {truth[550]:.4f}, you return {got[550]:.4f}: {why}")
    for s in after:
        expect(
            math.isclose(got[s], truth[s], abs_tol=1e-6),
            f"with 1000 steps, 100 of warm-up and min_ratio 0.1, step {s} should give "
            f"{truth[s]:.4f}; you return {got[s]:.4f}.",
        )


def _close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a.float(), b, atol=1e-5, equal_nan=True)
