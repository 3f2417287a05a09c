"""How much memory a computation takes at most, beside what is there before."""

import weakref
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only


class Live(TorchDispatchMode):
    """A context that adds up the bytes of the tensors that come to be in it and are still there.

    What an operation takes and none has made was there before. Backward passes are seen as well;
    what an operation needs while it runs is not.
    """

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self._seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tree_map_only(Tensor, partial(self._note, made=False), (args, kwargs))
        out = func(*args, **kwargs)
        tree_map_only(Tensor, partial(self._note, made=True), out)
        return out

    def _note(self, tensor: Tensor, made: bool) -> None:
        storage = tensor.untyped_storage()
        key, size = id(storage), storage.nbytes() * made
        if key in self._seen:  # as a view has, or the result of a change in place
            return
        self._seen.add(key)
        weakref.finalize(storage, self._gone, key, size)
        self.now += size
        self.peak = max(self.peak, self.now)

    def _gone(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


def peak_bytes(run: Callable[[], object], model: nn.Module) -> int:
    """The most memory that a computation takes at a time, beside what is there before it, as the
    model is.

    On a GPU as torch's allocator counts it, elsewhere as the sizes of the tensors that are there.
    """
    device = next(model.parameters()).device
    if device.type != "cuda":
        with Live() as live:
            run()
        return live.peak
    run()  # libraries take their workspace once
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before
