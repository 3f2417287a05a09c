"""The draw of a token: exponential noise, the same for every strategy."""

from collections.abc import Iterator

import torch
from torch import Tensor


def draw(logits: Tensor, generators: list[torch.Generator]) -> Tensor:
    """One token per row `(B,)`, each row with its own generator."""
    return pick(logits, next(noise(generators, logits.shape[-1], 1, logits.device)))


def pick(logits: Tensor, noise: Tensor) -> Tensor:
    """One token per row `(B,)`, by exponential noise `(B, V)`.

    argmax(p / E) with exponential E picks token i with probability p_i; torch.multinomial does
    the same, bit for bit. The same E for two strategies makes their difference the strategies'.
    """
    return (logits.softmax(dim=-1) / noise).argmax(dim=-1)


def noise(
    generators: list[torch.Generator], V: int, draws: int, device: torch.device
) -> Iterator[Tensor]:
    """Exponential noise `(B, V)` for one draw after another; each row is a call of its generator.

    Made on the CPU for many draws at once: calls in a row cost a third of calls between which a
    model runs, and a GPU has one copy for all, which nothing waits for.
    """
    on_gpu, at_once = device.type == "cuda", max(1, 2**14 // (len(generators) * V))
    for start in range(0, draws, at_once):
        shape = min(at_once, draws - start), len(generators), V
        block = torch.empty(shape, pin_memory=on_gpu)
        for rows in block.unbind():
            for row, generator in zip(rows.unbind(), generators, strict=True):
                row.exponential_(generator=generator)
        # not 0: what was removed has p = 0, and 0 / 0 is NaN, which argmax takes for the largest
        block.clamp_(min=torch.finfo(block.dtype).tiny)
        yield from block.to(device, non_blocking=on_gpu).unbind()
