"""A text of any length as a model reads it: the surprise of each token, and where it was routed.

n tokens, W windows, T window length, L layers with experts, E experts, K experts per token
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ConfigError
from ..model import IGNORED, Routing, TinyGPT, evaluating

AT_ONCE = 1 << 14  # tokens of one forward pass


@dataclass(frozen=True)
class Reading:
    """What a model did with a text of n tokens.

    routings: of each layer with experts, tensors `(1, n, ...)`. nats: -ln p of each token but the
    first, `(n - 1,)`.
    """

    routings: list[Routing]
    nats: Tensor

    @property
    def loss(self) -> float:
        """The mean, in nats per token; nan for a single token."""
        return self.nats.double().mean().item()


@torch.inference_mode()
def read(model: TinyGPT, tokens: Tensor) -> Reading:
    """Read a text `(n,)` of any length, in windows that overlap by half at least.

    Of each window counts what the one before has not read, so beyond the first window every token
    has at least half a block before it. Results are on the CPU.
    """
    if len(tokens) < 1:
        raise ConfigError("a text without tokens cannot be read; give at least one")
    tokens = tokens.long().cpu()
    following = F.pad(tokens, (0, 1), value=IGNORED)[1:]
    nats, routings = [], []
    for positions, fresh in _windows(len(tokens), model.config.block_size):
        targets = following[positions].masked_fill(~fresh, IGNORED)
        with evaluating(model):
            out = model(tokens[positions].to(model.device), return_routing=True)
        predicted = targets != IGNORED
        logits = out.logits[predicted.to(model.device)]
        nats.append(F.cross_entropy(logits.cpu(), targets[predicted], reduction="none"))
        routings.append([_pick(routing, fresh.to(model.device)) for routing in out.routing])
    return Reading([_joined(parts) for parts in zip(*routings, strict=True)], torch.cat(nats))


def surprisal(model: TinyGPT, tokens: Tensor) -> Tensor:
    """-ln p of each token `(n,)` given those before it, in nats; the first is NaN. See `read`."""
    return F.pad(read(model, tokens).nats, (1, 0), value=torch.nan)


def expert_layers(model: TinyGPT) -> list[int]:
    """The blocks that have experts."""
    return list(filter(model.config.is_moe, range(model.config.n_layer)))


def sharing(model: TinyGPT) -> TinyGPT:
    """Another model over the same weights, some of which can then be put in place of others."""
    shared = chain(model.parameters(), model.buffers(), [model.tokenizer])
    return copy.deepcopy(model, {id(part): part for part in shared})


def without_expert(model: TinyGPT, place: int, expert: int) -> TinyGPT:
    """The same model, with one expert of its `place`-th layer with experts giving zero.

    All other weights are shared with the model, whose mode it has.
    """
    other = sharing(model)
    last = other.blocks[expert_layers(model)[place]].ffn.experts.c_proj
    for name, p in list(last.named_parameters()):
        cut = p.detach().clone()
        cut[expert] = 0
        setattr(last, name, nn.Parameter(cut))
    return other


def _windows(n: int, block_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Positions of windows over n tokens, and which of them are new in it, `(W, T)`: in batches."""
    T = min(n, block_size)
    starts = torch.tensor([*range(0, n - T, max(1, T // 2)), n - T])
    read_before = F.pad(starts[:-1] + T, (1, 0))
    at_once = max(1, AT_ONCE // T)
    for start, before in zip(starts.split(at_once), read_before.split(at_once), strict=True):
        positions = start[:, None] + torch.arange(T)
        yield positions, positions >= before[:, None]


def _pick(routing: Routing, fresh: Tensor) -> Routing:
    """The chosen tokens of all windows in one row."""
    parts = (getattr(routing, field.name) for field in fields(Routing))
    return Routing(*(None if part is None else part[fresh][None].cpu() for part in parts))


def _joined(parts: tuple[Routing, ...]) -> Routing:
    columns = ([getattr(part, field.name) for part in parts] for field in fields(Routing))
    return Routing(*(None if c[0] is None else torch.cat(c, dim=1) for c in columns))
