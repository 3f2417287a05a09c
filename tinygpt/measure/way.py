"""One token's way through a model, with the numbers at each station.

T places up to the token's own, C channels, D of one head, V vocabulary
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..model import TinyGPT, evaluating


@dataclass(frozen=True)
class Way:
    """What one place of a text meets, all on the CPU.

    `stream` holds its vector `(C,)` at each station of the residual stream, by the station's name,
    in order. Of one head of one layer: query, key and value `(D,)` as the matrices give them,
    scores and weights `(T,)`.
    """

    place: int
    layer: int
    head: int
    stream: dict[str, np.ndarray]
    query: np.ndarray
    key: np.ndarray
    value: np.ndarray
    scores: np.ndarray
    weights: np.ndarray
    logits: np.ndarray  # (V,)


@torch.inference_mode()
def token_way(model: TinyGPT, idx: Tensor, place: int, layer: int = 0, head: int = 0) -> Way:
    """The way of the token at a place of `idx` `(1, T)`, through a dense model or a mixture.

    Raises `ConfigError` for a place, a layer or a head that is not there.
    """
    H, L = model.config.n_head, model.config.n_layer
    for name, value, limit in (
        ("place", place, idx.shape[1]),
        ("layer", layer, L),
        ("head", head, H),
    ):
        if not 0 <= value < limit:
            raise ConfigError(f"{name} {value} is not there: {name}s are 0 to {limit - 1}")
    with evaluating(model), ExitStack() as hooks:
        found = _watched(model, hooks)
        out = model(idx, return_attention=True)
    stream = {name: x[0, place] for name, x in _stream(model, found)}
    heads = found[f"{layer} heads"][0, place].view(-1, model.config.head_size)
    own = head // (H // model.config.kv_heads)  # of the heads of keys and values
    q, k, v = heads.split([H, *[model.config.kv_heads] * 2])
    scores, weights = (
        maps[layer][0, head, place, : place + 1] for maps in (out.attention_scores, out.attentions)
    )
    numbers = (q[head], k[own], v[own], scores, weights, out.logits[0, place])
    return Way(place, layer, head, _arrays(stream), *_arrays(dict(enumerate(numbers))).values())


def _watched(model: TinyGPT, hooks: ExitStack) -> dict[str, Tensor]:
    """What parts of the model give, by name, as soon as they are called; until `hooks` closes."""
    found: dict[str, Tensor] = {}

    def watch(name: str, part: nn.Module) -> None:
        def keep(module, inputs, output):
            found[name] = output[0] if isinstance(output, tuple) else output

        hooks.callback(part.register_forward_hook(keep).remove)

    watch("token", model.wte)
    for n, block in enumerate(model.blocks):
        watch(f"{n} heads", block.attn.c_attn)
        watch(f"{n} attention", block.attn)
        watch(f"{n} block", block)
    watch("norm", model.ln_f)
    return found


def _stream(model: TinyGPT, found: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The stations of the residual stream, each a name and a tensor (1, T, C)."""
    yield "embedding", found["token"]
    x = found["token"]
    if model.config.position == "learned":
        x = x + model.wpe(torch.arange(x.shape[1], device=x.device))
        yield "+ position", x
    for n, block in enumerate(model.blocks):
        yield f"+ attention {n}", x + found[f"{n} attention"]
        x = found[f"{n} block"]
        yield f"+ {'experts' if block.has_experts else 'MLP'} {n}", x
    yield "last norm", found["norm"]


def _arrays(tensors: dict) -> dict:
    return {name: x.float().cpu().numpy() for name, x in tensors.items()}
