"""A run's folder: its checkpoints, its tables, what is shipped of it."""

import shutil
import warnings
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..errors import CheckpointError, ConfigError
from ..files import ROOT, atomic_path, write_text
from ..model import TinyGPT
from ..runtime import pick_device
from .checkpoint import MANIFEST, Checkpoint, _read_json, load_checkpoint, save_checkpoint, verify

TABLES = "experts.safetensors"
RUNS = ROOT / "checkpoints"


def load_run(name: str | Path, which: str = "best", device: str = "auto") -> TinyGPT:
    """The trained model of a run: a name under checkpoints/, or a path; in eval mode.

    `which` is `"best"` (lowest validation loss) or `"latest"`. `model.tokenizer` is set.
    """
    if which not in ("best", "latest"):
        raise ConfigError(f"which={which!r} must be 'best' or 'latest'")
    run = find_run(name)
    model = load_checkpoint(_choose(run, which)).model
    return model.to(pick_device(device)).eval()


def _choose(run: Path, which: str) -> Path:
    """The best or the latest checkpoint of a run; a shipped run is its own."""
    if (run / MANIFEST).exists():
        return run
    latest = latest_checkpoint(run)
    if which == "latest":
        return latest
    best = step_folder(run, _read_json(latest / "state.json")["best_step"])
    try:
        verify(best)
    except CheckpointError as error:
        warnings.warn(
            f"taking the latest checkpoint, as the best cannot be had: {error}", stacklevel=3
        )
        return latest
    return best


def find_run(name: str | Path) -> Path:
    """The folder of a run; `CheckpointError` lists what there is when it is not found."""
    for folder in (RUNS / name, ROOT / name):
        if (folder / MANIFEST).exists() or checkpoints(folder):
            return folder
    found = sorted(p.name for p in RUNS.glob("*") if (p / MANIFEST).exists() or checkpoints(p))
    raise CheckpointError(
        f"no run {str(name)!r} under {RUNS}, and no such path; there is: "
        f"{', '.join(found) or 'nothing yet. Train one: python -m tinygpt train'}"
    )


def step_folder(run: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return run / f"step_{step:07d}"


def checkpoints(run: Path) -> list[Path]:
    """The run's checkpoint folders, oldest first."""
    return sorted(p for p in run.glob("step_*") if (p / MANIFEST).exists())


def latest_checkpoint(run: Path) -> Path:
    """The newest checkpoint that is whole; a damaged one is passed over with a warning."""
    for folder in reversed(checkpoints(run)):
        try:
            verify(folder)
        except CheckpointError as error:
            warnings.warn(f"passing over a damaged checkpoint: {error}", stacklevel=2)
        else:
            return folder
    if (run / MANIFEST).exists():
        raise CheckpointError(
            f"{run} holds a model without its training state (a shipped run); load it with load_run"
        )
    raise CheckpointError(f"{run} has no checkpoint that is whole")


def remove_old(run: Path, keep_last: int, best_step: int) -> None:
    """Delete all checkpoints but the newest `keep_last` and the best."""
    for folder in checkpoints(run)[:-keep_last]:
        if folder != step_folder(run, best_step):
            _remove(folder)


def remove_later(run: Path, step: int) -> None:
    """Delete what is left of steps after this one: a resumed run makes them again."""
    for folder in run.glob("step_*"):
        if folder > step_folder(run, step):
            _remove(folder)


def _remove(folder: Path) -> None:
    # without its manifest a folder counts no more, whatever of it is still there
    (folder / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def export_run(run: str | Path, folder: Path) -> None:
    """Write the best model of a run, without its training state, as a run to ship."""
    source = find_run(run)
    if Path(folder).exists():
        raise CheckpointError(f"{folder} exists; remove it, or choose another folder")
    best = load_checkpoint(_choose(source, "best"))
    save_checkpoint(folder, Checkpoint(best.model, best.tokenizer, best.settings, {}, {}))
    write_text(folder / "metrics.csv", (source / "metrics.csv").read_text(encoding="utf-8"))
    if tables := load_expert_tables(source):
        save_expert_tables(Path(folder), tables)


def save_expert_tables(run: Path, tables: dict[int, Tensor]) -> None:
    """Write how often each symbol went to each expert, `(layers, V, E)` at each step.

    Small beside the weights, so every evaluation of a run can be kept.
    """
    named = {str(step): table.int().contiguous() for step, table in tables.items()}
    try:
        with atomic_path(run / TABLES) as new:
            save_file(named, new)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"could not write {run / TABLES}: {error}; make room") from error


def load_expert_tables(run: str | Path) -> dict[int, Tensor]:
    """What `save_expert_tables` wrote for a run, by step; empty if it has none."""
    path = find_run(run) / TABLES
    if not path.exists():
        return {}
    try:
        tables = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}; remove it") from error
    return {int(step): tables[step].clone() for step in sorted(tables, key=int)}


def _claim(folder: Path) -> None:
    """Make a new run's folder; a log without a checkpoint is what a crash at the start left."""
    if checkpoints(folder):
        raise CheckpointError(
            f"{folder} already holds a run; go on with it (Trainer.resume, --resume), or choose "
            f"another folder"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("metrics.csv", TABLES):
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise CheckpointError(f"cannot write to {folder}: {error}; choose another") from error
