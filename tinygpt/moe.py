"""Mixture of Experts: a router sends each token to few of many feed-forward layers.

B batch, T time, C channels, F expert width, E experts, K experts per token, N = B T tokens
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .config import ModelConfig, MoEConfig
from .layers import MLP, Context, activate


@dataclass
class Routing:
    """What one layer's router decided. `experts` holds E where a place was not used (top-p)."""

    logits: Tensor  # (B, T, E) float32
    probs: Tensor  # (B, T, E) the scores: rows add up to 1 with softmax
    experts: Tensor  # (B, T, K) those chosen, best first
    weights: Tensor  # (B, T, K) what their outputs are multiplied by
    dropped: Tensor  # (B, T, K) chosen, but beyond the expert's capacity
    again: Tensor | None = None  # (B, T, E) noisy top-k: chance to be chosen if drawn again

    def counts(self, valid: Tensor | None = None) -> Tensor:
        """How many choices fell on each expert, per sequence `(B, E)`; drops count, too."""
        B, _, E = self.probs.shape
        ones = torch.ones_like(self.experts, dtype=torch.float32)
        if valid is not None:
            ones = ones * valid[..., None]
        counts = ones.new_zeros(B, E + 1)
        return counts.scatter_add_(1, self.experts.flatten(1), ones.flatten(1))[:, :E]

    def load(self, valid: Tensor | None = None) -> Tensor:
        """Share of all choices that fell on each expert, `(E,)`."""
        counts = self.counts(valid).sum(0)
        return counts / counts.sum()

    def entropy(self) -> Tensor:
        """Mean entropy of the router's distribution in nats: 0 sure of itself, ln E undecided."""
        p = self.probs / self.probs.sum(-1, keepdim=True)
        return torch.special.entr(p).sum(-1).mean()

    def table(self, labels: Tensor, n_labels: int) -> Tensor:
        """How often tokens with each label `(B, T)` went to each expert, `(n_labels, E)`.

        The labels may be characters or their classes, positions, styles; negative ones are left
        out.
        """
        E = self.probs.shape[-1]
        labels = labels[..., None].expand_as(self.experts)
        used = (labels >= 0) & (self.experts < E)
        cells = (labels * E + self.experts)[used]
        return torch.bincount(cells, minlength=n_labels * E).view(n_labels, E)


# --- statistics of a load (E,) -------------------------------------------------------------------


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


# --- losses that keep a router healthy ----------------------------------------------------------


def balance_loss(routing: Routing, valid: Tensor | None = None, level: str = "batch") -> Tensor:
    """E sum_i f_i P_i: 1 when even, E / K when K experts take all (Fedus et al. 2021, eq. 4-6).

    f is each expert's share of the choices (no gradient), P its mean probability, over the tokens
    of the batch or, at level "sequence", of each sequence on its own (DeepSeek-V3, eq. 17-20).
    Tokens whose `valid` `(B, T)` is False count nowhere.
    """
    p = routing.probs / routing.probs.sum(-1, keepdim=True)
    if valid is not None:
        p = p * valid[..., None]
    counts, mass = routing.counts(valid), p.sum(1)  # (B, E)
    if level == "batch":
        counts, mass = counts.sum(0, keepdim=True), mass.sum(0, keepdim=True)
    f = counts / counts.sum(1, keepdim=True).clamp(min=1)
    P = mass / mass.sum(1, keepdim=True).clamp(min=1e-9)
    seen = (counts.sum(1) > 0).sum().clamp(min=1)  # sequences that are not all padding
    return counts.shape[1] * (f * P).sum() / seen


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
            loss = balance_loss(routing, valid, config.balance_level)
            total = total + config.balance_weight * loss
        if config.z_weight:
            total = total + config.z_weight * z_loss(routing, valid)
        if config.cv_weight:
            total = total + config.cv_weight * importance_loss(routing, valid)
    return total


