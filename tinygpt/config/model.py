"""The shape of a model, and of its experts."""

from dataclasses import dataclass
from typing import Literal

from ..checks import check, check_all
from .ranges import Count, Mass, Positive, Rate, Weight, Whole


@dataclass(frozen=True)
class MoEConfig:
    """A Mixture of Experts in place of the feed-forward layer; see `tinygpt.model`.

    The defaults: one expert per token, weighted by its probability, no token dropped, the load
    kept even by biases. Switch has `balance="loss", capacity_factor=1.25`; Mixtral `n_experts=8,
    top_k=2, norm_topk_prob=True, balance="loss"`; DeepSeek-V3 routes with `scores="sigmoid",
    n_shared=1`. Noise, jitter, dropout and capacity act in training only.
    """

    n_experts: Count = 4  # E
    top_k: Count = 1  # K, experts per token
    n_inner: Count | None = None  # width of one expert; None: that of the dense layer
    every: Count = 1  # of every so many blocks the last has experts (Qwen2-MoE)
    first_dense: Whole = 0  # the first blocks stay dense
    n_shared: Whole = 0  # experts that every token passes through, beside the chosen ones
    shared_gate: bool = False  # weigh the shared experts by a sigmoid of the token (Qwen2-MoE)
    scores: Literal["softmax", "sigmoid"] = "softmax"  # from the router's logits
    norm_topk_prob: bool = False  # divide the K weights by their sum
    routed_scaling_factor: Positive = 1.0  # multiplies the weights (DeepSeek-V3)
    straight_through: bool = False  # divide by the sum, past which gradients go (for upcycling)
    top_p: Mass | None = None  # as many experts as reach this probability, at most top_k
    n_groups: Count = 1  # experts in groups, of which a token may use top_groups (DeepSeek-V3)
    top_groups: Count | None = None  # None: all
    noisy: bool = False  # learned noise on the router's logits (notebook 04; Shazeer et al. 2017)
    jitter: Rate = 0.0  # the router's input times uniform(1 - jitter, 1 + jitter)
    expert_dropout: Rate = 0.0  # dropout inside the experts
    capacity_factor: Positive | None = None  # tokens an expert takes, over K T / E; None: all
    balance: Literal["loss", "bias", "none"] = "bias"  # what keeps the load even
    bias_rate: Weight = 1e-3  # step of the biases, under balance="bias" (Wang et al. 2024)
    balance_weight: Weight = 0.01  # of the Switch balance loss, under balance="loss"
    z_weight: Weight = 0.0  # of the router z-loss (Zoph et al. 2022)
    cv_weight: Weight = 0.0  # of the importances' squared variation (notebook 04; Shazeer)
    dispatch: Literal["auto", "loop", "split", "grouped_mm"] = "auto"  # same result, other speed
    forced_balance: bool = False  # experts take turns, whatever the scores: for `benchmark moe`

    def __post_init__(self):
        check_all(self)
        E, K, groups = self.n_experts, self.top_k, self.n_groups
        check(K <= E, f"top_k={K} is more than n_experts={E}; a token can use each expert once")
        check(
            not (self.norm_topk_prob and K == 1),
            "norm_topk_prob with top_k=1 divides the weight by itself: it is always 1, and the "
            "router gets no gradient from the language-model loss; leave it off, or take top_k=2",
        )
        check(
            not (self.straight_through and self.norm_topk_prob),
            "straight_through and norm_topk_prob both divide the weights by their sum, with and "
            "without a gradient through the single weight; take one of them",
        )
        check(
            self.top_p is None or self.scores == "softmax",
            f"top_p={self.top_p} adds up probabilities: it needs scores='softmax'",
        )
        check(E % groups == 0, f"n_experts={E} is not divisible by n_groups={groups}")
        reach = (self.top_groups or groups) * (E // groups)
        check(
            (self.top_groups or groups) <= groups and reach >= K,
            f"top_groups={self.top_groups} of n_groups={groups} hold {reach} of the {E} experts, "
            f"and top_k={K}; top_groups must be at most n_groups, and leave top_k experts",
        )
        check(
            not (self.shared_gate and not self.n_shared),
            "shared_gate weighs the shared experts, but n_shared=0; say n_shared=1 or more",
        )


@dataclass(frozen=True)
class ModelConfig:
    """Shape of a `TinyGPT`. The defaults with `n_embd=768, n_head=12, n_layer=12` are GPT-2's."""

    vocab_size: Count = 65  # V, symbols in the vocabulary
    block_size: Count = 32  # T, the longest context
    n_layer: Count = 2  # blocks
    n_head: Count = 4  # H, attention heads per block
    n_embd: Count = 64  # C, channels
    n_inner: Count | None = None  # feed-forward width; None: 4 C, or the same size for swiglu
    n_kv_head: Count | None = None  # G, heads of keys and values, for H / G queries each; None: H
    head_dim: Count | None = None  # D, channels of a head; None: C / H (Qwen3 has others)
    dropout: Rate = 0.0  # in training, of what is embedded and of what each layer adds to it
    norm: Literal["layernorm", "rmsnorm"] = "layernorm"  # before each layer, and at the end
    norm_eps: Positive = 1e-5  # added to the variance before the square root
    position: Literal["learned", "rope"] = "learned"  # rope: rotary
    rope_theta: Positive = 10_000.0  # base of the rotary frequencies
    mlp: Literal["gelu", "swiglu", "relu2"] = "gelu"  # the feed-forward layer; relu2: squared ReLU
    qk_norm: bool = False  # RMSNorm of queries and keys, per head
    tie_embeddings: bool = True  # the head shares the token embedding's matrix
    attn_bias: bool = True  # biases in the attention's projections
    qkv_bias: bool | None = None  # of queries, keys and values; None: as attn_bias (Qwen2: alone)
    mlp_bias: bool = True  # biases in the feed-forward layers
    zero_init: bool = False  # start each block as the identity: output projections at zero
    bigrams: Whole = 0  # vectors for pairs of a token and the one before it; 0: none
    token_shift: bool = False  # feed-forward layers also read the position before
    moe: MoEConfig | None = None  # experts instead of feed-forward layers; None: dense

    def __post_init__(self):
        check_all(self)
        check(
            self.head_dim is not None or self.n_embd % self.n_head == 0,
            f"n_embd={self.n_embd} is not divisible by n_head={self.n_head}; each head takes "
            f"n_embd / n_head channels, unless head_dim says how many",
        )
        check(
            self.n_head % self.kv_heads == 0,
            f"n_head={self.n_head} is not divisible by n_kv_head={self.n_kv_head}; as many query "
            f"heads read each head of keys and values",
        )
        size = "n_embd / n_head" if self.head_dim is None else "head_dim"
        check(
            self.position == "learned" or self.head_size % 2 == 0,
            f"rotary positions turn pairs of channels, but {size} = {self.head_size} is odd; take "
            f"an even head_dim, or position='learned'",
        )
        check(
            self.moe is None or any(map(self.is_moe, range(self.n_layer))),
            f"no block would have experts: n_layer={self.n_layer}, and {self.moe}",
        )

    def is_moe(self, layer: int) -> bool:
        """Whether a block, counted from 0, has experts: the last of every `moe.every`."""
        if self.moe is None or layer < self.moe.first_dense:
            return False
        return (layer - self.moe.first_dense + 1) % self.moe.every == 0

    @property
    def head_size(self) -> int:
        """D, the channels of one head."""
        return self.head_dim or self.n_embd // self.n_head

    @property
    def kv_heads(self) -> int:
        """G, the heads of keys and values."""
        return self.n_kv_head or self.n_head

    @property
    def inner_size(self) -> int:
        """Feed-forward width. SwiGLU has three matrices for two, so 2/3 of 4 C, in eights."""
        if self.n_inner is not None:
            return self.n_inner
        return 8 * max(1, round(self.n_embd / 3)) if self.mlp == "swiglu" else 4 * self.n_embd
