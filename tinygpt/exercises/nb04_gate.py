"""The checks of the gates that are written in notebook 04: for one expert, and for any number."""

import torch
from torch import Tensor

from .registry import exercise
from .tools import diagnose, expect, short, tensors


@exercise
def gate(answer):
    random = torch.Generator().manual_seed(2)
    W, x = torch.randn(3, 2, generator=random), torch.randn(5, 2, generator=random)
    p = (x @ W.T).softmax(1)
    experts, weights = _winners(answer, W, x)
    right = p.argmax(1)
    which = {
        tuple(p.argmin(1).tolist()): "That is the least probable one.",
        tuple((x @ W.T).softmax(0).argmax(1).tolist()): "Does the softmax run over the tokens? "
        "Each token has a distribution over the experts: dim=-1.",
    }
    expect(
        torch.equal(experts, right),
        f"5 tokens and 3 experts should give the experts {right.tolist()}, but you return "
        f"{experts.tolist()}. "
        + which.get(tuple(experts.tolist()), "The largest probability of each token wins."),
    )
    mistakes = [
        (
            (x @ W.T).amax(1),
            "Your weights are the winning logits. Weights are probabilities: a softmax is missing.",
        ),
        (
            (x @ W.T).softmax(0).gather(1, right[:, None])[:, 0],
            "The softmax runs over the tokens (dim=0). Each token has a distribution over the "
            "experts: dim=-1.",
        ),
        (
            torch.ones(5),
            "All your weights are 1, whatever the router says. The weight is the probability of "
            "the winner: section 3 shows what is lost otherwise.",
        ),
    ]
    diagnose(weights, p.amax(1), mistakes, "weights")
    leaf = W.clone().requires_grad_()
    expect(
        _winners(answer, leaf, x)[1].requires_grad,
        "the numbers are right, but the weights have no gradient (is there a detach, a no_grad, or "
        "a way through numbers?). The router learns through them.",
    )
    return "right. That is the whole of a top-1 router: one matrix, a softmax, the largest."


def _winners(answer, W: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    N = len(x)
    experts, weights = tensors(answer(W, x.clone()), "expert, weight")
    expect(
        not (experts.is_floating_point() and not weights.is_floating_point()),
        "the two results are exchanged: the expert comes first. (`max` gives the value first.)",
    )
    for name, part in (("experts", experts), ("weights", weights)):
        expect(
            part.shape == (N,),
            f"{N} tokens should give {name} of shape ({N},), one for each token, but yours have "
            f"{tuple(part.shape)}.",
        )
    return experts, weights


@exercise
def top_k_gate(answer):
    logits = torch.tensor([[1.0, 0.0, 2.0, -1.0], [0.0, 1.0, 0.5, 3.0], [0.2, 0.1, 0.4, 0.3]])
    p = logits.softmax(1)
    experts, weights = _gate(answer, logits, 1)
    _expect_experts(experts, logits, 1)
    mistakes = [
        (
            torch.ones(3, 1),
            "With k = 1 all your weights are 1, whatever the logits say. The weight is the only "
            "way from the loss to the router, and a constant has no gradient: the router would "
            "stay random. Take the softmax over all experts, and do not divide for k = 1.",
        ),
        (
            logits.topk(1).values,
            "Your weights are the logits of the chosen experts. Weights are probabilities: a "
            "softmax is missing.",
        ),
        (
            logits.softmax(0).gather(1, logits.topk(1).indices),
            "The softmax runs over the tokens (dim=0). Each token has a distribution over the "
            "experts: dim=-1.",
        ),
    ]
    diagnose(weights, p.topk(1).values, mistakes, "weights for k = 1")
    experts, weights = _gate(answer, logits, 2)
    _expect_experts(experts, logits, 2)
    top = p.topk(2).values
    mistakes = [
        (
            top,
            f"With k = 2 the weights of the first token are {short(top[0])}, which add up to "
            f"{top[0].sum():.3f}. For k of 2 or more divide them by their sum.",
        ),
        (
            top / top.sum(),
            "The weights of all tokens together add up to 1. Each token's own should: "
            "sum(dim=-1, keepdim=True).",
        ),
        (
            top / top.sum(0),
            "The weights were divided by sums over the tokens (dim=0). Each token's own weights "
            "should add up to 1: sum(dim=-1, keepdim=True).",
        ),
        (
            top.softmax(1),
            "That is a softmax of probabilities. It takes logits; probabilities are divided by "
            "their sum.",
        ),
    ]
    diagnose(weights, top / top.sum(1, keepdim=True), mistakes, "weights for k = 2")
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(1), requires_grad=True)
    _, one = _gate(answer, logits, 1)
    moves = one.requires_grad and torch.autograd.grad(one.sum(), logits)[0].abs().max() > 1e-4
    expect(
        moves,
        "for k = 1 the numbers are right, but the weights have no gradient (is there a detach, or "
        "a division by themselves?). The router learns through them.",
    )
    experts, weights = _gate(answer, logits, 3)
    _expect_experts(experts, logits, 3)
    top = logits.softmax(1).topk(3).values
    diagnose(weights, top / top.sum(1, keepdim=True), [], "weights for (5, 7) logits and k = 3")
    expect(
        weights.requires_grad,
        "the numbers are right, but the weights have no gradient (is there a detach, a no_grad, or "
        "a way through numbers?). The router learns through them.",
    )
    return (
        "right. For k = 2 this equals a softmax over the chosen logits only; for k = 1 it must not."
    )


def _gate(answer, logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    experts, weights = tensors(answer(logits.clone(), k), "experts, weights")
    expect(
        not (experts.is_floating_point() and not weights.is_floating_point()),
        "the two results are exchanged: experts come first, then weights. (`topk` gives the "
        "values first.)",
    )
    expect(
        not experts.is_floating_point(),
        f"the experts should be whole numbers, but yours are {experts.dtype}.",
    )
    shape = (len(logits), k)
    for name, part in (("experts", experts), ("weights", weights)):
        expect(
            part.shape == shape,
            f"logits of shape {tuple(logits.shape)} with k = {k} should give {name} of shape "
            f"{shape}, but yours have {tuple(part.shape)}.",
        )
    return experts, weights


def _expect_experts(experts: Tensor, logits: Tensor, k: int) -> None:
    right = logits.topk(k).indices
    wrong = (experts != right).any(dim=1).int().argmax()  # the first token that goes elsewhere
    row, yours = short(logits[wrong]), experts[wrong].tolist()
    over_tokens = logits.softmax(0).topk(k).indices
    expect(
        not torch.equal(experts, logits.topk(k, largest=False).indices),
        f"for logits {row} and k = {k} you choose {yours}: the least probable.",
    )
    expect(
        k == 1 or not torch.equal(experts, right.sort(dim=1).values),
        f"for logits {row} and k = {k} you give {yours}, in the order of their numbers. The best "
        f"comes first: {right[wrong].tolist()}.",
    )
    expect(
        torch.equal(experts, right),
        f"for a token with logits {row} and k = {k} the experts should be {right[wrong].tolist()}, "
        f"best first; yours are {yours}."
        + " Does the softmax run over the tokens? Each token has a distribution over the experts: "
        "dim=-1." * torch.equal(experts, over_tokens),
    )