# --- the layer -----------------------------------------------------------------------------------


class Router(nn.Module):
    """Scores each token's fit with each expert, and chooses; in float32 throughout.

    With `balance="bias"` it has a bias per expert that is added to the scores for choosing, never
    to the weights. `rebalance` moves the biases once per update; in eval they stand still.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = moe = config.moe
        width = moe.router_hidden or config.n_embd
        self.hidden = nn.Linear(config.n_embd, width, bias=False) if moe.router_hidden else None
        self.proj = nn.Linear(width, moe.n_experts, bias=False)
        self.noise = nn.Linear(config.n_embd, moe.n_experts, bias=False) if moe.noisy else None
        if moe.balance == "bias":
            self.register_buffer("bias", torch.zeros(moe.n_experts))
            self.register_buffer("load", torch.zeros(moe.n_experts))  # choices since the update

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Routing:
        """x `(B, T, C)` -> its `Routing`; tokens whose `valid` is False are not counted."""
        config = self.config
        with torch.autocast(x.device.type, enabled=False):
            logits, again = self._logits(x.float())  # (B, T, E)
            probs = _softmax(logits) if config.scores == "softmax" else logits.sigmoid()
            with torch.no_grad():
                experts = self._choose(probs)  # (B, T, K)
                dropped = self._overflow(experts)
            weights = self._weigh(probs, experts).masked_fill(dropped, 0.0)
        routing = Routing(logits, probs, experts, weights, dropped, again)
        if self.training and config.balance == "bias":
            self.load += routing.counts(valid).sum(0)
        return routing

    def _logits(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        config, clean_x = self.config, x
        if self.training and config.jitter:
            x = x * torch.empty_like(x).uniform_(1 - config.jitter, 1 + config.jitter)
        if self.hidden is not None:
            x = F.gelu(_linear(self.hidden, x))
        logits = _linear(self.proj, x)
        if self.noise is None or not self.training:
            return logits, None
        spread = F.softplus(_linear(self.noise, clean_x)) + 1e-2
        noisy = logits + spread * torch.randn_like(logits)
        return noisy, _chance(logits, noisy, spread, config.top_k)

    def _choose(self, probs: Tensor) -> Tensor:
        """Experts `(B, T, K)`, best first; E where a place stays free."""
        config, E, K = self.config, self.config.n_experts, self.config.top_k
        B, T, _ = probs.shape
        if config.forced_balance:
            return torch.arange(B * T * K, device=probs.device).view(B, T, K) % E
        if config.expert_choice:
            return self._experts_choose(probs)
        scores = probs + self.bias if config.balance == "bias" else probs
        if config.top_groups is not None:
            scores = _within_groups(scores, config.n_groups, config.top_groups)
        if K == 1 and config.top_p is None:
            return scores.max(-1, keepdim=True).indices
        experts = scores.topk(K, dim=-1).indices
        if config.top_p is None:
            return experts
        p = probs.gather(-1, experts)
        return experts.masked_fill(p.cumsum(-1) - p >= config.top_p, E)

    def _experts_choose(self, probs: Tensor) -> Tensor:
        """Each expert takes its favourites of each sequence (Zhou et al. 2022, eq. 1-2)."""
        (_, T, E), config = probs.shape, self.config
        favourites = probs.topk(min(T, self._capacity(T, config.capacity_factor or 1.0)), dim=1)
        taken = torch.zeros_like(probs, dtype=torch.bool).scatter(1, favourites.indices, True)
        return torch.arange(E, device=probs.device).where(taken, E)  # (B, T, E)

    def _weigh(self, probs: Tensor, experts: Tensor) -> Tensor:
        """What each chosen expert's output is multiplied by, `(B, T, K)`; 0 in a free place.

        At K = 1 it is the probability itself: were it divided by the sum, it would be 1 whatever
        the router says, and the language-model loss could not teach the router anything.
        """
        config, E = self.config, self.config.n_experts
        if not config.has_free_places:
            weights = probs.gather(-1, experts)
        else:
            weights = probs.gather(-1, experts.clamp(max=E - 1))
        if config.straight_through:
            weights = weights / weights.detach()
        if config.has_free_places:
            weights = weights.masked_fill(experts == E, 0.0)
        if config.norm_topk_prob:
            weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
        scale = config.routed_scaling_factor
        return weights if scale == 1 else weights * scale

    def _overflow(self, experts: Tensor) -> Tensor:
        """Choices that come when their expert has taken its share of the sequence already.

        Sequences are counted apart, and in the order of time: what is dropped never depends on a
        later token, nor on another row. In training only.
        """
        config, E = self.config, self.config.n_experts
        if config.capacity_factor is None or not self.training or config.expert_choice:
            return torch.zeros_like(experts, dtype=torch.bool)
        choices = F.one_hot(experts.flatten(1), E + 1)  # (B, T K, E + 1)
        rank = (choices.cumsum(1) * choices)[..., :E].sum(-1).view_as(experts)  # from 1
        return rank > self._capacity(experts.shape[1], config.capacity_factor)

    def _capacity(self, T: int, factor: float) -> int:
        """Tokens of a sequence that one expert takes (Fedus et al. 2021, eq. 3)."""
        return math.ceil(factor * self.config.top_k * T / self.config.n_experts)


def _softmax(z: Tensor) -> Tensor:
    """Over the experts. On a CPU torch's own takes five times as long where they are few."""
    if z.is_cuda or z.shape[-1] > 8:
        return z.softmax(-1)
    z = (z - z.detach().amax(-1, keepdim=True)).exp()
    return z / z.sum(-1, keepdim=True)


