"""A checkpoint's list of files: one bit changed anywhere in them, or in the list, is found."""

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from ..files import as_json, read_json, sha256, write_json

MANIFEST = "manifest.json"
WORDS = ("config.json", "tokenizer.json")
TENSORS = ("model.safetensors", "training.safetensors")  # in the place of both there may be shards
STATE = "state.json"  # a shipped run has neither that nor training.safetensors
FILES = (*WORDS, *TENSORS, STATE)
SUMMARY, SAMPLES = ABOUT = ("summary.json", "samples.json")  # of a shipped run
SHARD = re.compile(r"shard-\d{5}-model-00001-of-00001\.safetensors")  # of torch's own naming


def write_manifest(folder: Path) -> None:
    """List the files of a folder with their sha256: what is written last into a checkpoint."""
    files = {path.name: sha256(path) for path in sorted(folder.iterdir())}
    write_json(folder / MANIFEST, _manifest(files))


def verify(folder: Path, names: Iterable[str] | None = None) -> list[str]:
    """Compare files of a checkpoint, by default all, with its manifest; the names that it lists.

    `CheckpointError` names the first file that is missing or differs.
    """
    if not there(folder / MANIFEST):
        raise CheckpointError(f"{folder} is not a complete checkpoint: it has no {MANIFEST}")
    files = _read_manifest(folder / MANIFEST)
    for name in files if names is None else names:
        path = folder / name
        if name not in files or not there(path):
            raise CheckpointError(f"{folder} is damaged: {name} is missing")
        try:
            found = sha256(path)
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error}") from error
        if found != files[name]:
            raise CheckpointError(f"{path} is damaged: its sha256 is not the one in {MANIFEST}")
    return list(files)


def shards_in(folder: Path) -> list[Path]:
    """The files of a folder in which a sharded training keeps its tensors: see `shards.py`."""
    return sorted(folder.glob("shard-*.safetensors"))


def there(path: Path) -> bool:
    """Whether there is a file; `CheckpointError` if one may not even look."""
    try:
        return path.is_file()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def _read_manifest(path: Path) -> dict[str, str]:
    files = read_json(path).get("files")
    if not isinstance(files, dict) or not _is_exactly(path, files):
        raise CheckpointError(f"{path} is damaged: its own checksum does not match")
    shards = [name for name in files if SHARD.fullmatch(name)]
    unknown = sorted(files.keys() - {*WORDS, *(shards or TENSORS), STATE, *ABOUT})
    missing = [name for name in (*WORDS, *(shards or TENSORS[:1])) if name not in files]
    if unknown or missing:
        raise CheckpointError(
            f"{path} is no list of a checkpoint's files: it lacks {missing}, and lists {unknown}"
        )
    # a file that is not listed has not been checked, and must not be read
    there_are = {p.name for p in path.parent.glob("*.safetensors")} if shards else set()
    for name in sorted({*TENSORS, STATE, *there_are} - files.keys()):
        if there(path.with_name(name)):
            raise CheckpointError(f"{path.with_name(name)} is not in {MANIFEST}; remove it")
    return files


def _is_exactly(path: Path, files: dict[str, str]) -> bool:
    """Every byte of a manifest follows from its list, so every byte is compared."""
    try:
        return as_json(_manifest(files)).encode() == path.read_bytes()
    except (OSError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def _manifest(files: dict[str, str]) -> dict[str, Any]:
    listed = json.dumps(files, sort_keys=True)
    return {"files": files, "sha256": hashlib.sha256(listed.encode()).hexdigest()}
