"""Timing that can be trusted: candidates take turns, medians count."""

import random
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from ..model import rebalance
from ..runtime import autocast


def take_turns(
    candidates: dict[str, Callable[[], object]],
    rounds: int,
    warm_up: int = 5,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each candidate in each round; all run once per round, so drift hits all alike.

    Their order is drawn anew for each round: a candidate finds the caches as another left them.
    """
    chance = random.Random(0)
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(warm_up + rounds):
        for name in chance.sample(list(candidates), len(candidates)):
            run = candidates[name]
            _wait()
            start = clock()
            run()
            _wait()
            if number >= warm_up:
                seconds[name].append(clock() - start)
    return seconds


def stepper(
    model: nn.Module, forward: Callable, optimizers: list, clip: float | None
) -> Callable[[], None]:
    """One update of a model, as the trainer makes it; `forward()` gives an output with a loss."""

    def step() -> None:
        with autocast(next(model.parameters()).device):
            out = forward()
        out.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip or float("inf"))
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        load = getattr(out, "expert_load", None)
        if load is not None:
            rebalance(model, load)

    return step


def product_flops(device: torch.device, n: int = 8192, rounds: int = 20) -> float:
    """What a GPU makes of a product of two n x n matrices in bf16, in FLOP/s."""
    a, b = torch.randn(2, n, n, device=device, dtype=torch.bfloat16)
    seconds = take_turns({"product": lambda: a @ b}, rounds)["product"]
    return 2 * n**3 / statistics.median(seconds)


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
