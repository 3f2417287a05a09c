"""Weights in and out: folders as transformers reads and writes them.

They hold config.json and model.safetensors, or several such files with an index, and are read
tensor by tensor into a model without numbers: memory holds little beside the model itself.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..config import ModelConfig
from ..errors import CheckpointError
from ..files import read_json, write_json
from ..runtime import shapes_only
from .exports import as_theirs, family, write_config
from .families import read_config
from .gpt import TinyGPT, own_tensors
from .names import Source, sources
from .shards import WEIGHTS, Shards

CONFIG = "config.json"
COUNTS = ("n_layer", "num_hidden_layers", "num_local_experts", "num_experts")


def read_pretrained(folder: Path, dtype: torch.dtype = torch.float32) -> TinyGPT:
    """The model in a folder as transformers writes it: on the CPU, in eval mode, no tokenizer.

    Its weights become `dtype`, whatever they are stored as. `CheckpointError` if the folder holds
    a model that cannot be built here, or not all of its weights. No random number is drawn.
    """
    values = read_json(folder / CONFIG)
    with Shards(folder) as shards:
        _check_counts(values, shards)
        config = read_config(values)
        _check_experts(shards)
        if config.tie_embeddings and _has_own_head(values["model_type"], shards):
            config = replace(config, tie_embeddings=False)
        wanted = _wanted(config, folder)
        places = sources(values["model_type"], config, wanted)
        shards.check({n: t for name in wanted for n, t in places[name].split(wanted[name]).items()})
        state = {
            name: _read(shards, place, torch.empty(wanted[name].shape, dtype=dtype))
            for name, place in places.items()
        }
    return assemble(config, state).eval()


def write_pretrained(model: TinyGPT, folder: Path, end: int | None = None) -> None:
    """Write a model into an empty folder, for transformers; `end` is the id that ends a text.

    Its class there gives the same logits. `ConfigError` says why there is none for this model.
    What acts in training only (noise, jitter, capacity, dropout of experts) has no place there.
    """
    config, state = as_theirs(model)
    places = sources(family(config), config, state)
    parts = {n: t for name in state for n, t in places[name].split(state[name]).items()}
    tensors = {name: part.cpu().contiguous() for name, part in parts.items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    values = write_config(config, end) | {"dtype": str(model.wte.weight.dtype).split(".")[1]}
    write_json(folder / CONFIG, values)


def assemble(config: ModelConfig, state: dict[str, Tensor]) -> TinyGPT:
    """The model with these tensors, which become its own; a tied head is not among them."""
    with shapes_only():
        model = TinyGPT(config)
    fill(model, state)
    return model


def fill(model: TinyGPT, state: dict[str, Tensor]) -> None:
    """Give a model without numbers these tensors, as `own_tensors` names them."""
    tied = model.config.tie_embeddings
    if tied:
        state = state | {"lm_head.weight": state["wte.weight"]}
    model.load_state_dict(state, assign=True)
    if tied:
        model.lm_head.weight = model.wte.weight


def _check_experts(shards: Shards) -> None:
    """transformers 5 can also write those of a block as one tensor."""
    if stacked := [name for name in shards if name.endswith("experts.gate_up_proj")]:
        raise CheckpointError(
            f"{shards.folder} holds experts as one tensor ({stacked[0]}), which is not read here; "
            f"transformers writes them one by one with save_pretrained(save_original_format=True)"
        )


def _check_counts(values: dict[str, Any], shards: Shards) -> None:
    """A million blocks or experts take minutes to make, even without numbers."""
    for name in COUNTS:
        count = values.get(name)
        if isinstance(count, int) and count > len(shards):
            raise CheckpointError(
                f"{shards.folder} holds {len(shards)} tensors, but its config.json describes "
                f"{name}={count}"
            )


def _wanted(config: ModelConfig, folder: Path) -> dict[str, Tensor]:
    """The tensors of a model, without their numbers."""
    try:
        with shapes_only():
            return own_tensors(TinyGPT(config))
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise CheckpointError(f"{folder / CONFIG} describes no model: {error!s:.500}") from error


def _has_own_head(kind: str, shards: Shards) -> bool:
    """Whether there is a head that is not the embedding, whatever config.json says.

    A head that is the embedding counts as that from now on: it may be there under this name only.
    """
    head = "lm_head.weight"
    embedding = "wte.weight" if kind == "gpt2" else "embed_tokens.weight"
    if head not in shards:
        return False
    if embedding in shards and not torch.equal(shards.read(head), shards.read(embedding)):
        return True
    shards.rename(head, embedding)
    return False


def _read(shards: Shards, place: Source, tensor: Tensor) -> Tensor:
    """Fill one of our tensors part by part: never more than a part is there twice."""
    for name, part in place.split(tensor).items():
        part.copy_(shards.read(name))
    return tensor
