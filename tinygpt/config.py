"""Settings as frozen dataclasses that refuse what cannot work.

The type hints say what each value must be, and are checked; what ties several settings together
stands in `__post_init__`.
"""

from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from typing import Annotated, Any, Literal, TypeVar

from .checks import Limit, check, check_all, check_value, rules

__all__ = [
    "DecodingConfig",
    "MoEConfig",
    "ModelConfig",
    "TrainConfig",
    "check_value",
    "from_dict",
    "to_dict",
    "unusual",
]

Config = TypeVar("Config")

Count = Annotated[int, Limit(at_least=1)]
Whole = Annotated[int, Limit(at_least=0)]
Positive = Annotated[float, Limit(above=0)]
Weight = Annotated[float, Limit(at_least=0)]
Rate = Annotated[float, Limit(at_least=0, below=1)]  # of what happens by chance, or of forgetting
Share = Annotated[float, Limit(at_least=0, at_most=1)]
Mass = Annotated[float, Limit(above=0, at_most=1)]  # of probability
Seed = Annotated[int, Limit(at_least=-(2**63), at_most=2**63 - 1)]  # what torch's generators take


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
        check(
            self.position == "learned" or self.head_size % 2 == 0,
            f"rotary positions turn pairs of channels, but the head size n_embd / n_head = "
            f"{self.head_size} is odd; change n_embd, n_head or head_dim, or take "
            f"position='learned'",
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
        return 8 * round(self.n_embd / 3) if self.mlp == "swiglu" else 4 * self.n_embd


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained; see `Trainer`. Steps are optimizer updates."""

    max_steps: Count = 2000  # updates in all
    epochs: Positive | None = None  # if given, counts instead of max_steps
    batch_size: Count = 32  # B, windows per forward pass
    grad_accum_steps: Count = 1  # forward passes per update
    optimizer: Literal["adamw", "muon"] = "adamw"  # muon: for matrices inside the blocks
    lr: Positive = 1e-3  # peak learning rate of AdamW
    muon_lr: Positive = 0.02  # peak learning rate of Muon, for the matrices inside the blocks
    muon_momentum: Rate = 0.95  # share of the gradients before
    weight_decay: Weight = 0.1  # of matrices and embeddings; never of norms and biases
    beta1: Rate = 0.9  # of AdamW's average of gradients
    beta2: Rate = 0.99  # of that of their squares
    grad_clip: Positive | None = 1.0  # largest gradient norm; None: no clipping
    schedule: Literal["cosine", "constant", "wsd"] = "cosine"  # wsd: warm-up, stable, decay
    warmup_steps: Whole = 100  # updates over which the learning rate rises from 0
    min_lr_ratio: Share = 0.1  # where the schedule ends, as a share of the peak
    decay_fraction: Share = 0.6  # of all updates, the last part in which wsd falls
    eval_interval: Count = 500  # updates between evaluations (and checkpoints)
    max_eval_tokens: Count | None = 1 << 13  # of each split, in an evaluation; None: of all
    patience: Count | None = None  # stop after so many evaluations without a better one
    keep_last: Count = 2  # checkpoints kept, beside the best
    sample_tokens: Whole = 0  # tokens written at each evaluation; 0: none
    sample_prompt: str = "\n"  # what those samples start from
    seed: Seed = 1337  # of initial batches, dropout and samples
    device: str = "auto"  # CUDA when present, else CPU
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # auto: bf16 on CUDA, else fp32
    compile: bool = False  # torch.compile: slow start, faster steps
    strategy: Literal["ddp", "fsdp"] = "ddp"  # under torchrun: whole copies, or shards (FSDP2)
    activation_checkpointing: bool = False  # compute blocks twice, to keep less in memory
    log: Literal["tensorboard", "wandb", "trackio"] | None = None  # also log there, if installed

    def __post_init__(self):
        check_all(self)
        check(bool(self.sample_prompt), "sample_prompt is empty; a sample needs one character")


# What a value of the decoding has to be, and how it is switched off. The last number of a range is
# the widest for which float32 says the right thing: what comes of logits up to 10^4 is finite, and
# after 10^4 uses of a token its logit is still exact to 1/16.
Temperature = Annotated[
    float, Limit(at_least=0, at_most=1e30, way_out="0: the most probable, 1: unchanged")
]
TopK = Annotated[int, Limit(at_least=0, way_out="0 or None: off")]
Kept = Annotated[float, Limit(above=0, at_most=1, way_out="1: off")]
Floor = Annotated[float, Limit(at_least=0, at_most=1, way_out="0: off")]
Cutoff = Annotated[float, Limit(at_least=0, below=1, way_out="0: off")]
Penalty = Annotated[
    float, Limit(at_least=1e-30, at_most=1e30, way_out="1: off, above 1: fewer repetitions")
]
Window = Annotated[int, Limit(at_least=1, way_out="None: all tokens")]
Amount = Annotated[float, Limit(at_least=-100, at_most=100, way_out="0: off")]
Length = Annotated[int, Limit(at_least=0, way_out="0: off")]
Texts = Annotated[tuple[str, ...], Limit(way_out="stop takes several texts: stop=('\\n\\n',)")]


@dataclass(frozen=True)
class DecodingConfig:
    """How the next token is chosen. The defaults change nothing: plain sampling.

    The steps act in this order: repetition, frequency and presence, n-grams, bans; temperature;
    top-k, top-p, min-p, typical, epsilon, eta. See the functions of `tinygpt.decoding`.
    """

    temperature: Temperature = 1.0  # 0: the most probable token
    top_k: TopK | None = None  # keep the k most probable; 0 or None: off
    top_p: Kept = 1.0  # keep the fewest that together have this probability; 1: off
    min_p: Floor = 0.0  # drop what has less than this share of the largest probability; 0: off
    typical: Kept = 1.0  # keep those closest to the expected surprise, of this mass; 1: off
    epsilon: Cutoff = 0.0  # drop probabilities below this; 0: off
    eta: Cutoff = 0.0  # as epsilon, but lower where the distribution is flat; 0: off
    repetition_penalty: Penalty = 1.0  # above 1: less of what was there before; 1: off
    repetition_window: Window | None = None  # of the last so many tokens only; None: of all
    frequency: Amount = 0.0  # subtracted from a logit per earlier use in what was generated
    presence: Amount = 0.0  # subtracted once, if it was used at all
    no_repeat_ngram: Length = 0  # never the same n tokens in a row twice; 0: off
    banned: str = ""  # symbols that are never written (the playground)
    allowed: str | None = None  # the only symbols that may be written; None: all
    stop: Texts = ()  # a row ends before the first of these texts
    past_block: Literal["crop", "roll", "stop"] = "crop"  # what happens beyond block_size

    def __post_init__(self):
        if isinstance(self.stop, list):
            object.__setattr__(self, "stop", tuple(self.stop))
        check_all(self)
        check(all(self.stop), "a stop sequence is empty; it would end every text at once")


def unusual(settings: Any) -> dict[str, Any]:
    """The settings of a dataclass that have not their default value, by name: what tells recipes
    apart, also when a setting is added later, and off."""
    found = {}
    for field in fields(settings):
        value = getattr(settings, field.name)
        if field.default is MISSING or value != field.default:
            found[field.name] = unusual(value) if is_dataclass(value) else value
    return found


# Settings that are gone, by the value with which they did nothing: older runs hold them.
REMOVED: dict[str, dict[str, Any]] = {
    "ModelConfig": {"head_bias": False},
    "MoEConfig": {
        "expert_choice": False,
        "allow_leak": False,
        "balance_level": "batch",
        "router_hidden": None,
    },
}


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as JSON-ready values."""
    return asdict(config)


def from_dict(kind: type[Config], values: dict[str, Any]) -> Config:
    """The configuration that `to_dict` wrote, by this version or an older one.

    Unknown names raise `ConfigError`, as do settings that are gone, unless they were off.
    """
    check(isinstance(values, dict), f"{kind.__name__} is read from a dict, and this is none")
    known = rules(kind)
    values = _without_removed(kind, _with_log(values) if kind is TrainConfig else values)
    unknown = sorted(values.keys() - known.keys())
    check(
        not unknown,
        f"{kind.__name__} has no setting {', '.join(unknown)}; was it written by a later version?",
    )
    return kind(**{name: _from_json(known[name].kind, value) for name, value in values.items()})


def _with_log(values: dict[str, Any]) -> dict[str, Any]:
    """Of training settings that named each logger by a setting of its own: those with `log`."""
    older = {name: values[name] for name in ("tensorboard", "wandb") if name in values}
    asked = [name for name, value in older.items() if value]
    values = {name: value for name, value in values.items() if name not in older}
    return {"log": asked[0], **values} if asked else values


def _without_removed(kind: type, values: dict[str, Any]) -> dict[str, Any]:
    gone = REMOVED.get(kind.__name__, {})
    for name, off in gone.items():
        value = values.get(name, off)
        check(
            value == off,
            f"{name}={value!r} is no setting of {kind.__name__} any more; use the version of "
            f"tinygpt that wrote it, or train anew without it",
        )
    return {name: value for name, value in values.items() if name not in gone}


def _from_json(kind: type, value: Any) -> Any:
    """What JSON has no type for: configurations and tuples."""
    if is_dataclass(kind) and isinstance(value, dict):
        return from_dict(kind, value)
    return tuple(value) if kind is tuple and isinstance(value, list) else value
