"""The parts of a transformer block: norms, rotary positions, attention, feed-forward layer.

B batch, T time, C channels (n_embd), H heads, D head size, F feed-forward width
"""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .config import ModelConfig


def make_norm(config: ModelConfig) -> nn.Module:
    """LayerNorm (Ba et al. 2016) or RMSNorm (Zhang and Sennrich 2019), over the channels."""
    kind = nn.LayerNorm if config.norm == "layernorm" else nn.RMSNorm
    return kind(config.n_embd, eps=config.norm_eps)


def rotary_table(positions: Tensor, head_size: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the angles by which RoPE turns (Su et al. 2021, eq. 34).

    `(T, D)` for positions `(T,)`, `(B, 1, T, D)` for `(B, T)`. Channel i is paired with channel
    i + D/2; pair i turns by position / theta^(2i / D) radians.
    """
    frequency = theta ** (-torch.arange(0, head_size, 2, device=positions.device) / head_size)
    angle = positions[..., None].float() * frequency  # (T, D/2)
    angle = torch.cat([angle, angle], dim=-1)  # (T, D)
    if positions.dim() == 2:
        angle = angle[:, None]  # the same for all heads
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each channel pair of x `(B, H, T, D)` by its position's angle."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


def causal_scores(q: Tensor, k: Tensor) -> Tensor:
    """Scaled dot products `(B, H, T, T)`, minus infinity where a query would see the future."""
    T = q.shape[2]
    scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[3])  # (B, H, T, T)
    future = torch.ones(T, T, dtype=torch.bool, device=q.device).triu(diagonal=1)
    return scores.masked_fill(future, -torch.inf)


class KVCache:
    """Keys and values of the tokens read so far, in buffers allocated once.

    `padding` `(B,)` says how many of the first tokens of each row are padding on the left: they
    are never attended to, and positions count from the first real token. Past `size` tokens a
    single new token takes the place of the oldest: its slot is its position modulo `size`, and the
    order of slots does not matter to a softmax.
    """

    def __init__(
        self,
        config: ModelConfig,
        batch_size: int = 1,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        padding: Tensor | None = None,
    ):
        self.size = config.block_size
        self.length = 0  # tokens read, also those whose slot was taken since
        self.padding = padding
        # keys and values of each layer, (L, 2, B, H, size, D)
        shape = (config.n_layer, 2, batch_size, config.n_head, self.size, config.head_size)
        self.buffer = torch.empty(shape, device=device, dtype=dtype)

    def restart(self, padding: Tensor | None = None) -> None:
        """Forget everything read; the buffers are kept."""
        self.length, self.padding = 0, padding

    def positions(self, T: int, device: torch.device) -> Tensor:
        """Positions of the next T tokens: `(T,)`, or `(B, T)` with padding."""
        positions = torch.arange(self.length, self.length + T, device=device)
        if self.padding is None:
            return positions
        return (positions - self.padding[:, None]).clamp(min=0)

    def mask(self, T: int, device: torch.device) -> Tensor | None:
        """Which of the kept tokens each of the next T may see, `(T, S)` or `(B, 1, T, S)`.

        None where a plain rule does: one new token sees all, a first window is causal.
        """
        if self.padding is None and (T == 1 or self.length == 0):
            return None
        newest = self.length + T - 1
        query = torch.arange(self.length, newest + 1, device=device)[:, None]
        slot = torch.arange(min(newest + 1, self.size), device=device)
        key = newest - (newest - slot) % self.size  # which token each slot holds
        seen = key <= query  # (T, S)
        if self.padding is None:
            return seen
        real = key >= self.padding[:, None, None, None]
        return seen & real | (key == query)  # padding sees itself: a row of nothing is NaN

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keep k and v `(B, H, T, D)`; return those of all tokens kept, `(B, H, S, D)`."""
        T, slot = k.shape[2], self.length % self.size
        kept = min(self.length + T, self.size)
        keys, values = self.buffer[layer, 0], self.buffer[layer, 1]  # (B, H, size, D)
        keys[:, :, slot : slot + T], values[:, :, slot : slot + T] = k, v
        return keys[:, :, :kept], values[:, :, :kept]


class FixedCache(KVCache):
    """A cache for steps of one token in which nothing depends on a number in Python.

    So a step can be compiled, or recorded as a CUDA graph: `length` is a tensor `(1,)` on the
    device, and attention goes over all slots, with a mask over those not yet taken.
    """

    def __init__(self, cache: KVCache, padding: Tensor | None = None):
        self.size, self.padding = cache.size, padding
        self.length = torch.zeros(1, dtype=torch.long, device=cache.buffer.device)
        # zeros, since a masked slot has weight 0, and 0 * NaN is NaN; a tensor for each layer's
        # keys and values, since a compiler copies all of a tensor that it sees changed in part
        cache.buffer.zero_()
        self.slots = [kept.clone() for kept in cache.buffer.flatten(0, 1)]  # (B, H, size, D)

    def follow(self, cache: KVCache) -> None:
        """Take over what another cache of the same shape holds."""
        self.length.fill_(cache.length)
        for slots, kept in zip(self.slots, cache.buffer.flatten(0, 1), strict=True):
            slots.copy_(kept)

    def positions(self, T: int, device: torch.device) -> Tensor:
        """The next token's position: `(1,)`, or `(B, 1)` with padding."""
        if self.padding is None:
            return self.length
        return (self.length - self.padding[:, None]).clamp(min=0)

    def mask(self, T: int, device: torch.device) -> Tensor:
        """Which slots the next token may see, `(1, size)` or `(B, 1, 1, size)`."""
        slot = torch.arange(self.size, device=device)
        key = self.length - (self.length - slot) % self.size  # below 0: not yet taken
        if self.padding is None:
            return (key >= 0)[None]
        return (key >= self.padding[:, None, None, None]) | (key == self.length)

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keep k and v `(B, H, 1, D)`; return all slots, `(B, H, size, D)`."""
        slot, (keys, values) = self.length % self.size, self.slots[2 * layer : 2 * layer + 2]
        return keys.index_copy_(2, slot, k), values.index_copy_(2, slot, v)


@dataclass
class Context:
    """What one forward pass hands to its layers, and what they are asked to tell of it."""

    rotary: tuple[Tensor, Tensor] | None = None
    cache: KVCache | None = None
    mask: Tensor | None = None  # True: may be seen; None: a first window, or one new token
    traced: bool = False
    attentions: list[Tensor] = field(default_factory=list)  # (B, H, T, T), rows sum to 1
    attention_scores: list[Tensor] = field(default_factory=list)  # the same before the softmax
    valid: Tensor | None = None  # (B, T) False: a token that has no target
    expert_mask: Tensor | None = None  # (layers with experts, E) 0: its output counts nothing
    routing: list[Any] = field(default_factory=list)  # per layer with experts, its moe.Routing


class Attention(nn.Module):
    """Causal multi-head self-attention (Vaswani et al. 2017, section 3.2)."""

    def __init__(self, config: ModelConfig, layer: int = 0):
        super().__init__()
        self.layer, self.n_head, self.dropout = layer, config.n_head, config.dropout
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.attn_bias)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.attn_bias)
        self.qk_norm = config.qk_norm
        if config.qk_norm:  # Dehghani et al. 2023, section 2
            self.q_norm = nn.RMSNorm(config.head_size, eps=config.norm_eps)
            self.k_norm = nn.RMSNorm(config.head_size, eps=config.norm_eps)

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        """x `(B, T, C)` -> `(B, T, C)`; the context may bring positions and a cache."""
        context = context or Context()
        B, T, C = x.shape
        heads = self.c_attn(x).view(B, T, 3, self.n_head, C // self.n_head)
        q, k, v = heads.permute(2, 0, 3, 1, 4)  # (B, H, T, D)
        if self.qk_norm:
            # norms want float32, also where products run in bf16
            q, k = self.q_norm(q.float()).type_as(v), self.k_norm(k.float()).type_as(v)
        if context.rotary is not None:
            q, k = rotate(q, *context.rotary), rotate(k, *context.rotary)
        if context.cache is not None:
            k, v = context.cache.append(self.layer, k, v)  # (B, H, S, D)
        rate = self.dropout if self.training else 0.0
        if context.traced:  # the fast kernel never forms the maps
            scores = causal_scores(q, k)
            weights = scores.float().softmax(dim=-1)
            context.attention_scores.append(scores)
            context.attentions.append(weights)
            y = F.dropout(weights, rate).to(v.dtype) @ v
        else:
            mask = context.mask
            causal = mask is None and T > 1
            y = F.scaled_dot_product_attention(q, k, v, mask, dropout_p=rate, is_causal=causal)
        y = y.transpose(1, 2).reshape(B, T, C)
        return F.dropout(self.c_proj(y), rate) if rate else self.c_proj(y)


class MLP(nn.Module):
    """The feed-forward layer: C -> F -> C at each position on its own.

    `gelu` is GPT-2's (Hendrycks and Gimpel 2016, tanh form); `relu2` squares a ReLU (So et al.
    2021); `swiglu` multiplies by a gate (Shazeer 2020, eq. 6): the first half of `c_fc` is the
    gate, the second what is gated.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.kind, self.dropout = config.mlp, config.dropout
        width = config.inner_size * (2 if config.mlp == "swiglu" else 1)
        self.c_fc = nn.Linear(config.n_embd, width, bias=config.mlp_bias)
        self.c_proj = nn.Linear(config.inner_size, config.n_embd, bias=config.mlp_bias)

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        """x `(B, T, C)` -> `(B, T, C)`; the context is for layers that need one."""
        y = self.c_proj(activate(self.c_fc(x), self.kind))
        return F.dropout(y, self.dropout) if self.training and self.dropout else y


def activate(x: Tensor, kind: str) -> Tensor:
    """The non-linearity of a feed-forward layer: `(..., F)`, or `(..., 2F)` for swiglu."""
    if kind == "gelu":
        return F.gelu(x, approximate="tanh")
    if kind == "relu2":
        return F.relu(x).square()
    gate, value = x.chunk(2, dim=-1)
    return F.silu(gate) * value
