"""The tensors of a checkpoint in several files, a part from each process; read again by any number.

torch.distributed.checkpoint writes them, into safetensors; its own files would be pickles.
"""

import warnings
from pathlib import Path

import torch
from torch import Tensor

from ..errors import CheckpointError
from ..model import TinyGPT, own_tensors

WEIGHTS = "model."  # before the names of the weights


def save_shards(folder: Path, model: TinyGPT, training: dict[str, Tensor]) -> None:
    """Write what each process holds of a model and its training state; to be called by all.

    Raises `CheckpointError` in all if it fails in one.
    """
    from torch.distributed import checkpoint as dcp

    weights = {WEIGHTS + name: tensor for name, tensor in own_tensors(model).items()}
    writer = dcp.HuggingFaceStorageWriter(str(folder), save_distributed=True)
    try:
        dcp.save(weights | training, storage_writer=writer)
    except dcp.api.CheckpointException as error:  # which no `except Exception` would catch
        reasons = {str(failure) for failure, _ in error.failures.values()}
        raise CheckpointError(f"could not write {folder}: {'; '.join(reasons)}") from error


def load_shards(folder: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The whole weights and training state of a folder, on the CPU."""
    from torch.distributed import checkpoint as dcp

    reader = dcp.HuggingFaceStorageReader(str(folder))
    try:
        found = reader.read_metadata().state_dict_metadata
        _check_parts(found)
        tensors = {n: torch.zeros(m.size, dtype=m.properties.dtype) for n, m in found.items()}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")  # as was asked for
            dcp.load(tensors, storage_reader=reader, no_dist=True)
    except (dcp.api.CheckpointException, Exception) as error:
        raise CheckpointError(f"the shards in {folder} cannot be read: {error!s:.500}") from error
    weights = {n.removeprefix(WEIGHTS): t for n, t in tensors.items() if n.startswith(WEIGHTS)}
    return weights, {n: t for n, t in tensors.items() if not n.startswith(WEIGHTS)}


def _check_parts(found: dict) -> None:
    """What a header claims is compared with what is there before any memory is taken for it."""
    for name, tensor in found.items():
        numbers = sum(chunk.sizes.numel() for chunk in tensor.chunks)
        if numbers != tensor.size.numel():
            raise ValueError(f"{name} has {tensor.size.numel()} numbers, its parts {numbers}")