def _linear(module: nn.Linear, x: Tensor) -> Tensor:
    return F.linear(x, module.weight.float())


def _within_groups(scores: Tensor, n_groups: int, top_groups: int) -> Tensor:
    """Minus infinity outside the groups with the best two experts (DeepSeek-V3, section 2.1.2)."""
    groups = scores.unflatten(-1, (n_groups, -1))  # (B, T, G, E / G)
    value = groups.topk(min(2, groups.shape[-1]), dim=-1).values.sum(-1)  # (B, T, G)
    best = value.topk(top_groups, dim=-1).indices
    allowed = torch.zeros_like(value, dtype=torch.bool).scatter(-1, best, True)
    return groups.masked_fill(~allowed[..., None], -torch.inf).flatten(-2)


def _chance(clean: Tensor, noisy: Tensor, spread: Tensor, K: int) -> Tensor:
    """Probability of each expert to be in the top K if its own noise were drawn again.

    That is among all experts by score, as Shazeer et al. choose; biases and groups do not count.
    """
    if clean.shape[-1] == K:
        return torch.ones_like(clean)
    best = noisy.topk(K + 1, dim=-1).values
    inside = noisy > best[..., -1:]
    rival = best[..., K : K + 1].where(inside, best[..., K - 1 : K])  # best K-th of the others
    return torch.special.ndtr((clean - rival) / spread)


@torch.no_grad()
def rebalance(model: nn.Module) -> None:
    """Move the biases of all routers one step towards an even load (Wang et al. 2024, alg. 1).

    To be called after each update. Overloaded experts get a lower bias, others a higher one; the
    mean is taken off, as only differences matter.
    """
    for router in (m for m in model.modules() if isinstance(m, Router)):
        if router.config.balance == "bias":
            step = torch.sign(router.load.mean() - router.load)
            router.bias += router.config.bias_rate * (step - step.mean())
            router.load.zero_()


