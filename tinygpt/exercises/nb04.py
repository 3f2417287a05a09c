"""Checks of notebook 04."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from .registry import NotYet, exercise
from .tools import diagnose, expect, is_tensor, short, tensors


@exercise
def switch_loss(answer):
    logits = torch.randn(12, 4, generator=torch.Generator().manual_seed(3))
    for K in (2, 1):
        _expect_switch(answer, logits, K)
    even = torch.arange(8).view(8, 1) % 4
    got = _loss(answer, torch.zeros(8, 4), even)
    expect(math.isclose(got, 1, abs_tol=1e-4), f"an even router should have loss 1, not {got:.4f}.")
    # three of five experts are never chosen
    got = _loss(answer, 20 * F.one_hot(torch.ones(6, dtype=torch.long), 5), torch.ones(6, 1).long())
    expect(
        math.isclose(got, 5, abs_tol=1e-3),
        f"5 experts, and all 6 tokens go to expert 1 with certainty: the loss should be 5, but you "
        f"return {got:.4f}. (`bincount` needs minlength: later experts were not chosen at all.)",
    )
    return (
        "right. Its gradient on P_i is E f_i: the busier an expert, the harder it is pushed down."
    )


def _expect_switch(answer, logits: Tensor, K: int) -> None:
    N, E = logits.shape
    shifted = logits + torch.linspace(-1, 1, E)  # as biases do: not the K most probable
    experts, p = shifted.topk(K).indices, logits.softmax(1)
    counts = torch.bincount(experts.flatten(), minlength=E).float()
    f, P = counts / (N * K), p.mean(0)
    truth = E * (f * P).sum()
    chosen = torch.zeros_like(p).scatter(1, experts, p.gather(1, experts))
    over_top_k = (chosen / chosen.sum(1, keepdim=True)).mean(0)
    only_chosen = "P is taken over the chosen experts only. It is the mean of the full softmax: an "
    only_chosen += "expert that is never chosen must still be able to rise."
    mistakes = [
        (
            (f * P).sum(),
            "The factor E is missing: an even router should have 1, whatever the number of "
            "experts.",
        ),
        (
            E * f.mean() * P.mean(),
            "That is E times the product of two means. Both means are 1 / E whatever the router "
            "does: a constant, with no gradient. Multiply f_i by P_i first, then sum.",
        ),
        (
            f.mean() * P.mean(),
            "That is the product of two means, 1 / E² whatever the router does: a constant, with "
            "no gradient. Multiply f_i by P_i first, then sum.",
        ),
        ((f * P).mean(), "You take the mean of the products; the formula has E times their sum."),
        (
            E * (P * P).sum(),
            "Your f are probabilities. f counts: which share of the choices fell on each expert.",
        ),
        (
            E * (f * P.mean()).sum(),
            "P is one number, the mean of everything: 1 / E, whatever the router does. Each expert "
            "has its own, the mean over the tokens, dim=0.",
        ),
        (E * (f * f).sum(), "You have f twice. It is a count without gradient; P carries it."),
        (E * (f * over_top_k).sum(), only_chosen),
        (E * (f * chosen.mean(0)).sum(), only_chosen),
        (
            N * truth,
            "P is a sum over the tokens; it should be their mean, or the loss grows with the "
            "batch.",
        ),
        (E * (counts * P).sum(), "f are counts; they should be shares: divide by their sum."),
        (
            E * (f * logits.mean(0)).sum(),
            "P is the mean of the logits. A softmax is missing: P are probabilities.",
        ),
        (
            E * (f * logits.softmax(0).mean(0)).sum(),
            "The softmax runs over the tokens (dim=0). Each token has a distribution over the "
            "experts: dim=-1.",
        ),
    ]
    if K > 1:
        first = torch.bincount(experts[:, 0], minlength=E) / N
        mistakes += [
            (
                K * truth,
                f"For K = {K} that is {K} times too much: there are N K choices, not N. Divide by "
                f"experts.numel(), so that an even router has 1 for any K.",
            ),
            (
                E * (first * P).sum(),
                "Only the first choices are counted. All K choices of a token are work for an "
                "expert.",
            ),
        ]
    leaf = logits.clone().requires_grad_()
    got = is_tensor(answer(leaf, experts.clone()))
    expect(got.numel() == 1, f"one number is asked, but your tensor has shape {tuple(got.shape)}.")
    seen = f"{N} tokens, {E} experts, K = {K}: the loss should be {truth:.4f}, you return "
    seen += f"{got.item():.4f}. "
    for value, why in mistakes:
        if math.isclose(got.item(), float(value), abs_tol=1e-4):
            raise NotYet(seen + why)
    expect(math.isclose(got.item(), truth, abs_tol=1e-4), seen + "Compare f, then P, by hand.")
    expect(
        got.requires_grad,
        f"the value {got.item():.4f} is right, but it has no gradient (is there a detach, an "
        "item() or a no_grad?). P has to carry it to the logits.",
    )
    (slope,) = torch.autograd.grad(got, leaf)
    wanted = leaf.detach().clone().requires_grad_()
    (right,) = torch.autograd.grad(E * (f * wanted.softmax(1).mean(0)).sum(), wanted)
    expect(
        torch.allclose(slope.float(), right, atol=1e-6),
        "the value is right, its gradient is not: f should be counts, without a gradient, and P "
        "the mean of the softmax.",
    )


def _loss(answer, logits: Tensor, experts: Tensor) -> float:
    return is_tensor(answer(logits.float(), experts)).item()


@exercise
def biased_step(answer):
    p = torch.tensor([[4, 1, 5], [2, 5, 3], [3, 6, 1], [3, 3, 4], [5, 1, 4], [1, 8, 1]]) / 10
    bias, rate = torch.tensor([-0.15, 0.1, 0.05]), 0.01
    experts, weights, new = _biased(answer, p, bias, rate)
    right = (p + bias).argmax(1)  # 2, 1, 1, 2, 2, 1
    mistakes = {
        tuple(p.argmax(1).tolist()): "That is without the bias. Choose by p + bias.",
        tuple((p - bias).argmax(1).tolist()): "That is with the bias subtracted. It is added.",
    }
    expect(
        torch.equal(experts, right),
        f"with p of the fifth token {short(p[4])} and bias {short(bias)} the experts should be "
        f"{right.tolist()}, but you choose {experts.tolist()}. "
        + mistakes.get(tuple(experts.tolist()), "Choose by p + bias."),
    )
    weight = p.gather(1, right[:, None]).squeeze(1)
    choices = [
        (
            weight + bias[right],
            "The bias is in your weights. It chooses and never weighs: were it in the weight, it "
            "would change what the layer computes, and not only who computes it.",
        ),
        (p.amax(1), "That is the largest p, not that of the chosen expert: take p at `experts`."),
        (torch.ones(6), "All your weights are 1. The weight is the probability of the chosen."),
    ]
    diagnose(weights, weight, choices, "weights")
    _expect_new_bias(new, p, bias, right, rate)
    same = torch.eye(3)
    _, _, new = _biased(answer, same, torch.zeros(3), 0.1)
    expect(
        new.abs().max() < 1e-6,
        f"three tokens on three experts are even, so the biases should stay 0; yours become "
        f"{short(new)}. sign(0) is 0, a comparison is not.",
    )
    idle = torch.eye(4)[[0, 0, 1]]  # counts 2, 1, 0, 0; mean 0.75
    seen = "Experts 2 and 3 of 4 get no token here; `bincount` counts them with minlength. "
    try:
        _, _, new = _biased(answer, idle, torch.zeros(4), 0.1)
    except RuntimeError as error:
        raise NotYet(f"{seen}Your function stops with an error ({error}).") from error
    step = torch.tensor([-0.1, -0.1, 0.1, 0.1])  # its mean is 0
    diagnose(new, step, [], "new biases", seen)
    return "right. No gradient is needed, and the loss that is trained stays cross-entropy alone."


def _expect_new_bias(new: Tensor, p: Tensor, bias: Tensor, chosen: Tensor, rate: float) -> None:
    counts = torch.bincount(chosen, minlength=3).float()  # 0, 3, 3; mean 2
    gap = counts.mean() - counts
    step = gap.sign()
    seen = f"biases {short(bias)} with counts {counts.int().tolist()} and rate {rate} become "
    seen += f"{short(new)}. "
    by_p = torch.bincount(p.argmax(1), minlength=3).float()
    mass = p.mean(0)
    mistakes = [
        (
            bias - rate * step,
            "The sign is wrong: busy experts rise and become busier still. The step is "
            "sign(mean - counts).",
        ),
        (
            bias + rate * gap,
            "You add the difference itself. The rule has only its sign, so that the step does not "
            "depend on the size of the batch.",
        ),
        (bias - rate * gap, "You add the difference itself, and with the wrong sign."),
        (bias + rate * gap / counts.sum(), "You add the difference of shares; take its sign."),
        (
            bias + rate * (by_p.mean() - by_p).sign(),
            "You count what would be chosen without the bias. Count what was chosen.",
        ),
        (
            bias + rate * (mass.mean() - mass).sign(),
            "You compare mean probabilities. The load is what counts: how many tokens chose each.",
        ),
        (rate * step, "The old bias is gone. The step is added to it."),
        (bias + step, "The rate is missing."),
        (bias, "They have not moved."),
    ]
    # taking off the mean step, as the package does, is right too
    if not torch.allclose(new, bias + rate * (step - step.mean()), atol=1e-6):
        diagnose(new, bias + rate * step, mistakes, "new biases", seen)


def _biased(answer, p: Tensor, bias: Tensor, rate: float) -> tuple[Tensor, Tensor, Tensor]:
    given_p, given = p.clone(), bias.clone()
    experts, weights, new = tensors(answer(given_p, given, rate), "experts, weights, new_bias")
    expect(
        torch.equal(given, bias) and torch.equal(given_p, p),
        "your function changed a tensor it was given (+= does that). Return a new bias.",
    )
    for name, part, shape in (
        ("experts", experts, p.shape[:1]),
        ("weights", weights, p.shape[:1]),
        ("the new bias", new, bias.shape),
    ):
        expect(
            part.shape == shape,
            f"{name} should have shape {tuple(shape)}, yours: {tuple(part.shape)}.",
        )
    return experts, weights, new.float()


@exercise
def drop_mask(answer):
    one = torch.tensor(
        [[0, 0, 1, 0, 0, 1, 2, 0], [0, 1, 1, 1, 1, 0, 2, 2], [0, 3, 2, 3, 0, 1, 2, 1]]
    )[..., None]
    _expect_mask(answer, one, 4, 1.0, "K = 1")
    two = torch.tensor([[[1, 0], [0, 2], [2, 0], [0, 1], [0, 1]], [[1, 0]] * 5])
    _expect_mask(answer, two, 3, 1.0, "K = 2")
    _expect_mask(answer, two, 3, 1.25, "K = 2 and factor 1.25")
    _expect_mask(answer, two, 4, 1.5, "K = 2, four experts and factor 1.5")
    return "right. What is dropped depends on nothing that comes later, and on no other sequence."


def _expect_mask(answer, experts: Tensor, E: int, factor: float, name: str) -> None:
    B, T, K = experts.shape
    got = is_tensor(answer(experts.clone(), E, factor))
    expect(
        got.shape == experts.shape,
        f"choices of shape {tuple(experts.shape)} should give a mask of the same shape, but yours "
        f"has {tuple(got.shape)}.",
    )
    got, even = got.bool(), factor * K * T / E
    capacity = math.ceil(even)
    flat = experts.flatten(1)
    right = _late(flat, E, capacity).view_as(experts)
    backwards = _late(flat.flip(1), E, capacity).flip(1).view_as(experts)
    firsts = experts.transpose(1, 2).flatten(1)  # all first choices, then all second ones
    by_place = _late(firsts, E, capacity).view(B, K, T).transpose(1, 2)
    whole = experts.reshape(1, -1)
    mistakes = [
        (~right, "That marks those who are kept. True means dropped."),
        (
            _late(whole, E, capacity).view_as(experts),
            "You count through the whole batch, so the second sequence pays for the first. Each "
            "sequence has a count of its own: cumsum along dim=1.",
        ),
        (
            _late(whole, E, math.ceil(B * even)).view_as(experts),
            "You count through the whole batch, with a capacity for all of it. Then one sequence "
            "decides what is dropped in another. Count each one apart.",
        ),
        (
            _late(flat.T, E, capacity).T.reshape(experts.shape),
            "You count across the batch instead of along the time: cumsum over dim=1.",
        ),
        (
            by_place,
            "You count all first choices of the sequence before the second choices. Then a later "
            "token's first choice can push out an earlier token's second one: the past depends on "
            "the future. Count token after token.",
        ),
        (
            _late(experts.transpose(1, 2).flatten(0, 1), E, capacity).view(B, K, T).transpose(1, 2),
            "You count first and second choices apart, as if an expert had a buffer for each. It "
            "has one for both: bring the K choices of a token into one row, flatten(1).",
        ),
        (backwards, "You keep the last ones and drop the first. First come, first served."),
        (
            _late(flat, E, math.floor(even)).view_as(experts),
            "The capacity was rounded down. It is rounded up, math.ceil.",
        ),
        (
            _late(flat, E, math.ceil(even / K)).view_as(experts),
            "The factor K is missing in the capacity: each token makes K choices.",
        ),
        (
            _late(flat, E, capacity - 1).view_as(experts),
            "One too many is dropped. The expert takes `capacity` tokens: if ranks start at 1, "
            "drop rank > capacity, not >=.",
        ),
        (
            _late(flat, E, capacity + 1).view_as(experts),
            "One too few is dropped. If ranks start at 1, drop rank > capacity.",
        ),
        (
            (torch.arange(T * K) >= capacity).expand(B, -1).view_as(experts),
            "You count all tokens, not those of the same expert.",
        ),
        (torch.zeros_like(right), "Nothing is dropped."),
    ]
    if torch.equal(got, right):
        return
    row = next(b for b in range(B) if not torch.equal(got[b], right[b]))
    shown, yours = ("".join("x" if d else "." for d in m[row].flatten()) for m in (right, got))
    seen = f"{name}, sequence {row} with the choices {flat[row].tolist()}, capacity {capacity}: "
    seen += f"dropped should be {shown}, yours is {yours}. "
    for mask, why in mistakes:
        if torch.equal(got, mask):
            raise NotYet(seen + why)
    raise NotYet(seen + "Go through it by hand: how many has this expert taken before?")


def _late(choices: Tensor, E: int, capacity: int) -> Tensor:
    """(B, n) True where an expert has taken `capacity` of the row's choices already."""
    one_hot = F.one_hot(choices, E)
    return (one_hot.cumsum(1) * one_hot).sum(-1) > capacity
