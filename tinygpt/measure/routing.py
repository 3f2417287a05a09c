"""What routers did with a text: statistics of loads, tables, reports."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import ConfigError
from ..model import Routing, TinyGPT, balance_loss, evaluating, z_loss
from ..runtime import autocast
from .loss import split_batches


def variation(load: Tensor) -> float:
    """Coefficient of variation, standard deviation over mean: 0 is even."""
    load = load.double()
    return (load.std(correction=0) / load.mean()).item()


def max_violation(load: Tensor) -> float:
    """How far the fullest expert is above the mean, over the mean (Wang et al. 2024, eq. 4)."""
    load = load.double()
    return (load.max() / load.mean() - 1).item()


def dead_experts(load: Tensor, share: float = 0.01) -> list[int]:
    """Experts with less than `share` of an even load."""
    return torch.nonzero(load < share * load.double().mean()).flatten().tolist()


def mutual_information(table: Tensor) -> float:
    """Of the rows and columns of a table of counts, in nats: 0 when they are independent."""
    p = table.double() / table.sum()
    independent = p.sum(1, keepdim=True) * p.sum(0, keepdim=True)
    return torch.special.xlogy(p, p / independent).nansum().item()


def agreement(first: Routing, second: Routing) -> float:
    """How much the first choices of two layers tell of each other: 0 nothing, 1 all.

    Experts have no order, so equal numbers mean nothing; this is the mutual information over the
    larger of the two entropies (nan if both layers use one expert only).
    """
    E, other = second.probs.shape[-1], second.experts[..., 0]
    table = replace(first, experts=first.experts[..., :1]).table(other.where(other < E, -1), E)
    sides = [torch.special.entr(table.sum(d).double() / table.sum()).sum() for d in (0, 1)]
    return mutual_information(table) / max(map(float, sides)) if max(sides) > 0 else math.nan


@dataclass(frozen=True)
class RoutingReport:
    """What the routers of a model did with a split; L layers with experts."""

    tables: Tensor  # (L, V, E) how often each symbol went to each expert
    balance_loss: Tensor  # (L,) 1: even
    z_loss: Tensor  # (L,)
    entropy: Tensor  # (L,) nats

    @property
    def load(self) -> Tensor:
        """Share of the choices that fell on each expert, `(L, E)`."""
        counts = self.tables.sum(1)
        return counts / counts.sum(-1, keepdim=True)

    @property
    def load_cv(self) -> float:
        """The largest coefficient of variation of a layer's load: 0 is even."""
        return max(map(variation, self.load))


@torch.inference_mode()
def measure_routing(
    model: TinyGPT, tokens: Tensor, max_tokens: int | None = None, precision: str = "auto"
) -> RoutingReport:
    """Read a split as `evaluate` does, and see where its tokens go, in eval mode."""
    if model.config.moe is None:
        raise ConfigError("this model has no experts; build it with ModelConfig(moe=MoEConfig())")
    parts = []
    for x, _ in split_batches(model, tokens, max_tokens):
        with evaluating(model), autocast(model.device, precision):
            routings = model(x, return_routing=True).routing
        tables = torch.stack([r.table(x, model.config.vocab_size) for r in routings])
        figures = [torch.stack([balance_loss(r), z_loss(r), r.entropy()]) for r in routings]
        parts.append((x.numel(), tables.cpu(), torch.stack(figures, dim=1).cpu()))  # (3, L)
    counts, tables, figures = zip(*parts, strict=True)
    shares = torch.tensor(counts) / sum(counts)
    means = (torch.stack(figures) * shares[:, None, None]).sum(0)
    return RoutingReport(sum(tables), *means)
