"""How a training calls its model: alone, in whole copies (DDP), or in shards (FSDP2).

Each process reads its rows of a batch. The losses are those of the whole batch, since the model
adds up over all processes what they are made of (`Ranks.total`); torch's engines average the
gradients. So several processes make the updates that one makes, but for rounding, and for what
each draws for itself: dropout, router noise.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, distributed, nn

from ..config import TrainConfig
from ..errors import ConfigError
from ..model import TinyGPT, TinyGPTOutput
from ..ranks import Ranks
from ..runtime import computes_in

Forward = Callable[[Tensor, Tensor], TinyGPTOutput]


class Alone:
    """One process, as far as the training goes."""

    def __init__(self, model: TinyGPT, config: TrainConfig, ranks: Ranks):
        self.model, self.config, self.ranks = model, config, ranks
        self.wrapped = self.wrap()

    def wrap(self) -> nn.Module:
        """What is called in the place of the model."""
        return self.model

    def forward(self) -> Forward:
        """The call of a training step: x and y `(B / world, T)`, this process's rows."""
        call = torch.compile(self.wrapped) if self.config.compile else self.wrapped
        if self.config.activation_checkpointing:
            call = partial(call, recompute=True)
        return call if self.ranks.world == 1 else partial(call, total=self.ranks.total)

    @property
    def recordable(self) -> bool:
        """Whether a GPU may record an update: who computes twice looks at its random state, who
        waits for others at theirs."""
        return not self.config.activation_checkpointing

    def adding(self, last: bool) -> AbstractContextManager:
        """Around each of an update's forward and backward passes: gradients are exchanged once,
        in the last."""
        return nullcontext()

    def gathered(self) -> AbstractContextManager:
        """Around what reads the weights themselves: there they are whole."""
        return nullcontext()


class Replicated(Alone):
    """Each process has all weights; gradients are averaged while they are computed."""

    recordable = False

    def wrap(self) -> nn.Module:
        from torch.nn.parallel import DistributedDataParallel

        device = self.model.device
        ids = [device] if device.type == "cuda" else None
        wrapped = DistributedDataParallel(self.model, device_ids=ids)
        wrapped.broadcast_buffers = False  # the routers' biases are moved alike everywhere
        return wrapped

    def adding(self, last: bool) -> AbstractContextManager:
        return nullcontext() if last else self.wrapped.no_sync()


class Sharded(Alone):
    """Each process has a part of every weight, gradient and average; a block's weights are
    gathered when it is called.

    After an evaluation the parameters outside the blocks may still be gathered, as `gathered`
    has all: optimizers and `state_dict` know the parts, `parameters` does not.
    """

    recordable = False

    def wrap(self) -> nn.Module:
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        same_weights(self.model)
        device = self.model.device
        mesh = distributed.init_device_mesh(device.type, (self.ranks.world,))
        half = computes_in(device, self.config.precision)
        # inputs are not cast: the rotary angles would lose their precision
        policy = MixedPrecisionPolicy(half, torch.float32, cast_forward_inputs=False)
        for module in self.parts():
            fully_shard(module, mesh=mesh, mp_policy=policy)
        for module in self.parts():
            # the memory that is gathered into: made in an evaluation, no training may write there
            module.unshard()
            module.reshard()
        return self.model

    def parts(self) -> list[nn.Module]:
        """What is gathered at once: each block, and all that is in none."""
        return [*self.model.blocks, self.model]

    def adding(self, last: bool) -> AbstractContextManager:
        self.model.set_requires_gradient_sync(last)
        return nullcontext()

    @contextmanager
    def gathered(self) -> Iterator[None]:
        for module in self.parts():
            module.unshard()
        for block in self.model.blocks:
            block.set_reshard_after_forward(False)
        try:
            yield
        finally:
            for block in self.model.blocks:
                block.set_reshard_after_forward(True)
            for module in self.parts():
                module.reshard()


def engine_for(model: TinyGPT, config: TrainConfig, ranks: Ranks) -> Alone:
    """The engine that settings ask for, around a model on its device; before its optimizers are
    made. `ConfigError` where a process would have no row of a batch."""
    if config.batch_size < ranks.world:
        raise ConfigError(
            f"batch_size={config.batch_size} cannot be shared by {ranks.world} processes: each "
            f"takes a window at least; use batch_size={ranks.world}, or fewer processes"
        )
    if model.device.type == "cuda":
        torch.cuda.set_device(model.device)  # what names no device means this process's own
    if config.strategy == "fsdp" and distributed.is_available() and distributed.is_initialized():
        return Sharded(model, config, ranks)
    return (Alone if ranks.world == 1 else Replicated)(model, config, ranks)


@torch.no_grad()
def same_weights(model: nn.Module) -> None:
    """Give all processes the weights and buffers of the first."""
    for tensor in (*model.parameters(), *model.buffers()):
        distributed.broadcast(tensor, 0)
