"""Tensors in safetensors files, and a model's weights: finite, and of the shapes its settings say.

What a file claims is compared with what is there before any memory is taken for it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_model
from torch import Tensor

from ..config import ModelConfig, from_dict
from ..errors import CheckpointError, NonFiniteError, some
from ..model import TinyGPT, fill
from ..ranks import whole
from ..runtime import shapes_only

TIED = ("lm_head.weight", "wte.weight")  # with tied embeddings one tensor, under either name


def save_weights(model: TinyGPT, path: Path) -> None:
    """Write a model's weights; `NonFiniteError` if some are not finite, or as good as that."""
    check_finite(model)
    save_model(model, str(path))


def check_finite(model: TinyGPT) -> None:
    """Raise `NonFiniteError` for weights that must not be saved; of shards, in all processes."""
    if bad := not_finite(model):
        raise NonFiniteError(
            f"weights are NaN, infinite or as good as that in {some(bad)}; they were not saved"
        )


def not_finite(model: TinyGPT) -> list[str]:
    """The weights and buffers whose norm is not finite: with them the model gives no numbers.

    That finds NaN and infinity, and what the model's own norms could not square (1e19).
    """
    named = {name: t for name, t in model.state_dict().items() if t.is_floating_point()}
    norms = [whole(torch.linalg.vector_norm(t, dtype=_wide(t.dtype))) for t in named.values()]
    finite = torch.stack(norms).isfinite().tolist()  # waits for the device once
    return [name for name, fine in zip(named, finite, strict=True) if not fine]


def load_weights(settings: Any, path: Path) -> TinyGPT:
    """The model that settings (of a config.json) describe, with the weights of a file, on the CPU.

    `CheckpointError` if they do not fit each other. No random number is drawn.
    """
    return make_model(settings, _shapes(path), lambda: load_tensors(path), path)


def make_model(
    settings: Any,
    shapes: dict[str, tuple[int, ...]],
    read: Callable[[], dict[str, Tensor]],
    path: Path,
) -> TinyGPT:
    """The model of settings with the weights that `read` gives, once their shapes are found to
    fit; `path` is where they come from."""
    try:
        _check_depth(settings, shapes)
        with shapes_only():
            model = TinyGPT(from_dict(ModelConfig, settings))
        _check_shapes(model, shapes)
    except (ValueError, TypeError, RuntimeError, OverflowError, RecursionError) as error:
        raise CheckpointError(
            f"{path.parent} does not fit its config.json: {error!s:.500}"
        ) from error
    _fill(model, read())
    if bad := not_finite(model):
        raise CheckpointError(f"{path} holds weights that are NaN or infinite, in {some(bad)}")
    return model


def load_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a file; `CheckpointError` if it is none."""
    try:
        # copies: the file stays mapped, and on Windows undeletable, as long as its tensors live
        return {name: tensor.clone() for name, tensor in load_file(path).items()}
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """What the header of a file says, without reading the tensors; only those of numbers."""
    try:
        with safe_open(path, "pt") as file:
            named = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            return {name: tuple(part.get_shape()) for name, part in named.items()}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def _check_depth(settings: Any, shapes: dict[str, tuple[int, ...]]) -> None:
    """A hundred thousand blocks take minutes to make, even without numbers."""
    said = settings.get("n_layer") if isinstance(settings, dict) else None
    found = len({name.split(".")[1] for name in shapes if name.startswith("blocks.")})
    if isinstance(said, int) and said != found:
        raise ValueError(f"n_layer={said}, but the weights are those of {found} blocks")


def _check_shapes(model: TinyGPT, shapes: dict[str, tuple[int, ...]]) -> None:
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: shape for name, shape in shapes.items() if not _is_gone(name)}
    if model.config.tie_embeddings and found.keys() & set(TIED):
        head, embedding = TIED
        del wanted[head if head not in found else embedding]
    missing, unknown = wanted.keys() - found.keys(), found.keys() - wanted.keys()
    if missing or unknown:
        raise ValueError(f"missing are {some(missing)}, unknown are {some(unknown)}")
    for name, shape in wanted.items():
        if found[name] != shape:
            raise ValueError(f"{name} has the shape {found[name]} where {shape} is due")


def _fill(model: TinyGPT, tensors: dict[str, Tensor]) -> None:
    """Give a model without numbers its weights."""
    named = model.state_dict()
    tensors = {name: t.to(named[name].dtype) for name, t in tensors.items() if not _is_gone(name)}
    head, embedding = TIED
    if model.config.tie_embeddings and head in tensors:
        tensors[embedding] = tensors.pop(head)
    fill(model, tensors)


def _is_gone(name: str) -> bool:
    # routers once counted their load in a buffer; between two updates it says nothing
    return name.endswith(".router.load")


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
