"""How much memory a model needs: to be trained, and to write.

B batch, T time, C channels, H heads, G of keys and values, D head size, F feed-forward width,
E experts, K experts per token, V vocabulary
"""

from dataclasses import dataclass

from torch import nn

from ..config import ModelConfig, TrainConfig
from ..model import ExpertLinear, TinyGPT, expert_width

FULL, HALF = 4, 2  # bytes of a number in float32 and in bf16


@dataclass(frozen=True)
class Memory:
    """An estimate in bytes of the most that is needed at once, by what it holds.

    What a device's libraries take, and what its allocator keeps in store, comes on top.
    """

    weights: int
    gradients: int = 0  # beside the activations
    optimizer: int = 0
    activations: int = 0  # what is kept for the backward pass; logits; what is on its way
    cache: int = 0  # keys and values

    @property
    def total(self) -> int:
        return sum(vars(self).values())


def training_memory(model: TinyGPT, train: TrainConfig, bf16: bool = False) -> Memory:
    """What an update takes, from the shapes alone; `bf16` says that products are made in it.

    Counted is what torch keeps for the backward pass operation by operation (after Korthikanti et
    al. 2022, section 4.1), without `compile`, which keeps less. A CPU really took what is said here
    within 4 %: see tests/measure/test_memory.py.
    """
    numbers = sum(p.numel() for p in model.parameters())
    tokens = train.batch_size * model.config.block_size
    activations = tokens * _kept_per_token(model.config, HALF if bf16 else FULL)
    activations += tokens * _largest_gradients(model.config, bf16)
    if bf16:  # the weights' copies
        activations += HALF * sum(w.numel() for w in _matrices(model))
    gradients = FULL * numbers
    if train.grad_accum_steps == 1:  # they come as the activations go
        gradients = max(0, gradients - activations)
    averages = 2 * numbers
    if train.optimizer == "muon":  # keeps one for each of the blocks' matrices
        averages -= sum(w.numel() for w in _matrices(model.blocks))
    return Memory(FULL * numbers, gradients, FULL * averages, activations)


def inference_memory(model: TinyGPT, batch_size: int = 1, bf16: bool = False) -> Memory:
    """What writing takes after a prompt as long as the block; `bf16` says in which the weights are.

    Beside the weights within 25 % of what a CPU really took.
    """
    config, width = model.config, HALF if bf16 else FULL
    numbers = sum(p.numel() for p in model.parameters())
    tokens = batch_size * config.block_size
    kept = 2 * config.kv_heads * config.head_size + config.token_shift * config.n_embd
    passing = tokens * width * _widest(config) + batch_size * FULL * config.vocab_size
    return Memory(
        width * numbers, activations=passing, cache=width * tokens * config.n_layer * kept
    )


def _kept_per_token(config: ModelConfig, width: int) -> int:
    """Bytes that all blocks and the embedding keep; products have numbers of `width` bytes."""
    dropped = width * config.n_embd if config.dropout else 0  # a mask each time
    blocks = sum(
        _norm(config, width)
        + _attention(config, width)
        + _norm(config, width)
        + (FULL * config.n_embd if config.token_shift else 0)
        + (_experts if config.is_moe(layer) else _dense)(config, width)
        + 2 * dropped
        for layer in range(config.n_layer)
    )
    return dropped + blocks + _norm(config, width)


def _norm(config: ModelConfig, width: int) -> int:
    """Input and output; an RMSNorm on a CPU also keeps what it has divided."""
    inputs = 1 if config.norm == "layernorm" else 2
    return (FULL * inputs + width) * config.n_embd


def _attention(config: ModelConfig, width: int) -> int:
    """Queries, keys and values, as made, turned and normed; the result, and its softmax's sums."""
    H, G, D = config.n_head, config.kv_heads, config.head_size
    numbers = (H + 2 * G) * D + H * D
    if config.position == "rope":
        numbers += (H + G) * D
    normed = FULL * (H + G) * D + width * H * D if config.qk_norm else 0  # which moves the result
    return width * numbers + normed + FULL * H


def _dense(config: ModelConfig, width: int) -> int:
    return width * _inner(config) * config.inner_size


def _inner(config: ModelConfig) -> int:
    """Numbers kept for each of F: before the non-linearity and after it; four with a gate."""
    return 4 if config.mlp == "swiglu" else 2


def _experts(config: ModelConfig, width: int) -> int:
    """K rows in, out and back in their places, what each expert keeps, the router's scores."""
    moe, F, C = config.moe, expert_width(config), config.n_embd
    rows = moe.top_k * (3 * C + _inner(config) * F)
    shared = _inner(config) * moe.n_shared * F
    scores = FULL * (3 * moe.n_experts + 6 * moe.top_k)
    return width * (rows + shared) + scores + (FULL * C if width < FULL else 0)


def _largest_gradients(config: ModelConfig, bf16: bool) -> int:
    """Bytes per token of the logits and the most that is alive beside what is kept.

    At first the log-softmax and the gradients of both; where V is small the last block's, later.
    """
    gradients = FULL * 3 * config.vocab_size + (HALF if bf16 else 0) * config.vocab_size
    inside = (1 if config.mlp == "gelu" else 2) * _used_width(config)
    later = FULL * config.n_embd + (HALF if bf16 else FULL) * inside
    return FULL * config.vocab_size + max(gradients, later)


def _used_width(config: ModelConfig) -> int:
    """Feed-forward width that one token passes through."""
    moe = config.moe
    return config.inner_size if moe is None else moe.top_k * expert_width(config)


def _widest(config: ModelConfig) -> int:
    """Most numbers per token at once in a block that keeps nothing: beside x and its norm."""
    H, G, D = config.n_head, config.kv_heads, config.head_size
    copies = 2 * (config.position == "rope") + 2 * config.qk_norm
    attention = (H + 2 * G) * D + H * D + copies * (H + G) * D
    inner = {"gelu": 2, "relu2": 3, "swiglu": 4}[config.mlp] * _used_width(config)
    rows = 0 if config.moe is None else 2 * config.moe.top_k * config.n_embd
    return 2 * config.n_embd + max(attention, inner + rows)


def _matrices(module: nn.Module) -> list[nn.Parameter]:
    """Weights of the linear layers in a module, but for routers and gates."""
    return [
        part.weight
        for name, part in module.named_modules()
        if isinstance(part, nn.Linear | ExpertLinear) and "router" not in name
        if "gate" not in name
    ]
