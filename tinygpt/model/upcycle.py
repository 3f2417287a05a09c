"""Upcycling: a trained dense model becomes a Mixture of Experts that says the same at first.

C channels, F feed-forward width, E experts, G granularity: experts that a copy is cut into,
P parts of the first matrix, one over the other: 2 for swiglu, gate and value, else 1
"""

from dataclasses import replace

import torch
from torch import Generator, Tensor

from ..checks import check
from ..config import ModelConfig, MoEConfig
from .gpt import TinyGPT, own_tensors
from .layers import MLP
from .weights import assemble

START = 0.02  # standard deviation of a new router's weights: that of all weights at their start
OWN = ("n_inner", "n_shared", "norm_topk_prob", "straight_through", "routed_scaling_factor")


def upcycle(
    dense: TinyGPT,
    n_experts: int = 8,
    top_k: int = 2,
    granularity: int = 1,
    reinit: float = 0.0,
    seed: int = 0,
    **settings,
) -> TinyGPT:
    """A new model whose experts are copies of a dense model's feed-forward layers.

    A token passes through `top_k` of `n_experts` experts with weights that add up to 1, times
    `granularity`, so the outputs are the dense model's but for rounding, until training moves the
    copies apart (Komatsuzaki et al. 2022). The weights are those of `MoEConfig.straight_through`:
    with them the router learns from the first update on, unless it takes all of whole copies
    (top_k = n_experts with a granularity of 1): those must differ first.

    With a `granularity` G above 1 each copy is cut into G experts of width F / G, which are at
    first chosen together: top_k = G costs what the dense layer does, and each part has weight 1,
    as the parts of a layer add up to it (virtual groups, He et al. 2024). `reinit` draws this share
    of each expert's hidden units anew (drop-upcycling, Nakamura et al. 2025): then the outputs are
    not the dense model's. `settings` are others of `MoEConfig`.

    The new model has the dense one's device, type, mode and tokenizer. Raises `ConfigError` if
    the dense one has experts already, or cannot be cut so.
    """
    moe = experts_of_copies(n_experts, top_k, granularity, reinit, seed, **settings)
    config = _with_experts(dense.config, moe, granularity)
    generator = torch.Generator().manual_seed(seed)
    made, gone = {}, set()
    for layer in filter(config.is_moe, range(config.n_layer)):
        at, ffn = f"blocks.{layer}.ffn.", dense.blocks[layer].ffn
        new = _router(config, granularity, generator)
        new |= _experts(ffn, config, granularity, reinit, generator)
        made |= {at + name: tensor.to(ffn.c_fc.weight) for name, tensor in new.items()}
        gone |= {at + name for name in ffn.state_dict()}
    kept = {name: t.clone() for name, t in own_tensors(dense).items() if name not in gone}
    mixture = assemble(config, kept | made)
    mixture.tokenizer = dense.tokenizer
    return mixture.train(dense.training)


def experts_of_copies(
    n_experts: int, top_k: int, granularity: int, reinit: float, seed: int, **settings
) -> MoEConfig:
    """The settings of the experts, but for their width; `ConfigError` where they cannot be.

    They are checked without the dense model, which may have to be fetched first.
    """
    check(
        isinstance(reinit, (int, float)) and not isinstance(reinit, bool) and 0 <= reinit <= 1,
        f"reinit={reinit!r} must be between 0 and 1: a number, the share of hidden units",
    )
    check(
        type(seed) is int and -(2**63) <= seed < 2**63,
        f"seed={seed!r} must be a whole number of at least -2^63 and below 2^63",
    )
    own = sorted(settings.keys() & set(OWN))
    check(not own, f"{', '.join(own)}: upcycling sets it itself, as the dense model asks for it")
    check(
        type(granularity) is int and granularity >= 1,
        f"granularity={granularity!r} must be a whole number of at least 1",
    )
    moe = MoEConfig(n_experts=n_experts, top_k=top_k, straight_through=True, **settings)
    for name, value in (("n_experts", n_experts), ("top_k", top_k)):
        _check_parts(name, value, granularity)
    check(
        granularity == 1
        or not (moe.noisy or settings.keys() & {"top_p", "n_groups", "top_groups"}),
        f"granularity={granularity} wants all parts of a copy chosen together, which top_p, groups "
        f"and noise would not do; leave them away, or take granularity=1",
    )
    return replace(moe, routed_scaling_factor=float(granularity))


