"""A run: its checkpoints written, kept and read."""

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import TypeVar

from torch import Tensor

from ..config import ModelConfig, TrainConfig
from ..errors import CheckpointError, ConfigError
from ..files import INSTALLED, WORKSPACE, resolve, set_aside
from ..model import TinyGPT
from ..ranks import ALONE, Ranks
from ..runtime import pick_device
from .checkpoint import Checkpoint, load_checkpoint, read_settings, read_state, save_checkpoint
from .folder import Folder, check_utf8, names, remove_checkpoint
from .manifest import MANIFEST, SUMMARY, there, verify

RUNS = WORKSPACE / "checkpoints"
FORMER = {"laptop": "laptop-dense"}  # names that shipped runs had
Read = TypeVar("Read")


class Run(Folder):
    """The run in a folder: a name under checkpoints/, or a path. See `Folder` for what is in it.

    `claim` makes a new one, `open` finds one. To read it needs nothing more; who writes does so
    inside `writing`.
    """

    @classmethod
    def place(cls, name: str | Path) -> Path:
        """The folder that is meant: a name under checkpoints/, also a shipped run's former one, or
        a path."""
        now = FORMER.get(str(name))
        if now and cls(RUNS / now).shipped():
            return RUNS / now
        return resolve(name, RUNS)

    @classmethod
    def claim(cls, folder: str | Path) -> "Run":
        """A new run in a folder, which is made: a name under checkpoints/, or a path.

        `CheckpointError` if the folder cannot be written, is in use, or holds anything but what
        is left of a start that came to no checkpoint.
        """
        run = cls(cls.place(folder))
        run.start()
        return run

    @classmethod
    def fresh(cls, name: str) -> Path:
        """A free folder for a new run: checkpoints/NAME, else NAME-2, NAME-3, …"""
        numbered = (cls.place(name if n == 1 else f"{name}-{n}") for n in count(1))
        return next(folder for folder in numbered if cls(folder).is_free())

    @classmethod
    def open(cls, name: str | Path) -> "Run":
        """An existing run. `CheckpointError` lists what there is when it is not found."""
        run = cls(cls.place(name))
        if run.exists():
            return run
        found = ", ".join(run_names())
        shipped = "; the course's runs are in its repository, not in what pip installs"
        raise CheckpointError(
            f"no run {str(name)!r}, which would be {run.folder}; under {RUNS} there is: "
            f"{found or 'nothing yet. Train one: python -m tinygpt train'}"
            f"{shipped if INSTALLED else ''}"
        )

    def exists(self) -> bool:
        """Whether there is a checkpoint to load."""
        return self.shipped() or bool(self.checkpoints())

    # --- checkpoints ---

    def latest(self) -> Path:
        """The newest checkpoint to go on from: one whose files are whole.

        A damaged one is passed over with a warning. `CheckpointError` if there is none.
        """

        def whole(folder: Path) -> Path:
            verify(folder)
            return folder

        self.check_trainable()
        return self._first(whole, reversed(self.checkpoints()))

    def check_trainable(self) -> None:
        """Raise `CheckpointError` for a shipped run, which nobody can go on with."""
        if self.shipped():
            raise CheckpointError(
                f"{self.folder} holds a model without its training state (a shipped run); load it "
                f"with load_run"
            )

    def load(self, which: str = "best") -> Checkpoint:
        """The `"best"` or the `"latest"` checkpoint, or that of a folder's name; a shipped run is
        its own.

        A damaged one is passed over with a warning, and an older one taken.
        """
        return self._chosen(which, load_checkpoint)

    def trained_with(self, which: str) -> tuple[ModelConfig, TrainConfig]:
        """The model and training settings of the checkpoint that `load` would take."""

        def read(folder: Path) -> tuple[ModelConfig, TrainConfig]:
            verify(folder)
            return read_settings(folder)

        self.check_trainable()
        return self._chosen(which, read)

    def _chosen(self, which: str, read: Callable[[Path], Read]) -> Read:
        """What is read of the checkpoint that is meant: see `load`."""
        there_are = self.checkpoints()
        others = {folder.name: folder for folder in there_are}
        if which not in ("best", "latest", *others):
            raise ConfigError(f"which={which!r} must be 'best' or 'latest'")
        if self.shipped():
            return read(self.folder)
        if which in others:
            return read(others[which])
        try:
            return self._best_or_latest(which, there_are, read)
        except CheckpointError:
            if self.checkpoints() == there_are:
                raise
            return self._chosen(which, read)  # a training went on and removed what we read

    def _best_or_latest(
        self, which: str, folders: list[Path], read: Callable[[Path], Read]
    ) -> Read:
        best = self._best(folders) if which == "best" else None
        if best:
            try:
                return read(best)
            except CheckpointError as error:
                _warn(f"taking the latest checkpoint, as the best cannot be had: {error}")
        return self._first(read, (f for f in reversed(folders) if f != best))

    def _best(self, folders: list[Path]) -> Path | None:
        """The one with the lowest validation loss, as the newest says that can be read."""
        for folder in reversed(folders):
            with suppress(CheckpointError):
                return self.step_folder(read_state(folder)["best_step"])
        return None

    def _first(self, read: Callable[[Path], Read], folders: Iterable[Path]) -> Read:
        """What the first folder gives that can be read."""
        for folder in folders:
            try:
                return read(folder)
            except CheckpointError as error:
                if isinstance(error.__cause__, PermissionError):
                    raise  # that is no damage
                if there(folder / MANIFEST):
                    _warn(f"passing over a damaged checkpoint: {error}")
        raise CheckpointError(f"{self.folder} has no checkpoint that is whole")

    @contextmanager
    def writing_together(self, ranks: Ranks) -> Iterator[None]:
        """`writing`, by the first of several processes for all of them."""
        with ExitStack() as stack:
            ranks.once(lambda: stack.enter_context(self.writing()))
            yield

    def save(self, step: int, checkpoint: Checkpoint, keep_last: int, ranks: Ranks = ALONE) -> None:
        """Write the checkpoint of a step, once; then only the newest and the best one are kept."""
        folder = self.step_folder(step)

        def is_new() -> bool:
            if there(folder / MANIFEST):
                return False
            remove_checkpoint(folder)  # half of one
            return True

        def tidy() -> None:
            self.started()
            self.keep(keep_last, checkpoint.state["best_step"])

        if ranks.once(is_new):
            save_checkpoint(folder, checkpoint, ranks)
            ranks.once(tidy)

    def keep(self, last: int, best_step: int) -> None:
        """Remove all checkpoints but the `last` ones and the best."""
        for old in self.checkpoints()[:-last]:
            if old != self.step_folder(best_step):
                remove_checkpoint(old)

    def forget_after(self, step: int) -> None:
        """Remove what is left of later steps, and of a save or a removal that was killed.

        Of a run that is resumed at this step: it makes them again. Damaged tables, which tell of
        the run and do not make it, are set aside with a warning.
        """
        tables = self._tables_or_aside()
        self.sweep()
        self.started()
        for later, folder in self.step_folders().items():
            if later > step or not there(folder / MANIFEST):
                remove_checkpoint(folder)
        if any(later > step for later in tables):
            self.save_tables({at: table for at, table in tables.items() if at <= step})

    def _tables_or_aside(self) -> dict[int, Tensor]:
        try:
            return self.load_tables()
        except CheckpointError as error:
            aside = set_aside(self.tables)
            _warn(f"{error}; it is kept as {aside.name}, and the run goes on with new tables")
            return {}


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=5)


