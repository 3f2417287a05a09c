"""An update recorded on a GPU and replayed: else a small model waits for Python at each kernel."""

from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor

from ..model import Experts, TinyGPT
from ..runtime import autocast

Batch = tuple[Tensor, Tensor]  # x and y, (B, T) each

WARM_UP = 3  # updates before the recording: libraries set themselves up, optimizers their averages


def can_record(model: TinyGPT, precision: str) -> bool:
    """Whether Python need not look at a number on the GPU before an update is done.

    Experts are one kernel only in bf16, and only from Ampere on.
    """
    if model.device.type != "cuda":
        return False
    ways = {m.moe.dispatch for m in model.modules() if isinstance(m, Experts)}
    with autocast(model.device, precision):
        half = torch.is_autocast_enabled(model.device.type)
    grouped = half and torch.cuda.get_device_capability(model.device) >= (8, 0)
    return not ways or (grouped and ways <= {"auto", "grouped_mm"})


class RecordedUpdate:
    """Makes updates on a GPU, from the fourth on as one launch: a CUDA graph of all its kernels.

    A replay reads and writes the very memory of the recording: batches are copied there, learning
    rates are tensors that are filled. What else is changed in Python, a hook or a part of the model
    put in place of another, counts only when an update is recorded anew: with batches of other
    shapes, or after `forget`. What `update` returns, a few numbers, arrives on the CPU one call
    late, so that the GPU has its next update while Python looks at them.
    """

    def __init__(self, update: Callable[[list[Batch]], Tensor]):
        self.update = update
        self.sent: deque[tuple[Tensor, torch.cuda.Event]] = deque()
        self.forget()

    def start(self, batches: list[Batch]) -> list[list[float]]:
        """Start one update; gives the numbers of the one before."""
        if [x.shape for x, _ in batches] != [x.shape for x, _ in self.batches]:
            self.forget()
            self.batches = [(x.clone(), y.clone()) for x, y in batches]
        for there, here in zip(self.batches, batches, strict=True):
            there[0].copy_(here[0])
            there[1].copy_(here[1])
        self._send(self._warm_up() if self.made < WARM_UP else self._replay())
        self.made += 1
        return [self._receive()] if len(self.sent) > 1 else []

    def settle(self) -> list[list[float]]:
        """Wait for what was started; gives the numbers that `start` has not given."""
        return [self._receive() for _ in range(len(self.sent))]

    def forget(self) -> None:
        """Give the memory of the recording back; the next update is made as the first."""
        self.made = 0
        self.batches: list[Batch] = []
        self.graph: torch.cuda.CUDAGraph | None = None
        self.numbers: Tensor | None = None

    def _warm_up(self) -> Tensor:
        """An update beside the default stream, as is asked for before a recording."""
        aside, now = torch.cuda.Stream(), torch.cuda.current_stream()
        aside.wait_stream(now)
        with torch.cuda.stream(aside):
            numbers = self.update(self.batches)
        now.wait_stream(aside)
        return numbers

    def _replay(self) -> Tensor:
        if self.graph is None:
            self.graph, self.numbers = self._record()
        self.graph.replay()
        return self.numbers

    def _record(self) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            numbers = self.update(self.batches)
        return graph, numbers

    def _send(self, numbers: Tensor) -> None:
        there = torch.empty(numbers.shape, pin_memory=True)
        there.copy_(numbers, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record()
        self.sent.append((there, arrived))

    def _receive(self) -> list[float]:
        numbers, arrived = self.sent.popleft()
        arrived.synchronize()
        return numbers.tolist()
