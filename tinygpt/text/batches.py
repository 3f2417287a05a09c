"""Windows of a text as inputs and targets: seeded, and the same on every device."""

import torch
from torch import Tensor

from ..errors import ConfigError


def get_batch(
    tokens: Tensor, batch_size: int, block_size: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Random windows: x `(B, T)` and y `(B, T)`, the same windows one token later.

    `generator` is on the CPU also when the tokens live on a GPU, so that the same seed gives the
    same batches everywhere; only the B start positions travel, without waiting for the device.
    """
    starts = torch.randint(len(tokens) - block_size, (batch_size, 1), generator=generator)
    if tokens.is_cuda:
        starts = starts.pin_memory().to(tokens.device, non_blocking=True)
    window = take(tokens, starts + torch.arange(block_size + 1, device=tokens.device))
    return window[:, :-1], window[:, 1:]


def take(tokens: Tensor, index: Tensor) -> Tensor:
    """`tokens[index]` as int64, also of 16-bit tokens, which CUDA can index only as signed."""
    if tokens.dtype == torch.uint16:
        return tokens.view(torch.int16)[index].long() & 0xFFFF
    return tokens[index].long()


def check_tokens(tokens: Tensor, block_size: int, vocab_size: int, split: str) -> None:
    """Raise `ConfigError` when a split is too short for one window or has ids >= vocab_size."""
    if len(tokens) <= block_size:
        raise ConfigError(
            f"the {split} split has {len(tokens)} tokens, but a window of block_size={block_size} "
            f"and its targets need {block_size + 1}; use a longer text or a smaller block_size"
        )
    largest = max(int(part.long().max()) for part in tokens.split(1 << 24))
    if largest >= vocab_size:
        raise ConfigError(
            f"the {split} split has token {largest}, but the model's vocab_size is {vocab_size} "
            f"(ids 0 to {vocab_size - 1}); use the corpus's own tokenizer.vocab_size"
        )