def load_run(name: str | Path, which: str = "best", device: str = "auto") -> TinyGPT:
    """The trained model of a run: a name under checkpoints/, or a path; in eval mode.

    `which` is `"best"` (lowest validation loss) or `"latest"`. `model.tokenizer` is set.
    """
    return Run.open(name).load(which).model.to(pick_device(device)).eval()


def new_place(name: str | Path) -> Path:
    """The folder that a new run would have; `CheckpointError` if there is something."""
    return check_new(Run.place(name))


def check_new(folder: Path) -> Path:
    """The folder; `CheckpointError` if it exists, or could not be read again."""
    check_utf8(folder)
    if folder.exists():
        raise CheckpointError(f"{folder} exists; remove it, or choose another folder")
    return folder


def find_run(name: str | Path) -> Path:
    """The folder of a run: a name under checkpoints/, or a path."""
    return Run.open(name).folder


def load_expert_tables(run: str | Path) -> dict[int, Tensor]:
    """How often each symbol went to each expert, `(layers, V, E)` at each step of a run."""
    return Run.open(run).load_tables()


def run_names(shipped: bool = False) -> list[str]:
    """The runs under checkpoints/, as far as one may look; or of them those that are shipped, with
    a record of what they came to."""
    return [name for name in sorted(names(RUNS)) if _is_run(Run(RUNS / name), shipped)]


def _is_run(run: Run, shipped: bool) -> bool:
    with suppress(CheckpointError):  # of others, who let nobody look
        recorded = there(run.folder / SUMMARY) or there(run.log)  # not so of what `save_run` wrote
        return run.shipped() and recorded if shipped else run.exists()
    return False


def step_folder(run: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return Run(run).step_folder(step)


def checkpoints(run: Path) -> list[Path]:
    """The run's checkpoint folders, oldest first."""
    return Run(run).checkpoints()


def latest_checkpoint(run: Path) -> Path:
    """The newest checkpoint of a run that is whole; a damaged one is passed over."""
    return Run(run).latest()
