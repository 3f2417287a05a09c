"""Mixture of Experts: a router sends each token to few of many feed-forward layers.

B batch, T time, C channels, F expert width, E experts, K experts per token, N = B T tokens
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import ModelConfig
from .layers import MLP, activate
from .router import Router, Routing

GROUPED = (torch.float32, torch.bfloat16, torch.float16)  # what grouped_mm multiplies
COMPILED = (torch.bfloat16,)  # and compiled
FEW_ROWS = 32  # per expert: with more, parts that stay in a CPU's cache are faster


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

        Where `experts` is E, as top-p and a capacity make it, there is none. All ways of
        `MoEConfig.dispatch` give the same.
        """
        if self.moe.dispatch == "loop":
            return self.loop(x, experts, weights)
        if self.is_alone(x):
            return self.one_by_one(x, experts, weights)
        rows, chosen, order, counts = self.gather(x, experts)
        rows = self.products(rows, chosen, counts)
        return self.combine(rows, order, weights)

    def gather(self, x: Tensor, experts: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The tokens' rows sorted by expert, `(N K, C)`; with each one's expert and the place that
        it came from, both `(N K,)`, and how many there are of each expert and of none, `(E + 1,)`.
        """
        K, E = experts.shape[1], len(self.c_fc.weight)
        choices = experts.flatten()
        chosen, order = choices.sort(stable=True)
        counts = order.new_zeros(E + 1).scatter_add_(0, choices, torch.ones_like(order))
        return x.index_select(0, order // K), chosen, order, counts

    def products(self, rows: Tensor, chosen: Tensor, counts: Tensor) -> Tensor:
        """What the experts make of their sorted rows, `(N K, C)`; zeros of those of none."""
        if self.groups(rows):
            return self.grouped_mm(rows, chosen, counts)
        return self.split(rows, counts)

    def combine(self, rows: Tensor, order: Tensor, weights: Tensor) -> Tensor:
        """Rows back in their places, weighted, and added up for each token: `(N, C)`."""
        (N, K), C = weights.shape, rows.shape[1]
        y = torch.empty_like(rows).index_copy_(0, order, rows)
        y = y * weights.to(rows.dtype).view(N * K, 1)
        return y.view(N, K, C).sum(1) if K > 1 else y

    def groups(self, rows: Tensor) -> bool:
        """Whether one kernel for all experts is asked for, or is there and faster."""
        if self.moe.dispatch != "auto":
            return self.moe.dispatch == "grouped_mm"
        if _computes_in(rows) not in (COMPILED if torch.compiler.is_compiling() else GROUPED):
            return False
        if rows.is_cuda:  # the kernel is for Ampere and later
            return torch.cuda.get_device_capability(rows.device) >= (8, 0)
        return rows.device.type == "cpu" and len(rows) <= FEW_ROWS * len(self.c_fc.weight)

    def is_alone(self, x: Tensor) -> bool:
        """Whether this is one token of a text that is written, where sorting costs most.

        Without gradients, as there each expert must take part; and where the CPU may look at the
        choice without waiting for a GPU.
        """
        learns = self.training or torch.is_grad_enabled()
        on_cpu = x.device.type == "cpu"
        return len(x) == 1 and self.moe.dispatch == "auto" and on_cpu and not learns

    def one_by_one(self, x: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
        """The experts of a single token, and no others."""
        y, pairs = torch.zeros_like(x), list(zip(self.c_fc.each(), self.c_proj.each(), strict=True))
        for e, weight in zip(experts[0].tolist(), weights[0].to(x.dtype), strict=True):
            if e < len(pairs):
                up, down = pairs[e]
                y = y + weight * F.linear(activate(F.linear(x, *up), self.kind), *down)
        return y

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
        ends = counts[:E].cumsum(0, dtype=torch.int32)
        unused = (chosen == E)[:, None] if self.leaves_out() else None
        if unused is not None:
            chosen = chosen.clamp(max=E - 1)  # any: what the rows become is cleared
        h = _grouped_linear(_clear(rows, unused), self.c_fc, ends, chosen)
        h = self._drop(activate(_clear(h, unused), self.kind))
        return _clear(_grouped_linear(h, self.c_proj, ends, chosen), unused)

    def leaves_out(self) -> bool:
        """Whether some choices may have no expert."""
        return self.moe.top_p is not None or self.moe.capacity_factor is not None

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
    bias = layer.bias.to(dtype)
    if x.is_cuda:  # as a product: the gradient of indexing is slow there
        return y + F.one_hot(chosen, E).to(dtype) @ bias
    return y + bias.index_select(0, chosen)


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

    def forward(self, x: Tensor) -> tuple[Tensor, Routing]:
        """x `(B, T, C)` -> `(B, T, C)`, and where its tokens went."""
        routing = self.router(x)
        experts = routing.experts.masked_fill(routing.dropped, routing.probs.shape[-1])
        flat = (t.flatten(0, 1) for t in (x, experts, routing.weights))
        y = self.experts(*flat).view_as(x)
        if self.shared is not None:
            shared = self.shared(x)
            y = y + (shared if self.shared_gate is None else self.shared_gate(x).sigmoid() * shared)
        return (F.dropout(y, self.dropout) if self.training and self.dropout else y), routing
