"""A run's folder: its checkpoints, its log, its tables, what is shipped of it."""

import shutil
import warnings
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..errors import CheckpointError, ConfigError
from ..files import INSTALLED, WORKSPACE, atomic_path, resolve, sweep_temporaries, write_text
from ..model import TinyGPT
from ..runtime import pick_device
from .checkpoint import MANIFEST, Checkpoint, load_checkpoint, read_json, save_checkpoint, verify

RUNS = WORKSPACE / "checkpoints"


class Run:
    """The folder of a run; nothing else knows what lies where in it.

        step_0000250/ …        checkpoints, as `checkpoint.py` describes them
        metrics.csv            a row per evaluation
        experts.safetensors    of a model with experts: where each symbol went at each evaluation

    A shipped run is a checkpoint itself, without the state of its training, beside the last two.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.log = folder / "metrics.csv"
        self.tables = folder / "experts.safetensors"

    @classmethod
    def claim(cls, folder: str | Path) -> "Run":
        """A new run in a folder, which is made: a name under checkpoints/, or a path.

        `CheckpointError` if the folder holds a run or cannot be written. A log without a
        checkpoint is what a crash at the start left.
        """
        run = cls(resolve(folder, RUNS))
        if run.checkpoints():
            raise CheckpointError(
                f"{run.folder} already holds a run; go on with it (Trainer.resume, --resume), or "
                f"choose another folder"
            )
        try:
            run.folder.mkdir(parents=True, exist_ok=True)
            run.log.unlink(missing_ok=True)
            run.tables.unlink(missing_ok=True)
        except OSError as error:
            where = f"cannot write to {run.folder}: {error}"
            raise CheckpointError(f"{where}; choose another folder") from error
        return run

    @classmethod
    def open(cls, name: str | Path) -> "Run":
        """An existing run: a name under checkpoints/, or a path; to read it, or to go on with it.

        `CheckpointError` lists what there is when it is not found.
        """
        run = cls(resolve(name, RUNS))
        if run.exists():
            return run
        found = sorted(p.name for p in RUNS.glob("*") if cls(p).exists())
        shipped = "; the course's runs are in its repository, not in what pip installs"
        raise CheckpointError(
            f"no run {str(name)!r}, which would be {run.folder}; under {RUNS} there is: "
            f"{', '.join(found) or 'nothing yet. Train one: python -m tinygpt train'}"
            f"{shipped if INSTALLED else ''}"
        )

    def exists(self) -> bool:
        """Whether there is a checkpoint to load."""
        return self.shipped() or bool(self.checkpoints())

    def shipped(self) -> bool:
        """Whether the folder is a checkpoint itself."""
        return (self.folder / MANIFEST).exists()

    # --- checkpoints ---

    def step_folder(self, step: int) -> Path:
        """Where the checkpoint of a step lies, or would."""
        return self.folder / f"step_{step:07d}"

    def checkpoints(self) -> list[Path]:
        """All checkpoints, oldest first."""
        return sorted(p for p in self.folder.glob("step_*") if (p / MANIFEST).exists())

    def latest(self) -> Path:
        """The newest checkpoint that is whole; a damaged one is passed over with a warning."""
        for folder in reversed(self.checkpoints()):
            try:
                verify(folder)
            except CheckpointError as error:
                warnings.warn(f"passing over a damaged checkpoint: {error}", stacklevel=3)
            else:
                return folder
        if self.shipped():
            raise CheckpointError(
                f"{self.folder} holds a model without its training state (a shipped run); load it "
                f"with load_run"
            )
        raise CheckpointError(f"{self.folder} has no checkpoint that is whole")

    def best(self) -> Path:
        """The checkpoint with the lowest validation loss; the latest if it is damaged."""
        latest = self.latest()
        best = self.step_folder(read_json(latest / "state.json")["best_step"])
        try:
            verify(best)
        except CheckpointError as error:
            warnings.warn(
                f"taking the latest checkpoint, as the best cannot be had: {error}", stacklevel=3
            )
            return latest
        return best

    def load(self, which: str = "best") -> Checkpoint:
        """The `"best"` or the `"latest"` checkpoint; a shipped run is its own."""
        if which not in ("best", "latest"):
            raise ConfigError(f"which={which!r} must be 'best' or 'latest'")
        if self.shipped():
            return load_checkpoint(self.folder)
        return load_checkpoint(self.best() if which == "best" else self.latest())

    def save(self, step: int, checkpoint: Checkpoint, keep_last: int) -> None:
        """Write the checkpoint of a step, once; then only the newest and the best one are kept."""
        if self.step_folder(step).exists():
            return
        save_checkpoint(self.step_folder(step), checkpoint)
        best = self.step_folder(checkpoint.state["best_step"])
        for folder in self.checkpoints()[:-keep_last]:
            if folder != best:
                _remove(folder)

    def forget_after(self, step: int) -> None:
        """Remove what is left of later steps, and of a save that was killed.

        Of a run that is resumed at this step: it makes them again.
        """
        sweep_temporaries(self.folder)
        for folder in self.folder.glob("step_*"):
            if folder > self.step_folder(step):
                _remove(folder)
        tables = self.load_tables()
        if any(later > step for later in tables):
            self.save_tables({at: table for at, table in tables.items() if at <= step})

    # --- tables, and what is shipped ---

    def save_tables(self, tables: dict[int, Tensor]) -> None:
        """Write how often each symbol went to each expert, `(layers, V, E)` at each step.

        Small beside the weights, so every evaluation of a run can be kept.
        """
        named = {str(step): table.int().contiguous() for step, table in tables.items()}
        try:
            with atomic_path(self.tables) as new:
                save_file(named, new)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"could not write {self.tables}: {error}; make room") from error

    def load_tables(self) -> dict[int, Tensor]:
        """What `save_tables` wrote, by step; empty if there is none."""
        if not self.tables.exists():
            return {}
        try:
            tables = load_file(self.tables)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{self.tables} cannot be read: {error}; remove it") from error
        return {int(step): tables[step].clone() for step in sorted(tables, key=int)}

    def export(self, folder: Path) -> None:
        """Write the best model, without its training state, as a run to ship."""
        shipped = Run(Path(folder))
        if shipped.folder.exists():
            raise CheckpointError(f"{folder} exists; remove it, or choose another folder")
        best = self.load("best")
        best.training, best.state = {}, {}
        save_checkpoint(shipped.folder, best)
        if self.log.exists():
            write_text(shipped.log, self.log.read_text(encoding="utf-8"))
        if tables := self.load_tables():
            shipped.save_tables(tables)


def _remove(folder: Path) -> None:
    # without its manifest a folder counts no more, whatever of it is still there
    (folder / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def load_run(name: str | Path, which: str = "best", device: str = "auto") -> TinyGPT:
    """The trained model of a run: a name under checkpoints/, or a path; in eval mode.

    `which` is `"best"` (lowest validation loss) or `"latest"`. `model.tokenizer` is set.
    """
    return Run.open(name).load(which).model.to(pick_device(device)).eval()


def find_run(name: str | Path) -> Path:
    """The folder of a run: a name under checkpoints/, or a path."""
    return Run.open(name).folder


def export_run(run: str | Path, folder: Path) -> None:
    """Write the best model of a run, without its training state, as a run to ship."""
    Run.open(run).export(folder)


def load_expert_tables(run: str | Path) -> dict[int, Tensor]:
    """How often each symbol went to each expert, `(layers, V, E)` at each step of a run."""
    return Run.open(run).load_tables()


def step_folder(run: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return Run(run).step_folder(step)


def checkpoints(run: Path) -> list[Path]:
    """The run's checkpoint folders, oldest first."""
    return Run(run).checkpoints()


def latest_checkpoint(run: Path) -> Path:
    """The newest checkpoint of a run that is whole; a damaged one is passed over."""
    return Run(run).latest()
