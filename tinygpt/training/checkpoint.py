"""Checkpoints that are whole or refused: safetensors and JSON, with a manifest written last.

config.json            model and training settings, corpus
model.safetensors      weights
tokenizer.json         tokenizer, of any kind
training.safetensors   optimizer and random states (not in a shipped run)
state.json             step, best step so far
manifest.json          sha256 of each file above, and of itself
"""

import errno
import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import Tensor

from ..config import ModelConfig, TrainConfig, from_dict, to_dict
from ..errors import CheckpointError, ConfigError
from ..files import atomic_path, sha256, write_text
from ..model import TinyGPT
from ..text import Tokenizer

FORMAT = 1
MANIFEST = "manifest.json"


@dataclass
class Checkpoint:
    """What a checkpoint folder holds. `training` and `state` are empty in a shipped run."""

    model: TinyGPT
    tokenizer: Tokenizer
    settings: dict[str, Any]  # config.json beside the model: "train", "corpus"
    training: dict[str, Tensor]
    state: dict[str, Any]


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint into a new folder, which appears only when it is complete.

    Raises `CheckpointError` when it cannot be written; nothing half-written is left behind.
    """
    folder = Path(folder)
    try:
        with atomic_path(folder) as new:
            new.mkdir()
            _write(new, checkpoint)
    except (OSError, SafetensorError) as error:
        free = shutil.disk_usage(_existing(folder)).free
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        advice = "make room" if full or free < 1 << 20 else "check that the folder is writable"
        raise CheckpointError(
            f"could not write {folder}: {error} ({free / 1e9:.2f} GB free); {advice} and go on "
            f"from the last checkpoint, which is as it was"
        ) from error


def load_checkpoint(folder: Path) -> Checkpoint:
    """Check and read a checkpoint folder, on the CPU; `CheckpointError` says what is wrong."""
    folder = Path(folder)
    verify(folder)
    config = read_json(folder / "config.json")
    if config.get("format", 0) > FORMAT:
        raise CheckpointError(
            f"{folder} has format {config['format']}, this package reads up to {FORMAT}; update it"
        )
    try:
        model = TinyGPT(from_dict(ModelConfig, config["model"]))
        _load_weights(model, folder / "model.safetensors")
    except (ConfigError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"{folder} does not fit its config.json: {error}") from error
    model.tokenizer = tokenizer = _load_tokenizer(folder / "tokenizer.json", model.config)
    training, state = folder / "training.safetensors", folder / "state.json"
    # copies: the file stays mapped, and on Windows undeletable, as long as its tensors live
    tensors = load_file(training) if training.exists() else {}
    return Checkpoint(
        model,
        tokenizer,
        settings={k: v for k, v in config.items() if k not in ("format", "model")},
        training={name: tensor.clone() for name, tensor in tensors.items()},
        state=read_json(state) if state.exists() else {},
    )


def read_settings(folder: Path) -> tuple[ModelConfig, TrainConfig]:
    """The model and training settings of a checkpoint."""
    config = read_json(folder / "config.json")
    return from_dict(ModelConfig, config["model"]), from_dict(TrainConfig, config["train"])


def verify(folder: Path) -> None:
    """Compare every file with the manifest's sha256; `CheckpointError` names the first that
    is missing or differs."""
    if not (folder / MANIFEST).is_file():
        raise CheckpointError(f"{folder} is not a complete checkpoint: it has no {MANIFEST}")
    manifest = read_json(folder / MANIFEST)
    files = manifest.get("files", {})
    if manifest.get("sha256") != _digest(files):
        raise CheckpointError(f"{folder / MANIFEST} is damaged: its own checksum does not match")
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"{folder} is damaged: {name} is missing")
        if sha256(path) != expected:
            raise CheckpointError(f"{path} is damaged: its sha256 is not the one in {MANIFEST}")


def _write(folder: Path, checkpoint: Checkpoint) -> None:
    config = {"format": FORMAT, "model": to_dict(checkpoint.model.config), **checkpoint.settings}
    write_text(folder / "config.json", _json(config))
    save_model(checkpoint.model, str(folder / "model.safetensors"))
    checkpoint.tokenizer.save(folder / "tokenizer.json")
    if checkpoint.training:
        tensors = {k: v.detach().cpu().contiguous() for k, v in checkpoint.training.items()}
        save_file(tensors, folder / "training.safetensors")
    if checkpoint.state:
        write_text(folder / "state.json", _json(checkpoint.state))
    files = {path.name: sha256(path) for path in sorted(folder.iterdir())}
    write_text(folder / MANIFEST, _json({"files": files, "sha256": _digest(files)}))


def _load_weights(model: TinyGPT, path: Path) -> None:
    missing, unexpected = load_model(model, path, strict=False)
    # routers once counted their load in a buffer; between two updates it says nothing
    unexpected = [name for name in unexpected if not name.endswith(".router.load")]
    if missing or unexpected:
        raise RuntimeError(f"missing are {sorted(missing)}, unknown are {sorted(unexpected)}")


def _load_tokenizer(path: Path, config: ModelConfig) -> Tokenizer:
    try:
        tokenizer = Tokenizer.load(path)
    except ConfigError as error:
        raise CheckpointError(str(error)) from error
    if tokenizer.vocab_size != config.vocab_size:
        raise CheckpointError(
            f"{path.parent}: the tokenizer has {tokenizer.vocab_size} symbols, the model "
            f"{config.vocab_size}; they do not belong together"
        )
    return tokenizer


def _digest(files: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def _json(content: Any) -> str:
    return json.dumps(content, indent=1) + "\n"


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def _existing(path: Path) -> Path:
    return next(p for p in [path, *path.resolve().parents] if p.exists())
