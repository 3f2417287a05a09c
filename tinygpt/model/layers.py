"""The parts of a transformer block: norms, rotary positions, attention, feed-forward layer.

B batch, T time, C channels (n_embd), H heads, G of keys and values, D head size, F feed-forward
width
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import ModelConfig
from .cache import KVCache


def make_norm(config: ModelConfig) -> nn.Module:
    """LayerNorm (Ba et al. 2016) or RMSNorm (Zhang and Sennrich 2019), over the channels."""
    kind = nn.LayerNorm if config.norm == "layernorm" else nn.RMSNorm
    return kind(config.n_embd, eps=config.norm_eps)


class Bigrams(nn.Embedding):
    """A vector for each pair of a token and the one before it (Huang et al. 2025, section 3.1).

    A sequence's first token makes a pair with "none". Of V symbols there are (V + 1) V pairs; where
    `config.bigrams` allows fewer vectors, the pairs share them by the rest of their number.
    """

    def __init__(self, config: ModelConfig):
        V = config.vocab_size
        pairs, rows = (V + 1) * V, config.bigrams
        while rows < pairs and math.gcd(rows, V) > 1:
            rows -= 1  # with a common factor, a token would have few vectors for all before it
        super().__init__(min(rows, pairs), config.n_embd)
        self.vocab_size = V

    def forward(self, idx: Tensor, before: Tensor, positions: Tensor) -> Tensor:
        """Tokens `(B, T)`, those before them and their positions -> `(B, T, C)`."""
        before = before.masked_fill(positions == 0, self.vocab_size)
        pair = before * self.vocab_size + idx
        return super().forward(pair % self.num_embeddings)


class Shift(nn.Module):
    """x_t + mu * x_(t-1), with a learned mu for each channel, for a feed-forward layer to read.

    After the token shift of RWKV (Peng et al. 2023, section 3.1). Zeros stand before the first.
    """

    def __init__(self, config: ModelConfig, layer: int = 0):
        super().__init__()
        self.layer, self.mu = layer, nn.Parameter(torch.zeros(config.n_embd))

    def forward(self, x: Tensor, cache: KVCache | None = None) -> Tensor:
        """x `(B, T, C)` -> `(B, T, C)`."""
        if cache is None:
            return x + self.mu * F.pad(x, (0, 0, 1, 0))[:, :-1]
        first = cache.first(x.shape[1], x.device)
        before = cache.before(cache.read[self.layer], x)
        if first is not None:
            before = before.masked_fill(first[..., None], 0)
        return x + self.mu * before


def rotary_table(positions: Tensor, head_size: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the angles by which RoPE turns (Su et al. 2021, eq. 34).

    `(T, D)` for positions `(T,)`, `(B, 1, T, D)` for `(B, T)`. Channel i is paired with channel
    i + D/2; pair i turns by position / theta^(2i / D) radians. The sines of the first half have
    their sign changed: they multiply the other channel of the pair.
    """
    exponents = torch.arange(0, head_size, 2, device=positions.device) / head_size
    frequency = 1.0 / theta**exponents  # rounded as transformers' is: angles reach thousands
    angle = positions[..., None].float() * frequency  # (T, D/2)
    if positions.dim() == 2:
        angle = angle[:, None]  # the same for all heads
    cos, sin = angle.cos(), angle.sin()
    return torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each channel pair of x `(B, H, T, D)` by its position's angle."""
    other = x.roll(x.shape[-1] // 2, dims=-1)  # of each pair
    return (x * cos + other * sin).type_as(x)


def in_float32(norm: nn.RMSNorm, x: Tensor) -> Tensor:
    """A norm of x whose squares are added up in float32, also where x or the weights are bf16."""
    y = F.rms_norm(x.float(), norm.normalized_shape, norm.weight.float(), norm.eps)
    return y.type_as(x)


def masked_scores(q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
    """Scaled dot products `(B, H, T, S)`, minus infinity where a query may not see a key.

    Without a mask that is the future: queries and keys are then those of the same T tokens, or
    there is one query, which sees all.
    """
    T, S = q.shape[2], k.shape[2]
    scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[3])  # (B, H, T, S)
    if mask is None and T > 1:
        mask = torch.ones(T, S, dtype=torch.bool, device=q.device).tril()
    return scores if mask is None else scores.masked_fill(~mask, -torch.inf)


@dataclass(frozen=True)
class AttentionMaps:
    """What each query attended to, of S keys: rows of `weights` sum to 1."""

    weights: Tensor  # (B, H, T, S) float32
    scores: Tensor  # (B, H, T, S) the same before the softmax


class Attention(nn.Module):
    """Causal multi-head self-attention (Vaswani et al. 2017, section 3.2).

    H query heads; where there are fewer heads of keys and values, H / G queries in a row read each
    (Ainslie et al. 2023, section 2.2). In the rows of `c_attn` queries stand over keys over values.
    """

    def __init__(self, config: ModelConfig, layer: int = 0):
        super().__init__()
        self.layer, self.dropout = layer, config.dropout
        H, G, D = config.n_head, config.kv_heads, config.head_size
        self.n_head, self.kv_heads, self.head_size = H, G, D
        bias = config.attn_bias if config.qkv_bias is None else config.qkv_bias
        self.c_attn = nn.Linear(config.n_embd, (H + 2 * G) * D, bias=bias)
        self.c_proj = nn.Linear(H * D, config.n_embd, bias=config.attn_bias)
        self.qk_norm = config.qk_norm
        if config.qk_norm:  # Dehghani et al. 2023, section 2
            self.q_norm = nn.RMSNorm(D, eps=config.norm_eps)
            self.k_norm = nn.RMSNorm(D, eps=config.norm_eps)

    def forward(
        self,
        x: Tensor,
        rotary: tuple[Tensor, Tensor] | None = None,
        mask: Tensor | None = None,
        cache: KVCache | None = None,
        return_attention: bool = False,
        only_last: bool = False,
    ) -> tuple[Tensor, AttentionMaps | None]:
        """x `(B, T, C)` -> `(B, T, C)`, and the maps if asked for.

        `mask` is True where a query may see a key, `(T, S)` or `(B, 1, T, S)`; without one a first
        window is causal, and one token sees all that the cache holds. With `only_last` the last
        position alone has a query: `(B, 1, C)`.
        """
        B, T, _ = x.shape
        H, G = self.n_head, self.kv_heads
        heads = self.c_attn(x).view(B, T, H + 2 * G, self.head_size).transpose(1, 2)
        q, k, v = heads.split([H, G, G], dim=1)  # (B, H, T, D), (B, G, T, D) twice
        if self.qk_norm:
            q, k = in_float32(self.q_norm, q), in_float32(self.k_norm, k)
        if rotary is not None:
            q, k = rotate(q, *rotary), rotate(k, *rotary)
        if cache is not None:
            k, v = cache.append(self.layer, k, v)  # (B, G, S, D)
        if only_last:
            q, mask = q[:, :, -1:], None if mask is None else mask[..., -1:, :]
        maps = None
        if return_attention:  # the fast kernel never forms the maps
            k, v = (t.repeat_interleave(H // G, dim=1) if G < H else t for t in (k, v))
            scores = masked_scores(q, k, mask)
            maps = AttentionMaps(scores.float().softmax(dim=-1), scores)
            y = maps.weights.to(v.dtype) @ v
        else:
            causal = mask is None and q.shape[2] > 1
            y = F.scaled_dot_product_attention(q, k, v, mask, is_causal=causal, enable_gqa=G < H)
        y = self.c_proj(y.transpose(1, 2).flatten(2))
        return (F.dropout(y, self.dropout) if self.training and self.dropout else y), maps


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

    def forward(self, x: Tensor) -> Tensor:
        """x `(B, T, C)` -> `(B, T, C)`."""
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
