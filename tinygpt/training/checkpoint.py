"""Checkpoints that are whole or refused: safetensors and JSON, with a manifest written last.

config.json            model and training settings, corpus
model.safetensors      weights
tokenizer.json         tokenizer, of any kind
training.safetensors   optimizer and random states (not in a shipped run)
shard-….safetensors    in the place of these two, of a sharded training (FSDP2): see `shards.py`
state.json             step, best step so far (likewise)
summary.json           of a shipped run: what it came to, and what it cost; see `summary.py`
samples.json           likewise: texts that it writes
manifest.json          sha256 of each file above, and of itself
"""

import errno
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ..config import ModelConfig, TrainConfig, from_dict, to_dict
from ..errors import CheckpointError, ConfigError
from ..files import atomic_path, read_json, write_json
from ..model import TinyGPT
from ..ranks import ALONE, Ranks
from ..text import Tokenizer
from .manifest import ABOUT, SHARD, verify, write_manifest
from .optim import is_sharded
from .shards import load_shards, save_shards
from .state import check_state
from .tensors import check_finite, load_tensors, load_weights, make_model, save_weights

FORMAT = 1


@dataclass
class Checkpoint:
    """What a checkpoint folder holds. `training` and `state` are empty in a shipped run, `about`,
    further JSON files by name, in any other."""

    model: TinyGPT
    tokenizer: Tokenizer
    settings: dict[str, Any]  # config.json beside the model: "train", "corpus"
    training: dict[str, Tensor]
    state: dict[str, Any]
    about: dict[str, dict[str, Any]] = field(default_factory=dict)


def save_checkpoint(folder: Path, checkpoint: Checkpoint, ranks: Ranks = ALONE) -> None:
    """Write a checkpoint into a new folder, which appears only when it is complete.

    Of several processes the first writes; of a sharded model each its part, on a file system that
    all share. Raises `CheckpointError` when it cannot be written, and `NonFiniteError` when its
    weights are ruined; nothing half-written is left behind.
    """
    if is_sharded(checkpoint.model):
        check_finite(checkpoint.model)
    with ExitStack() as stack:
        new = ranks.once(lambda: stack.enter_context(new_folder(folder)))
        if is_sharded(checkpoint.model):
            save_shards(new, checkpoint.model, checkpoint.training)

        def finish() -> None:
            write_checkpoint(new, checkpoint)
            stack.close()

        ranks.once(finish)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to write into, which appears as `folder` once the block has ended well.

    Raises `CheckpointError` when it cannot be written.
    """
    folder = Path(folder)
    try:
        with atomic_path(folder) as new:
            new.mkdir()
            yield new
    except (OSError, SafetensorError) as error:
        free = _free(folder)
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        advice = "make room" if full or free < 1 << 20 else "check that the folder is writable"
        raise CheckpointError(
            f"could not write {folder}: {error} ({free / 1e9:.2f} GB free); {advice} and try "
            f"again; a training goes on from its last checkpoint, which is as it was"
        ) from error


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write the files of a checkpoint into an empty folder, which as a whole is put in place."""
    config = {"format": FORMAT, "model": to_dict(checkpoint.model.config), **checkpoint.settings}
    write_json(folder / "config.json", config)
    checkpoint.tokenizer.save(folder / "tokenizer.json")
    sharded = is_sharded(checkpoint.model)  # then the tensors are there already
    if not sharded:
        save_weights(checkpoint.model, folder / "model.safetensors")
    if checkpoint.training and not sharded:
        tensors = {k: v.detach().cpu().contiguous() for k, v in checkpoint.training.items()}
        save_file(tensors, folder / "training.safetensors")
    if checkpoint.state:
        write_json(folder / "state.json", checkpoint.state)
    for name, content in checkpoint.about.items():
        write_json(folder / name, content)
    write_manifest(folder)


def load_checkpoint(folder: Path) -> Checkpoint:
    """Check and read a checkpoint folder, on the CPU; `CheckpointError` says what is wrong.

    The global random state stays as it is.
    """
    folder = Path(folder)
    files = verify(folder)
    config = _read_config(folder)
    model, training = _load_tensors(folder, config.get("model"), files)
    model.tokenizer = tokenizer = _load_tokenizer(folder / "tokenizer.json", model.config)
    return Checkpoint(
        model,
        tokenizer,
        settings={k: v for k, v in config.items() if k not in ("format", "model")},
        training=training,
        state=_state(folder) if "state.json" in files else {},
        about={name: read_json(folder / name) for name in ABOUT if name in files},
    )


def _load_tensors(
    folder: Path, settings: Any, files: list[str]
) -> tuple[TinyGPT, dict[str, Tensor]]:
    """The model that settings describe, and the state of its training if there is one."""
    if any(map(SHARD.fullmatch, files)):
        weights, training = load_shards(folder)
        shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
        return make_model(settings, shapes, lambda: weights, folder / "its shards"), training
    model, training = load_weights(settings, folder / "model.safetensors"), "training.safetensors"
    return model, load_tensors(folder / training) if training in files else {}


def read_settings(folder: Path) -> tuple[ModelConfig, TrainConfig]:
    """The model and training settings of a checkpoint."""
    verify(folder, ["config.json"])
    config = _read_config(folder)
    try:
        return from_dict(ModelConfig, config.get("model")), train_settings(config)
    except ConfigError as error:
        raise CheckpointError(f"{folder / 'config.json'} cannot be used: {error!s:.500}") from error


def read_state(folder: Path) -> dict[str, Any]:
    """What a checkpoint says of the training, without the tensors."""
    verify(folder, ["state.json"])
    return _state(folder)


def train_settings(settings: dict[str, Any]) -> TrainConfig:
    """The training settings among those of a checkpoint; `ConfigError` if there are none."""
    return from_dict(TrainConfig, settings.get("train"))


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    config = read_json(path)
    version = config.get("format", 0)
    if not isinstance(version, int) or version > FORMAT:
        raise CheckpointError(
            f"{path} has format {version!r:.99}, this package reads up to {FORMAT}; update it"
        )
    return config


def _state(folder: Path) -> dict[str, Any]:
    state = read_json(folder / "state.json")
    check_state(state, folder / "state.json")
    return state


def _load_tokenizer(path: Path, config: ModelConfig) -> Tokenizer:
    try:
        tokenizer = Tokenizer.load(path)
        size = tokenizer.vocab_size
    except ConfigError as error:
        raise CheckpointError(f"{error!s:.500}") from error
    except (AttributeError, RecursionError, OverflowError) as error:  # of content by another hand
        raise CheckpointError(
            f"{path} is not a tokenizer that `save` wrote: {error!s:.500}"
        ) from error
    if size != config.vocab_size:
        raise CheckpointError(
            f"{path.parent}: the tokenizer has {size} symbols, the model {config.vocab_size}; they "
            f"do not belong together"
        )
    return tokenizer


def _free(folder: Path) -> int:
    """Bytes free where a folder is to be."""
    for parent in [folder, *folder.absolute().parents]:
        try:
            return shutil.disk_usage(parent).free
        except OSError:
            continue
    return 0
