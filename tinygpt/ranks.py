"""The processes that train one model together, as torchrun starts them; usually one, alone."""

import hashlib
import os
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

from .errors import GroupError, TinyGPTError

Result = TypeVar("Result")

# one that was killed ends the others in seconds, one that hangs after this time; it must be longer
# than what one does alone while the others wait, such as to save a run's products
TIMEOUT = timedelta(minutes=30)
NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # what torchrun says to each


@dataclass(frozen=True)
class Ranks:
    """One of `world` processes, counted from 0, and what it does with the others.

    All call the same methods in the same order, or the others wait for the one that does not. Of
    one process alone each method is what it would do without others.
    """

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def total(self, x: Tensor) -> Tensor:
        """The sum of x over all processes, for a loss that each of them computes of the totals.

        The gradient is `world` times that of the own part, since the gradients of all are averaged
        afterwards: so the average is the gradient of the whole loss.
        """
        return x if self.world == 1 else _Total.apply(x, self.world)

    def largest(self, number: int) -> int:
        """The largest of the processes' numbers."""
        if self.world == 1:
            return number
        shared = torch.tensor(number)
        distributed.all_reduce(shared, distributed.ReduceOp.MAX)
        number, exchanged = int(shared), weakref.ref(shared)
        del shared
        _wait_until_gone(exchanged)
        return number

    def once(self, act: Callable[[], Result]) -> Result:
        """Let the first process act; all get its result, or its `TinyGPTError`."""
        if self.world == 1:
            return act()
        said: list[Any] = [None, None]
        if self.first:
            try:
                said[0] = act()
            except TinyGPTError as error:
                said[1] = error
        distributed.broadcast_object_list(said)
        if said[1] is not None:
            raise said[1]
        return said[0]

    def seed(self, seed: int, step: int) -> int:
        """A seed for what each process draws for itself in a step, such as dropout."""
        text = f"{seed} {step} {self.rank}".encode()
        return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), signed=True)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """`GroupError` in the place of torch's many words when another process has gone."""
        try:
            yield
        except RuntimeError as error:
            if self.world == 1 or not _is_loss_of_another(error):
                raise
            raise GroupError(
                f"another of the {self.world} processes has ended, or did not answer within "
                f"{TIMEOUT}; what it said tells why. Go on from the last checkpoint "
                f"(Trainer.resume, --resume)"
            ) from error


ALONE = Ranks()


def join() -> Ranks:
    """Meet the processes that torchrun has started, or find the group of torch.distributed that
    there is; else this process is alone.

    Numbers on GPUs are exchanged by NCCL, others by gloo.
    """
    if not distributed.is_available():
        return ALONE
    if not distributed.is_initialized():
        if not all(name in os.environ for name in NEEDED):
            return ALONE
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        distributed.init_process_group(backend, timeout=TIMEOUT)
    return Ranks(distributed.get_rank(), distributed.get_world_size())


def leave() -> None:
    """Wait for the others and part from them: at the end of a program that has joined."""
    if distributed.is_available() and distributed.is_initialized():
        join().largest(0)
        distributed.destroy_process_group()


def whole(x: Tensor) -> Tensor:
    """All of a tensor of which each process holds a part (a DTensor); any other as it is."""
    return x.full_tensor() if hasattr(x, "full_tensor") else x


def part(x: Tensor, like: Tensor) -> Tensor:
    """Of a tensor that each process has, the part that it holds of `like`."""
    if not hasattr(like, "full_tensor"):
        return x
    from torch.distributed.tensor import distribute_tensor

    x = x.to(like.device)
    return distribute_tensor(x, like.device_mesh, like.placements, src_data_rank=None)


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, world: int) -> Tensor:
        ctx.world = world
        x = x.detach().clone()
        distributed.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.world, None


def _wait_until_gone(tensor: weakref.ref) -> None:
    """Wait until gloo's thread, too, has given up a tensor that is needed no more.

    It does so some time after the exchange, and asks Python first. Where Python is ending by then,
    C++ ends the process with SIGABRT: seen in one of 40 trainings that were otherwise done.
    """
    deadline = time.monotonic() + 1  # should torch ever keep it: no training hangs for this
    while tensor() is not None and time.monotonic() < deadline:
        time.sleep(1e-4)  # Python is free for the other thread


def _is_loss_of_another(error: RuntimeError) -> bool:
    """Torch has a class for NCCL's errors; gloo's say so in their text."""
    return isinstance(error, distributed.DistError) or "gloo" in str(error).lower()
