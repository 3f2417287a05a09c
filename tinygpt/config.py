"""Settings as frozen dataclasses that refuse what cannot work, and the named presets."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar

from .errors import ConfigError

Config = TypeVar("Config")


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def _whole(config: Any, limit: int, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        _check(type(value) is int, f"{name}={value!r} must be a whole number")
        _check(value >= limit, f"{name}={value} must be at least {limit}")


def _one_of(config: Any, **allowed: tuple[str, ...]) -> None:
    for name, values in allowed.items():
        value = getattr(config, name)
        _check(value in values, f"{name}={value!r} must be one of {', '.join(values)}")


@dataclass(frozen=True)
class MoEConfig:
    """A Mixture of Experts in place of the feed-forward layer; see `tinygpt.moe`.

    The defaults: one expert per token, weighted by its probability, no token dropped, the load
    kept even by biases. Switch has `balance="loss", capacity_factor=1.25`; Mixtral `n_experts=8,
    top_k=2, norm_topk_prob=True, balance="loss"`; DeepSeek-V3 routes with `scores="sigmoid",
    n_shared=1`. Noise, jitter, dropout and capacity act in training only.
    """

    n_experts: int = 4  # E
    top_k: int = 1  # K, experts per token
    n_inner: int | None = None  # width of one expert; None: that of the dense layer
    every: int = 1  # of every so many blocks the last has experts
    first_dense: int = 0  # the first blocks stay dense
    n_shared: int = 0  # experts that every token passes through, beside the chosen ones
    shared_gate: bool = False  # weigh the shared experts by a sigmoid of the token (Qwen2-MoE)
    scores: Literal["softmax", "sigmoid"] = "softmax"  # from the router's logits
    norm_topk_prob: bool = False  # divide the K weights by their sum
    routed_scaling_factor: float = 1.0  # multiplies the weights (DeepSeek-V3)
    straight_through: bool = False  # k = 1: weights of value one that keep their gradient
    top_p: float | None = None  # as many experts as reach this probability, at most top_k
    n_groups: int = 1  # experts in groups, of which a token may use top_groups
    top_groups: int | None = None  # None: all
    router_hidden: int | None = None  # hidden width of a router of two layers; None: one layer
    noisy: bool = False  # learned noise on the router's logits (Shazeer et al. 2017, eq. 4)
    jitter: float = 0.0  # the router's input times uniform(1 - jitter, 1 + jitter)
    expert_dropout: float = 0.0  # dropout inside the experts
    capacity_factor: float | None = None  # tokens an expert takes, over K T / E; None: all
    balance: Literal["bias", "loss", "none"] = "bias"  # what keeps the load even
    bias_rate: float = 1e-3  # step of the biases, under balance="bias" (Wang et al. 2024)
    balance_weight: float = 0.01  # of the Switch balance loss, under balance="loss"
    balance_level: Literal["batch", "sequence"] = "batch"  # the tokens over which it is even
    z_weight: float = 0.0  # of the router z-loss (Zoph et al. 2022)
    cv_weight: float = 0.0  # of the squared variation of importance (Shazeer et al. 2017)
    dispatch: Literal["auto", "loop", "split", "grouped_mm"] = "auto"  # same result, other speed
    forced_balance: bool = False  # experts take turns, whatever the scores: for timing only
    expert_choice: bool = False  # experts choose tokens: sees the future; balance is not needed
    allow_leak: bool = False  # confirms that expert_choice may see the future

    def __post_init__(self):
        _whole(self, 1, "n_experts", "top_k", "every", "n_groups")
        _whole(self, 0, "first_dense", "n_shared")
        for name in ("n_inner", "router_hidden", "top_groups"):
            if getattr(self, name) is not None:
                _whole(self, 1, name)
        _one_of(self, scores=("softmax", "sigmoid"), balance=("loss", "bias", "none"))
        _one_of(self, balance_level=("batch", "sequence"))
        _one_of(self, dispatch=("auto", "loop", "split", "grouped_mm"))
        for name in ("balance_weight", "bias_rate", "z_weight", "cv_weight"):
            _check(getattr(self, name) >= 0, f"{name}={getattr(self, name)} must be at least 0")
        for name in ("jitter", "expert_dropout"):
            value = getattr(self, name)
            _check(0 <= value < 1, f"{name}={value} must be at least 0 and below 1")
        factor, capacity = self.routed_scaling_factor, self.capacity_factor
        _check(factor > 0, f"routed_scaling_factor={factor} must be above 0")
        _check(
            capacity is None or capacity > 0,
            f"capacity_factor={capacity} must be above 0, or None for no limit",
        )
        self._check_choice()

    @property
    def has_free_places(self) -> bool:
        """Whether a token may have fewer than `top_k` experts before any is dropped."""
        return self.top_p is not None or self.expert_choice

    def _check_choice(self) -> None:
        E, K, groups = self.n_experts, self.top_k, self.n_groups
        _check(K <= E, f"top_k={K} is more than n_experts={E}; a token can use each expert once")
        _check(
            not (self.norm_topk_prob and K == 1),
            "norm_topk_prob with top_k=1 divides the weight by itself: it is always 1, and the "
            "router gets no gradient from the language-model loss; leave it off, or take top_k=2",
        )
        _check(
            not self.straight_through or K == 1,
            f"straight_through is for top_k=1; with top_k={K} use norm_topk_prob=True",
        )
        _check(
            self.top_p is None or (0 < self.top_p <= 1 and self.scores == "softmax"),
            f"top_p={self.top_p} must be above 0 and at most 1, and needs scores='softmax'",
        )
        _check(E % groups == 0, f"n_experts={E} is not divisible by n_groups={groups}")
        reach = (self.top_groups or groups) * (E // groups)
        _check(
            (self.top_groups or groups) <= groups and reach >= K,
            f"top_groups={self.top_groups} of n_groups={groups} hold {reach} of the {E} experts, "
            f"and top_k={K}; top_groups must be at most n_groups, and leave top_k experts",
        )
        _check(
            not self.expert_choice or self.allow_leak,
            "expert_choice lets experts compare a token with later ones, so a causal language "
            "model would see the future: its loss means nothing and it cannot generate. To look "
            "at the leak, say allow_leak=True",
        )
        _check(
            not (self.expert_choice and (self.top_p or self.top_groups or self.forced_balance)),
            "expert_choice lets the experts choose, so top_p, top_groups and forced_balance mean "
            "nothing; leave them away",
        )
        _check(
            not (self.shared_gate and not self.n_shared),
            "shared_gate weighs the shared experts, but n_shared=0; say n_shared=1 or more",
        )


@dataclass(frozen=True)
class ModelConfig:
    """Shape of a `TinyGPT`. The defaults with `n_embd=768, n_head=12, n_layer=12` are GPT-2's."""

    vocab_size: int = 65  # V, symbols in the vocabulary
    block_size: int = 32  # T, the longest context
    n_layer: int = 2  # blocks
    n_head: int = 4  # H, attention heads per block
    n_embd: int = 64  # C, channels
    n_inner: int | None = None  # feed-forward width; None: 4 C, or the same size for swiglu
    dropout: float = 0.0  # probability that an activation is dropped in training
    norm: Literal["layernorm", "rmsnorm"] = "layernorm"
    norm_eps: float = 1e-5  # added to the variance before the square root
    position: Literal["learned", "rope"] = "learned"
    rope_theta: float = 10_000.0  # base of the rotary frequencies
    mlp: Literal["gelu", "swiglu", "relu2"] = "gelu"
    qk_norm: bool = False  # RMSNorm of queries and keys, per head
    tie_embeddings: bool = True  # the head shares the token embedding's matrix
    attn_bias: bool = True  # biases in the attention's projections
    mlp_bias: bool = True  # biases in the feed-forward layers
    head_bias: bool = False  # bias of the output head
    zero_init: bool = False  # start each block as the identity: output projections at zero
    moe: MoEConfig | None = None  # experts instead of feed-forward layers; None: dense

    def __post_init__(self):
        _whole(self, 1, "vocab_size", "block_size", "n_layer", "n_head", "n_embd")
        _one_of(self, norm=("layernorm", "rmsnorm"), position=("learned", "rope"))
        _one_of(self, mlp=("gelu", "swiglu", "relu2"))
        _check(0 <= self.dropout < 1, f"dropout={self.dropout} must be at least 0 and below 1")
        _check(self.norm_eps > 0, f"norm_eps={self.norm_eps} must be above 0")
        _check(self.rope_theta > 0, f"rope_theta={self.rope_theta} must be above 0")
        if self.n_inner is not None:
            _whole(self, 1, "n_inner")
        _check(
            self.n_embd % self.n_head == 0,
            f"n_embd={self.n_embd} is not divisible by n_head={self.n_head}; each head takes "
            f"n_embd / n_head channels",
        )
        _check(
            self.position == "learned" or self.head_size % 2 == 0,
            f"rotary positions turn pairs of channels, but the head size n_embd / n_head = "
            f"{self.head_size} is odd; change n_embd or n_head, or use position='learned'",
        )
        _check(
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
        return self.n_embd // self.n_head

    @property
    def inner_size(self) -> int:
        """Feed-forward width. SwiGLU has three matrices for two, so 2/3 of 4 C, in eights."""
        if self.n_inner is not None:
            return self.n_inner
        return 8 * round(self.n_embd / 3) if self.mlp == "swiglu" else 4 * self.n_embd


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained; see `Trainer`. Steps are optimizer updates."""

    max_steps: int = 2000  # updates in all
    epochs: float | None = None  # if given, counts instead of max_steps
    batch_size: int = 32  # B, windows per forward pass
    grad_accum_steps: int = 1  # forward passes per update
    optimizer: Literal["adamw", "muon"] = "adamw"
    lr: float = 1e-3  # peak learning rate of AdamW
    muon_lr: float = 0.02  # peak learning rate of Muon, for the matrices inside the blocks
    weight_decay: float = 0.1  # of matrices and embeddings; never of norms and biases
    beta1: float = 0.9  # AdamW's averages
    beta2: float = 0.99
    grad_clip: float | None = 1.0  # largest gradient norm; None: no clipping
    schedule: Literal["cosine", "constant", "wsd"] = "cosine"  # wsd: warm-up, stable, decay
    warmup_steps: int = 100  # updates over which the learning rate rises from 0
    min_lr_ratio: float = 0.1  # where the schedule ends, as a share of the peak
    decay_fraction: float = 0.6  # of all updates, the last part in which wsd falls
    eval_interval: int = 250  # updates between evaluations (and checkpoints)
    max_eval_tokens: int | None = None  # None: the whole validation split
    patience: int | None = None  # stop after so many evaluations without a better one
    keep_last: int = 2  # checkpoints kept, beside the best
    sample_tokens: int = 0  # characters written at each evaluation; 0: none
    sample_prompt: str = "\n"  # what those samples start from
    seed: int = 1337  # of initial batches, dropout and samples
    device: str = "auto"  # CUDA when present, else CPU
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # auto: bf16 on CUDA, else fp32
    compile: bool = False  # torch.compile: slow start, faster steps
    tensorboard: bool = False  # also log to TensorBoard, if installed
    wandb: str | None = None  # also log to this Weights & Biases project, if installed

    def __post_init__(self):
        _whole(self, 1, "max_steps", "batch_size", "grad_accum_steps", "eval_interval")
        _whole(self, 1, "keep_last")
        _whole(self, 0, "warmup_steps", "sample_tokens")
        _check(self.weight_decay >= 0, f"weight_decay={self.weight_decay} must be at least 0")
        _one_of(self, optimizer=("adamw", "muon"), schedule=("cosine", "constant", "wsd"))
        _one_of(self, precision=("auto", "fp32", "bf16"))
        _check(self.lr > 0, f"lr={self.lr} must be above 0")
        _check(self.muon_lr > 0, f"muon_lr={self.muon_lr} must be above 0")
        for name in ("beta1", "beta2"):
            value = getattr(self, name)
            _check(0 <= value < 1, f"{name}={value} must be at least 0 and below 1")
        for name in ("min_lr_ratio", "decay_fraction"):
            value = getattr(self, name)
            _check(0 <= value <= 1, f"{name}={value} must be between 0 and 1")
        for name in ("epochs", "grad_clip", "patience", "max_eval_tokens"):
            value = getattr(self, name)
            _check(value is None or value > 0, f"{name}={value} must be above 0, or None")
        _check(bool(self.sample_prompt), "sample_prompt is empty; a sample needs one character")


@dataclass(frozen=True)
class DecodingConfig:
    """How the next token is chosen. The defaults change nothing: plain sampling.

    The steps act in this order: repetition, frequency and presence, n-grams, bans; temperature;
    top-k, top-p, min-p, typical, epsilon, eta. See the functions of `tinygpt.decoding`.
    """

    temperature: float = 1.0  # 0: the most probable token
    top_k: int | None = None  # keep the k most probable; 0 or None: off
    top_p: float = 1.0  # keep the fewest that together have this probability; 1: off
    min_p: float = 0.0  # drop what has less than this share of the largest probability; 0: off
    typical: float = 1.0  # keep those closest to the expected surprise, of this mass; 1: off
    epsilon: float = 0.0  # drop probabilities below this; 0: off
    eta: float = 0.0  # as epsilon, but lower where the distribution is flat; 0: off
    repetition_penalty: float = 1.0  # above 1: less of what was there before; 1: off
    repetition_window: int | None = None  # of the last so many tokens only; None: of all
    frequency: float = 0.0  # subtracted from a logit per earlier use in what was generated
    presence: float = 0.0  # subtracted once, if it was used at all
    no_repeat_ngram: int = 0  # never the same n tokens in a row twice; 0: off
    banned: str = ""  # symbols that are never written
    allowed: str | None = None  # the only symbols that may be written; None: all
    stop: tuple[str, ...] = ()  # a row ends before the first of these texts
    past_block: Literal["crop", "roll", "stop"] = "crop"  # what happens beyond block_size

    def __post_init__(self):
        for name in DECODING_LIMITS:
            check_decoding(name, getattr(self, name))
        _one_of(self, past_block=("crop", "roll", "stop"))
        _check(not isinstance(self.stop, str), "stop takes several texts: stop=('\\n\\n',)")
        _check(all(self.stop), "a stop sequence is empty; it would end every text at once")


# name: (test, what a valid value is)
DECODING_LIMITS = {
    "temperature": (lambda v: v >= 0, "at least 0 (0: the most probable, 1: unchanged)"),
    "top_k": (lambda v: v is None or v >= 0, "at least 0 (0 or None: off)"),
    "top_p": (lambda v: 0 < v <= 1, "above 0 and at most 1 (1: off)"),
    "min_p": (lambda v: 0 <= v <= 1, "between 0 and 1 (0: off)"),
    "typical": (lambda v: 0 < v <= 1, "above 0 and at most 1 (1: off)"),
    "epsilon": (lambda v: 0 <= v < 1, "at least 0 and below 1 (0: off)"),
    "eta": (lambda v: 0 <= v < 1, "at least 0 and below 1 (0: off)"),
    "repetition_penalty": (lambda v: v > 0, "above 0 (1: off, above 1: fewer repetitions)"),
    "repetition_window": (lambda v: v is None or v > 0, "above 0, or None for all tokens"),
    "frequency": (lambda v: v == v, "a number (0: off)"),
    "presence": (lambda v: v == v, "a number (0: off)"),
    "no_repeat_ngram": (lambda v: v >= 0, "at least 0 (0: off)"),
}


def check_decoding(name: str, value: Any) -> None:
    """Raise `ConfigError` for a decoding parameter outside its range."""
    test, valid = DECODING_LIMITS[name]
    _check(test(value), f"{name}={value} must be {valid}")


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as JSON-ready values."""
    return asdict(config)


def from_dict(kind: type[Config], values: dict[str, Any]) -> Config:
    """The configuration that `to_dict` wrote; unknown names raise `ConfigError`."""
    unknown = sorted(set(values) - set(kind.__dataclass_fields__))
    _check(
        not unknown,
        f"{kind.__name__} has no setting {', '.join(unknown)}; was it written by a later version?",
    )
    values = dict(values)
    if isinstance(values.get("moe"), dict):
        values["moe"] = from_dict(MoEConfig, values["moe"])
    return kind(**values)