class ExpertLinear(nn.Module):
    """One linear layer per expert, stacked: weight `(E, out, in)`, bias `(E, out)` or None."""

    def __init__(self, n_experts: int, n_in: int, n_out: int, bias: bool):
        super().__init__()
        self.weight = nn.Parameter(0.02 * torch.randn(n_experts, n_out, n_in))
        self.bias = nn.Parameter(torch.zeros(n_experts, n_out)) if bias else None

    def each(self) -> list[tuple[Tensor, Tensor | None]]:
        """Weight and bias of every expert.

        Taken apart all at once: the gradient of `weight[e]` would be as large as all of `weight`,
        and mostly zero, for each expert.
        """
        biases = [None] * len(self.weight) if self.bias is None else self.bias.unbind()
        return list(zip(self.weight.unbind(), biases, strict=True))


class Experts(nn.Module):
    """E feed-forward layers of the kind that `MLP` is, with stacked weights."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        moe, bias = config.moe, config.mlp_bias
        self.moe, self.kind, width = moe, config.mlp, expert_width(config)
        inner = width * (2 if config.mlp == "swiglu" else 1)
        self.c_fc = ExpertLinear(moe.n_experts, config.n_embd, inner, bias)
        self.c_proj = ExpertLinear(moe.n_experts, width, config.n_embd, bias)

    def forward(self, x: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
        """Each token's weighted sum over its experts: x `(N, C)`, the others `(N, K)`.

        Where `experts` is E there is none. All ways of `MoEConfig.dispatch` give the same.
        """
        if self.moe.dispatch == "loop":
            return self.loop(x, experts, weights)
        (N, C), K, E = x.shape, experts.shape[1], len(self.c_fc.weight)
        choices = experts.flatten()
        chosen, order = choices.sort(stable=True)
        counts = order.new_zeros(E + 1).scatter_add_(0, choices, torch.ones_like(order))
        rows = x.repeat_interleave(K, dim=0) if K > 1 else x
        rows = rows.index_select(0, order)  # (N K, C)
        rows = self.grouped_mm(rows, chosen, counts) if self.groups(x) else self.split(rows, counts)
        y = rows.new_empty(N * K, C).index_copy_(0, order, rows)  # back in their places
        y = y * weights.to(rows.dtype).view(N * K, 1)
        return y.view(N, K, C).sum(1) if K > 1 else y

    def groups(self, x: Tensor) -> bool:
        """Whether one kernel for all experts is asked for, or is there and faster."""
        if self.moe.dispatch != "auto" or not x.is_cuda:
            return self.moe.dispatch == "grouped_mm"
        # the kernel is for Ampere and later; the compiler knows it in bf16 only
        compiled_fp32 = torch.compiler.is_compiling() and _computes_in(x) != torch.bfloat16
        return torch.cuda.get_device_capability(x.device) >= (8, 0) and not compiled_fp32

    def loop(self, x: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
        """The definition, expert by expert: what the others are compared with."""
        y = torch.zeros_like(x)
        for e, layer in enumerate(self._each()):
            token, place = torch.where(experts == e)
            y = y.index_add(0, token, layer(x[token]) * weights[token, place, None].to(x.dtype))
        return y

    def split(self, rows: Tensor, counts: Tensor) -> Tensor:
        """Sorted rows, cut where the expert changes: each part stays in the cache."""
        *parts, unused = rows.split(counts.tolist())
        parts = [layer(part) for layer, part in zip(self._each(), parts, strict=True)]
        return torch.cat([*parts, torch.zeros_like(unused, dtype=parts[0].dtype)])

    def grouped_mm(self, rows: Tensor, chosen: Tensor, counts: Tensor) -> Tensor:
        """Sorted rows in one kernel per layer: no loop, and the CPU need not know the counts."""
        E = len(counts) - 1
        ends = counts[:E].cumsum(0).to(torch.int32)
        unused = (chosen == E)[:, None] if self.leaves_out() else None
        h = _grouped_linear(_clear(rows, unused), self.c_fc, ends, chosen)
        h = self._drop(activate(_clear(h, unused), self.kind))
        return _clear(_grouped_linear(h, self.c_proj, ends, chosen), unused)

    def leaves_out(self) -> bool:
        """Whether some choices may have no expert."""
        capacity = self.moe.capacity_factor is not None and self.training
        return self.moe.has_free_places or capacity

    def _each(self) -> list[Callable[[Tensor], Tensor]]:
        """Every expert as a function of rows `(R, C)`."""

        def layer(rows: Tensor, up: tuple, down: tuple) -> Tensor:
            return F.linear(self._drop(activate(F.linear(rows, *up), self.kind)), *down)

        pairs = zip(self.c_fc.each(), self.c_proj.each(), strict=True)
        return [partial(layer, up=up, down=down) for up, down in pairs]

    def _drop(self, h: Tensor) -> Tensor:
        rate = self.moe.expert_dropout
        return F.dropout(h, rate) if self.training and rate else h


def _clear(rows: Tensor, unused: Tensor | None) -> Tensor:
    """Zero the rows of no expert: they are not computed, and what stands there is garbage."""
    return rows if unused is None else rows.masked_fill(unused, 0)


def _computes_in(x: Tensor) -> torch.dtype:
    """The type of matrix products with x; autocast does not know of grouped_mm."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def _grouped_linear(x: Tensor, layer: ExpertLinear, ends: Tensor, chosen: Tensor) -> Tensor:
    """Rows `(R, in)` -> `(R, out)`, those up to `ends[e]` by expert e; `chosen` `(R,)` names it."""
    dtype, weight, (E, n_out, n_in) = _computes_in(x), layer.weight, layer.weight.shape
    step = 16 // dtype.itemsize  # the kernel wants rows of whole 16 bytes
    short_in, short_out = -n_in % step, -n_out % step
    if short_in or short_out:
        x, weight = F.pad(x, (0, short_in)), F.pad(weight, (0, short_in, 0, short_out))
    y = F.grouped_mm(x.to(dtype), weight.to(dtype).transpose(1, 2), offs=ends)[:, :n_out]
    if layer.bias is None:
        return y
    # bias[chosen], as a product: the gradient of indexing is slow
    return y + F.one_hot(chosen, E + 1)[:, :E].to(dtype) @ layer.bias.to(dtype)


