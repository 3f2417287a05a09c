"""Windows of a text as inputs and targets: seeded, resumable, and the same on every device."""

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
    return _windows(tokens, _starts(tokens, batch_size, block_size, generator), block_size)


class Batches:
    """Random windows of a split without end, from a seed, with a state that can be saved.

    Of `world` processes each makes such an object with its own `rank`. All of them draw the starts
    of the whole batch, and each reads its share, every `world`-th; so together they see the windows
    that one process would see, in the same updates. Shares differ by one row where `world` does not
    divide B, and may be empty.
    """

    def __init__(
        self,
        tokens: Tensor,
        batch_size: int,
        block_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ):
        self.tokens, self.batch_size, self.block_size = tokens, batch_size, block_size
        self.rank, self.world = rank, world
        self._generator = torch.Generator().manual_seed(seed)

    def draw(self) -> tuple[Tensor, Tensor]:
        """This rank's share of the next batch: x and y, `(B / world, T)` each."""
        starts = _starts(self.tokens, self.batch_size, self.block_size, self._generator)
        return _windows(self.tokens, starts[self.rank :: self.world], self.block_size)

    def state(self) -> Tensor:
        """Where in its random numbers it is, uint8; the same on every rank."""
        return self._generator.get_state()

    def restore(self, state: Tensor) -> None:
        """Go on from where `state` was taken."""
        self._generator.set_state(state)


def _starts(tokens: Tensor, B: int, T: int, generator: torch.Generator) -> Tensor:
    """Where each window begins, `(B, 1)`."""
    return torch.randint(len(tokens) - T, (B, 1), generator=generator)


def _windows(tokens: Tensor, starts: Tensor, T: int) -> tuple[Tensor, Tensor]:
    if tokens.is_cuda:
        starts = starts.pin_memory().to(tokens.device, non_blocking=True)
    window = take(tokens, starts + torch.arange(T + 1, device=tokens.device))
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
