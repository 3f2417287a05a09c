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


def saturation(experts: Tensor, final: Tensor, n_experts: int) -> tuple[float, float]:
    """Share of the final router's choices that an earlier one made too; and by chance.

    Both `(N, K)`, in any order, of the same tokens (Muennighoff et al. 2024, section 5.1). By
    chance: if the earlier choices were dealt out anew among the tokens, so that the loads alone
    agree. A router that always takes the same experts is saturated, and by chance as much.
    """
    used = final < n_experts  # (N, K)
    same = (experts[:, :, None] == final[:, None, :]).any(1) & used
    loads = [
        torch.bincount(e[e < n_experts], minlength=n_experts).double() for e in (experts, final)
    ]
    return (same.sum() / used.sum()).item(), (loads[0] @ loads[1] / len(final) / used.sum()).item()


def co_activation(experts: Tensor, n_experts: int) -> Tensor:
    """Of the tokens that went to expert i, the share that also went to j, `(E, E)`, from `(N, K)`.

    N_ij / N_i (Muennighoff et al. 2024, section 5.2); 0 on the diagonal, nan in the row of an
    expert without tokens. The rows of experts that keep K choices add up to K - 1.
    """
    if experts.shape[-1] < 2:
        raise ConfigError("with top_k=1 no two experts are chosen together; it takes top_k >= 2")
    chosen = torch.zeros(len(experts), n_experts + 1, dtype=torch.float64)
    chosen = chosen.scatter_(1, experts.long(), 1.0)[:, :n_experts]  # (N, E)
    return (chosen.T @ chosen).fill_diagonal_(0) / chosen.sum(0)[:, None]


@dataclass(frozen=True)
class RoutingReport:
    """What the routers of a model did with a split; L layers with experts."""

    experts: Tensor  # (L, N, K) int16, those chosen for the tokens that `positions_read` names
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
    parts, tables = [], 0
    for x, _ in split_batches(model, tokens, max_tokens):
        with evaluating(model), autocast(model.device, precision):
            routings = model(x, return_routing=True).routing
        # added up at once: of a large vocabulary one alone is large
        tables += torch.stack([r.table(x, model.config.vocab_size) for r in routings]).cpu()
        figures = [torch.stack([balance_loss(r), z_loss(r), r.entropy()]) for r in routings]
        figures = torch.stack(figures, dim=1).cpu()  # (3, L)
        experts = torch.stack([r.experts.flatten(0, 1) for r in routings]).short().cpu()
        parts.append((x.numel(), experts, figures))
    counts, experts, figures = zip(*parts, strict=True)
    shares = torch.tensor(counts) / sum(counts)
    means = (torch.stack(figures) * shares[:, None, None]).sum(0)
    return RoutingReport(torch.cat(experts, dim=1), tables, *means)
