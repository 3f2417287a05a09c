"""What keeps the experts' load even: losses, and biases moved after each update.

B batch, T time, E experts, K experts per token
"""

import torch
from torch import Tensor, nn

from ..config import MoEConfig
from .router import Router, Routing


def balance_loss(routing: Routing, valid: Tensor | None = None) -> Tensor:
    """E sum_i f_i P_i: 1 when even, E / K when K experts take all (Fedus et al. 2021, eq. 4-6).

    f is each expert's share of the choices (no gradient), P its mean probability, over the tokens
    of the batch whose `valid` `(B, T)` is True.
    """
    p = routing.probs / routing.probs.sum(-1, keepdim=True)
    if valid is not None:
        p = p * valid[..., None]
    counts, mass = routing.counts(valid), p.sum((0, 1))  # (E,)
    f = counts / counts.sum().clamp(min=1)
    P = mass / mass.sum().clamp(min=1e-9)
    return len(counts) * (f * P).sum()


def z_loss(routing: Routing, valid: Tensor | None = None) -> Tensor:
    """Mean of (log sum exp of the logits)^2: keeps them small (Zoph et al. 2022, eq. 5)."""
    squared = routing.logits.logsumexp(-1).square()
    if valid is None:
        return squared.mean()
    return (squared * valid).sum() / valid.sum().clamp(min=1)


def importance_loss(routing: Routing, valid: Tensor | None = None) -> Tensor:
    """Squared variation over the experts of their summed weight (Shazeer et al. 2017, eq. 6-7).

    With noisy top-k also that of their load, estimated as the probability that each expert is
    among the K when the noise is drawn again (eq. 8-11).
    """
    B, T, E = routing.probs.shape
    gates = routing.weights.new_zeros(B, T, E + 1).scatter(-1, routing.experts, routing.weights)
    loss = _squared_variation(gates[..., :E], valid)
    return loss if routing.again is None else loss + _squared_variation(routing.again, valid)


def _squared_variation(shares: Tensor, valid: Tensor | None) -> Tensor:
    if valid is not None:
        shares = shares * valid[..., None]
    total = shares.sum((0, 1))  # (E,)
    return total.var(correction=0) / total.mean().clamp(min=1e-9).square()


def auxiliary_loss(routings: list[Routing], config: MoEConfig, valid: Tensor | None) -> Tensor:
    """What is added to the cross-entropy: the weighted losses of all layers, summed.

    Each layer has its own losses, so that one layer's imbalance cannot hide another's. Under
    gradient accumulation they are those of each forward pass on its own.
    """
    total = routings[0].logits.new_zeros(())
    for routing in routings:
        if config.balance == "loss" and config.balance_weight:
            total = total + config.balance_weight * balance_loss(routing, valid)
        if config.z_weight:
            total = total + config.z_weight * z_loss(routing, valid)
        if config.cv_weight:
            total = total + config.cv_weight * importance_loss(routing, valid)
    return total


@torch.no_grad()
def rebalance(model: nn.Module, load: Tensor) -> None:
    """Move the biases of all routers one step towards an even load (Wang et al. 2024, alg. 1).

    To be called after each update, with its choices per layer with experts and expert `(L, E)`:
    the sum of `TinyGPTOutput.expert_load`. Overloaded experts get a lower bias, others a higher
    one; the mean is taken off, as only differences matter.
    """
    routers = [module for module in model.modules() if isinstance(module, Router)]
    for router, counts in zip(routers, load, strict=True):
        if router.config.balance == "bias":
            step = torch.sign(counts.mean() - counts)
            router.bias += router.config.bias_rate * (step - step.mean())
