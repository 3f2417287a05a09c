"""Which experts take a token, and with what weight.

B batch, T time, C channels, E experts, K experts per token
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import ModelConfig

ROUNDING = 3e-6  # so much, relatively, float32 may change the odds of two probabilities


@dataclass(frozen=True)
class Routing:
    """What one layer's router decided. `experts` holds E where a place was not used (top-p)."""

    logits: Tensor  # (B, T, E) float32
    probs: Tensor  # (B, T, E) the scores: rows add up to 1 with softmax
    experts: Tensor  # (B, T, K) those chosen, best first
    weights: Tensor  # (B, T, K) what their outputs are multiplied by
    dropped: Tensor  # (B, T, K) chosen, but beyond the expert's capacity
    again: Tensor | None = None  # (B, T, E) noisy top-k: chance to be chosen if drawn again

    def counts(self, valid: Tensor | None = None) -> Tensor:
        """How many choices fell on each expert, `(E,)`; drops count, too."""
        E = self.probs.shape[-1]
        ones = torch.ones_like(self.experts, dtype=torch.float32)
        if valid is not None:
            ones = ones * valid[..., None]
        counts = ones.new_zeros(E + 1)
        return counts.scatter_add_(0, self.experts.flatten(), ones.flatten())[:E]

    def load(self, valid: Tensor | None = None) -> Tensor:
        """Share of all choices that fell on each expert, `(E,)`."""
        counts = self.counts(valid)
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
        return choice_table(self.experts, labels, n_labels, self.probs.shape[-1])


def choice_table(experts: Tensor, labels: Tensor, n_labels: int, n_experts: int) -> Tensor:
    """How often tokens with each label `(...)` chose each of E experts, `(n_labels, E)`.

    `experts` `(..., K)` are the choices, E where there is none; negative labels are left out.
    """
    labels = labels[..., None].expand_as(experts)
    used = (labels >= 0) & (experts < n_experts)
    cells = (labels * n_experts + experts)[used]
    return torch.bincount(cells, minlength=n_labels * n_experts).view(n_labels, n_experts)


class Router(nn.Module):
    """Scores each token's fit with each expert, and chooses; in float32 throughout.

    With `balance="bias"` it has a bias per expert that is added to the scores for choosing, never
    to the weights. `rebalance` moves the biases once per update; in eval they stand still.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = moe = config.moe
        self.proj = nn.Linear(config.n_embd, moe.n_experts, bias=False)
        self.noise = nn.Linear(config.n_embd, moe.n_experts, bias=False) if moe.noisy else None
        if moe.balance == "bias":
            self.register_buffer("bias", torch.zeros(moe.n_experts))

    def forward(self, x: Tensor) -> Routing:
        """x `(B, T, C)` -> its `Routing`."""
        config = self.config
        with torch.autocast(x.device.type, enabled=False):
            logits, again = self._logits(x.float())  # (B, T, E)
            probs = _softmax(logits) if config.scores == "softmax" else logits.sigmoid()
            with torch.no_grad():
                experts = self._choose(probs)  # (B, T, K)
                dropped = self._overflow(experts)
            if config.straight_through:
                weights = self._weigh_straight(logits, experts)
            else:
                weights = self._weigh(probs, experts)
            weights = weights.masked_fill(dropped, 0.0)
        return Routing(logits, probs, experts, weights, dropped, again)

    def _logits(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        config, clean_x = self.config, x
        if self.training and config.jitter:
            x = x * torch.empty_like(x).uniform_(1 - config.jitter, 1 + config.jitter)
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
        scores = probs + self.bias if config.balance == "bias" else probs
        if config.top_groups is not None:
            scores = _within_groups(scores, config.n_groups, config.top_groups)
        if K == 1 and config.top_p is None:
            return scores.max(-1, keepdim=True).indices
        experts = scores.topk(K, dim=-1).indices
        if config.top_p is None:
            return experts
        p = float64(probs)  # (B, T, E)
        p = (p / p.sum(-1, keepdim=True)).gather(-1, experts)  # (B, T, K)
        return experts.masked_fill(~fewest(p, config.top_p), E)

    def _weigh(self, probs: Tensor, experts: Tensor) -> Tensor:
        """What each chosen expert's output is multiplied by, `(B, T, K)`; 0 in a free place.

        At K = 1 it is the probability itself: were it divided by the sum, it would be 1 whatever
        the router says, and the language-model loss could not teach the router anything.
        """
        config, E = self.config, self.config.n_experts
        free = None if config.top_p is None else experts == E
        weights = probs.gather(-1, experts if free is None else experts.clamp(max=E - 1))
        if free is not None:
            weights = weights.masked_fill(free, 0.0)
        if config.norm_topk_prob:
            weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
        scale = config.routed_scaling_factor
        return weights if scale == 1 else weights * scale

    def _weigh_straight(self, logits: Tensor, experts: Tensor) -> Tensor:
        """The chosen scores over a sum of them that counts as a constant, `(B, T, K)`.

        Their values add up to 1, and still each has a gradient of its own: at K = 1, or where all
        experts are alike, the language-model loss teaches a router so, and only so. In logarithms,
        as biases may choose an expert whose probability is 0 in float32.
        """
        config, E = self.config, self.config.n_experts
        log = logits.log_softmax(-1) if config.scores == "softmax" else F.logsigmoid(logits)
        log = log.gather(-1, experts.clamp(max=E - 1))
        log = log.masked_fill(experts == E, -torch.inf)
        weights = (log - log.detach().logsumexp(-1, keepdim=True)).exp()
        return weights * config.routed_scaling_factor

    def _overflow(self, experts: Tensor) -> Tensor:
        """Choices that come when their expert has taken its share of the sequence already.

        Sequences are counted apart, and in the order of time: what is dropped never depends on a
        later token, nor on another row. In training only.
        """
        config, E = self.config, self.config.n_experts
        if config.capacity_factor is None or not self.training:
            return torch.zeros_like(experts, dtype=torch.bool)
        choices = F.one_hot(experts.flatten(1), E + 1)  # (B, T K, E + 1)
        rank = (choices.cumsum(1) * choices)[..., :E].sum(-1).view_as(experts)  # from 1
        return rank > self._capacity(experts.shape[1], config.capacity_factor)

    def _capacity(self, T: int, factor: float) -> int:
        """Tokens of a sequence that one expert takes (Fedus et al. 2021, eq. 3)."""
        return math.ceil(factor * self.config.top_k * T / self.config.n_experts)


def fewest(p: Tensor, mass: float) -> Tensor:
    """Which of the probabilities p `(..., N)`, from the first on, it takes to reach a mass.

    A sum that equals it but for rounding is enough: .5 and .3 reach .8, whatever float32 makes of
    them. p is in float64, so the rounding is that of the logits: it changes the odds of what was
    taken by a factor near 1, and so its sum S by S (1 - S) times that. Where the mass is nearly 1
    the allowance is as small beside what is left.
    """
    before = p.cumsum(-1) - p
    return before < mass - ROUNDING * mass * (1 - mass)


def float64(x: Tensor) -> Tensor:
    """x in float64, unless on a device that has none."""
    return x if x.device.type == "mps" else x.double()


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