def expert_width(config: ModelConfig) -> int:
    """F, the feed-forward width of one expert."""
    return config.moe.n_inner or config.inner_size


class MoE(nn.Module):
    """In the place of an `MLP`: a router, experts, and maybe experts shared by all tokens.

    y = sum over the chosen experts i of w_i E_i(x), and S(x), or sigmoid(x g) S(x), for shared
    experts, which are one MLP of `n_shared` times the width (Dai et al. 2024, eq. 9).
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        moe = config.moe
        self.dropout = config.dropout
        self.router = Router(config)
        self.experts = Experts(config)
        shared = replace(config, n_inner=max(1, moe.n_shared) * expert_width(config), dropout=0.0)
        self.shared = MLP(shared) if moe.n_shared else None
        self.shared_gate = nn.Linear(config.n_embd, 1, bias=False) if moe.shared_gate else None

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        """x `(B, T, C)` -> `(B, T, C)`; the context gets the layer's `Routing`."""
        context = context or Context()
        routing = self.router(x, context.valid)
        experts = routing.experts.masked_fill(routing.dropped, routing.probs.shape[-1])
        weights = routing.weights
        if context.expert_mask is not None:
            kept = F.pad(context.expert_mask[len(context.routing)], (0, 1))  # (E + 1,)
            weights = weights * kept[routing.experts]
        context.routing.append(routing)
        y = self.experts(x.flatten(0, 1), experts.flatten(0, 1), weights.flatten(0, 1)).view_as(x)
        if self.shared is not None:
            shared = self.shared(x)
            y = y + (shared if self.shared_gate is None else self.shared_gate(x).sigmoid() * shared)
        return F.dropout(y, self.dropout) if self.training and self.dropout else y
