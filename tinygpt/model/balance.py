"""What keeps the experts' load even: losses, and biases moved after each update.

B batch, T time, E experts, K experts per token
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..config import MoEConfig
from .router import Router, Routing

Total = Callable[[Tensor], Tensor]  # from a sum over own tokens to that over all processes


def alone(x: Tensor) -> Tensor:
    """The `Total` of one process."""
    return x


def balance_loss(routing: Routing, valid: Tensor | None = None, total: Total = alone) -> Tensor:
    """E sum_i f_i P_i: 1 when even, E / K when K experts take all (Fedus et al. 2021, eq. 4-6).

    f is each expert's share of the choices (no gradient), P its mean probability, over the tokens
    of the batch whose `valid` `(B, T)` is True.
    """
    p = routing.probs / routing.probs.sum(-1, keepdim=True)
    if valid is not None:
        p = p * valid[..., None]
    counts, mass = total(routing.counts(valid)), total(p.sum((0, 1)))  # (E,)
    f = counts / counts.sum().clamp(min=1)
    P = mass / mass.sum().clamp(min=1e-9)
    return len(counts) * (f * P).sum()


def z_loss(routing: Routing, valid: Tensor | None = None, total: Total = alone) -> Tensor:
    """Mean of (log sum exp of the logits)^2: keeps them small (Zoph et al. 2022, eq. 5)."""
    squared = routing.logits.logsumexp(-1).square()
    if valid is None:
        return squared.mean()
    return total((squared * valid).sum()) / total(valid.sum()).clamp(min=1)


def importance_loss(routing: Routing, valid: Tensor | None = None, total: Total = alone) -> Tensor:
    """Squared variation over the experts of their summed weight (Shazeer et al. 2017, eq. 6-7).

    With noisy top-k also that of their load, estimated as the probability that each expert is
    among the K when the noise is drawn again (eq. 8-11).
    """
    B, T, E = routing.probs.shape
    gates = routing.weights.new_zeros(B, T, E + 1).scatter(-1, routing.experts, routing.weights)
    loss = _squared_variation(gates[..., :E], valid, total)
    if routing.again is None:
        return loss
    return loss + _squared_variation(routing.again, valid, total)


def _squared_variation(shares: Tensor, valid: Tensor | None, total: Total) -> Tensor:
    if valid is not None:
        shares = shares * valid[..., None]
    sums = total(shares.sum((0, 1)))  # (E,)
    return sums.var(correction=0) / sums.mean().clamp(min=1e-9).square()


def auxiliary_loss(
    routings: list[Routing], config: MoEConfig, valid: Tensor | None, total: Total = alone
) -> Tensor:
    """What is added to the cross-entropy: the weighted losses of all layers, summed.

    Each layer has its own losses, so that one layer's imbalance cannot hide another's. Under
    gradient accumulation they are those of each forward pass on its own; where several processes
    share its rows, `total` makes them those of all rows.
    """
    loss = routings[0].logits.new_zeros(())
    for routing in routings:
        if config.balance == "loss" and config.balance_weight:
            loss = loss + config.balance_weight * balance_loss(routing, valid, total)
        if config.z_weight:
            loss = loss + config.z_weight * z_loss(routing, valid, total)
        if config.cv_weight:
            loss = loss + config.cv_weight * importance_loss(routing, valid, total)
    return loss


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
