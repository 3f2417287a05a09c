"""Cross-entropy over a split, and the surprise of each token of a text."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import ConfigError
from ..model import TinyGPT, evaluating
from ..runtime import autocast
from ..text import take

EVAL_TOKENS = 1 << 14  # tokens of one forward pass in an evaluation


@torch.inference_mode()
def evaluate(
    model: TinyGPT, tokens: Tensor, max_tokens: int | None = None, precision: str = "auto"
) -> float:
    """Mean cross-entropy in nats per token over a 1-D split, each token but the first once.

    The split is cut into windows of `block_size` that do not overlap (the last may be shorter).
    With `max_tokens`, only so many tokens are predicted, in windows spread evenly over the split.
    """
    batches = _windows(model, tokens, max_tokens)
    losses = [_loss_sum(model, tokens, part, length, precision) for part, length in batches]
    counted = sum(part.numel() * length for part, length in batches)
    return torch.stack(losses).cpu().double().sum().item() / counted


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
    batches = [(part, T) for part in whole.split(max(1, EVAL_TOKENS // T)) if len(part)]
    return batches + [(part, n - int(part)) for part in rest]  # a last, shorter window


def _read(model: TinyGPT, tokens: Tensor, starts: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """The inputs and targets `(B, length)` of windows."""
    index = starts.view(-1, 1) + torch.arange(length + 1)
    window = take(tokens, index.to(tokens.device)).to(model.device)
    return window[:, :-1], window[:, 1:]


def _loss_sum(
    model: TinyGPT, tokens: Tensor, starts: Tensor, length: int, precision: str
) -> Tensor:
    """Summed cross-entropy over windows of `length` predictions."""
    x, y = _read(model, tokens, starts, length)
    with evaluating(model), autocast(model.device, precision):
        return model(x, y).lm_loss * x.numel()


@torch.inference_mode()
def surprisal(model: TinyGPT, tokens: Tensor) -> Tensor:
    """-ln p of each token `(n,)` given those before it, in nats; the first is NaN.

    Windows overlap by half: beyond the first, each token has at least half a block before it.
    """
    T, nats = model.config.block_size, torch.full((len(tokens),), torch.nan)
    idx = tokens.to(model.device).long()[None]
    for start in range(0, max(1, len(tokens) - 1), max(1, T // 2)):
        x, y = idx[:, start : start + T], idx[:, start + 1 : start + T + 1]
        with evaluating(model):
            logits = model(x[:, : y.shape[1]]).logits[0]
        window = F.cross_entropy(logits, y[0], reduction="none").cpu()
        fresh = T // 2 if start else 0  # the rest was measured with more context before
        nats[start + 1 + fresh : start + 1 + len(window)] = window[fresh:]
    return nats
