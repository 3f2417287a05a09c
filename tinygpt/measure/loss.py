"""Cross-entropy over a split, in windows that do not overlap."""

from collections.abc import Iterator

import torch
from torch import Tensor

from ..corpora import take
from ..errors import ConfigError
from ..model import TinyGPT, evaluating
from ..ranks import ALONE, Ranks
from ..runtime import autocast

# tokens of one forward pass in an evaluation; on a CPU fewer, so that activations fit its cache
PASS, CPU_PASS = 1 << 14, 1 << 11


@torch.inference_mode()
def evaluate(
    model: TinyGPT,
    tokens: Tensor,
    max_tokens: int | None = None,
    precision: str = "auto",
    ranks: Ranks = ALONE,
) -> float:
    """Mean cross-entropy in nats per token over a 1-D split, each token but the first once.

    The split is cut into windows of `block_size` = T that do not overlap (the last may be shorter),
    so the stride is T, too, and a prediction sees 1 to T tokens, (T + 1) / 2 in the mean: with more
    context, or windows that overlap (see `read`), the same model has a lower loss.
    With `max_tokens`, only so many tokens are predicted, in windows spread evenly over the split.
    Several processes share the windows, and all get the loss of all.
    """
    losses, counted = [], 0
    for x, y in split_batches(model, tokens, max_tokens):
        mine, count = _share(x, ranks)
        with evaluating(model), autocast(model.device, precision):
            losses.append(model(x[mine], y[mine]).lm_loss * count)
        counted += x.numel()
    return ranks.total(torch.stack(losses).cpu().double().sum()).item() / counted


def _share(x: Tensor, ranks: Ranks) -> tuple[slice, int]:
    """The rows of a batch that a process reads, and how many of their tokens count.

    All make equally many forward passes, in which they may need each other; who has no row left
    reads the first, which counts for another.
    """
    mine = slice(ranks.rank, None, ranks.world)
    return (mine, x[mine].numel()) if len(x) > ranks.rank else (slice(1), 0)


def count_predictions(model: TinyGPT, tokens: Tensor, max_tokens: int | None = None) -> int:
    """On how many tokens of a split `evaluate` measures the loss."""
    return sum(starts.numel() * length for starts, length in _windows(model, tokens, max_tokens))


def split_batches(
    model: TinyGPT, tokens: Tensor, max_tokens: int | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """The inputs and targets `(B, T)` by which a split is evaluated, on the model's device."""
    for starts, length in _windows(model, tokens, max_tokens):
        index = starts.view(-1, 1) + torch.arange(length + 1)
        window = take(tokens, index.to(tokens.device)).to(model.device)
        yield window[:, :-1], window[:, 1:]


def positions_read(model: TinyGPT, n: int, max_tokens: int | None = None) -> Tensor:
    """Which of the n tokens of a split `split_batches` gives as inputs, in its order, `(N,)`."""
    batches = split_batches(model, torch.arange(n), max_tokens)
    return torch.cat([x.flatten() for x, _ in batches]).cpu()


def _windows(model: TinyGPT, tokens: Tensor, max_tokens: int | None) -> list[tuple[Tensor, int]]:
    """Batches of windows over a split: where they start, and how many tokens they predict."""
    T, n = model.config.block_size, len(tokens) - 1  # n predictions
    if n < 1:
        raise ConfigError(f"a loss needs at least 2 tokens, this split has {len(tokens)}")
    starts = torch.arange(0, n, T)
    if max_tokens is not None and max_tokens < n:
        count = min(max(1, max_tokens // T), max(1, n // T))
        starts = starts[torch.linspace(0, n // T - 1, count, dtype=torch.float64).clamp(0).long()]
    whole, rest = starts[starts + T <= n], starts[starts + T > n]
    rows = (CPU_PASS if model.device.type == "cpu" else PASS) // T
    batches = [(part, T) for part in whole.split(max(1, rows)) if len(part)]
    return batches + [(part, n - int(part)) for part in rest]  # a last, shorter window