def _with_experts(config: ModelConfig, moe: MoEConfig, G: int) -> ModelConfig:
    """The settings of a mixture whose outputs can be those of a dense model."""
    check(config.moe is None, "the model has experts already; take a dense one")
    _check_parts("the feed-forward width", config.inner_size, G)
    return replace(config, moe=replace(moe, n_inner=config.inner_size // G))


def _check_parts(name: str, value: int, G: int) -> None:
    check(
        value % G == 0,
        f"{name}={value} is not divisible by granularity={G}, the experts that each copy is cut "
        f"into",
    )


def _router(config: ModelConfig, G: int, generator: Generator) -> dict[str, Tensor]:
    """Random rows, equal for the experts of one copy: so they are chosen together."""
    moe = config.moe
    shape = (moe.n_experts // G, config.n_embd)
    made = {"router.bias": torch.zeros(moe.n_experts)} if moe.balance == "bias" else {}
    for name in ("proj", "noise") if moe.noisy else ("proj",):
        rows = torch.randn(shape, generator=generator) * START
        made[f"router.{name}.weight"] = rows.repeat_interleave(G, 0)
    return made


def _experts(
    ffn: MLP, config: ModelConfig, G: int, reinit: float, generator: Generator
) -> dict[str, Tensor]:
    """The stacked weights of E experts: expert e is part e % G of copy e // G."""
    copies, P = config.moe.n_experts // G, 2 if config.mlp == "swiglu" else 1
    parts = {name: _cut(name, weight, G, P) for name, weight in ffn.state_dict().items()}
    made = {name: part.repeat(copies, *[1] * (part.dim() - 1)) for name, part in parts.items()}
    if reinit:
        _redraw(made, reinit, generator)
    return {f"experts.{name}": stack for name, stack in made.items()}


def _cut(name: str, weight: Tensor, G: int, P: int) -> Tensor:
    """A layer's weight or bias as G of narrower layers, whose outputs add up to the layer's."""
    if name.startswith("c_fc"):  # (P F) or (P F, C): gate and value are cut each for itself
        return weight.unflatten(0, (P, G, -1)).transpose(0, 1).flatten(1, 2)
    if name == "c_proj.weight":  # (C, F)
        return weight.unflatten(1, (G, -1)).transpose(0, 1)
    return (weight / G).expand(G, -1)  # c_proj.bias (C): in each of them


def _redraw(stacks: dict[str, Tensor], share: float, generator: Generator) -> None:
    """Draw a share of each expert's hidden units anew, with the mean and spread of their matrix.

    The unit's row of gate and of value, their biases, and its column of the second matrix.
    """
    E, _, F = stacks["c_proj.weight"].shape
    order = torch.rand(E, F, generator=generator).argsort(-1)
    redrawn = (order < round(share * F))[:, None, :, None]  # (E, 1, F, 1)
    for name in [name for name in stacks if name != "c_proj.bias"]:  # which is of no unit
        stack = stacks[name].mT if name == "c_proj.weight" else stacks[name]  # (E, P F, ...)
        units = stack.reshape(E, -1, F, stack[0, 0].numel())  # (E, P, F, C), or 1 for C
        mean, std = (f(units, (0, 2, 3), keepdim=True) for f in (torch.mean, torch.std))
        fresh = mean + std * torch.randn(units.shape, generator=generator).to(units)
        stack = torch.where(redrawn.to(units.device), fresh, units).view(stack.shape)
        stacks[name] = stack.mT.contiguous() if name == "c_proj.weight" else stack
