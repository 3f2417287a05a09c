"""How much memory a computation takes at most, beside what is there before."""

import weakref
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only


class Live(TorchDispatchMode):
    """A context that adds up the bytes of the tensors that come to be in it and are still there.

    Backward passes are seen as well; what an operation needs while it runs is not.
    """

    def __init__(self, known: list[Tensor]):
        super().__init__()
        self.now = self.peak = 0
        self._seen = {id(tensor.untyped_storage()) for tensor in known}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        tree_map_only(Tensor, self._count, out)
        return out

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = id(storage), storage.nbytes()
        if key in self._seen:  # a view of what has been counted
            return
        self._seen.add(key)
        weakref.finalize(storage, self._gone, key, size)
        self.now += size
        self.peak = max(self.peak, self.now)

    def _gone(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


def peak_bytes(run: Callable[[], object], model: nn.Module) -> int:
    """The most memory that a computation with a model takes at a time, beside the model itself.

    On a GPU as torch's allocator counts it, elsewhere as the sizes of the tensors that are there.
    """
    known = [*model.parameters(), *model.buffers()]
    device = known[0].device
    if device.type != "cuda":
        with Live(known) as live:
            run()
        return live.peak
    run()  # libraries take their workspace once
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before
