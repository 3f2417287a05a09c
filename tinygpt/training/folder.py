"""What lies where in a run's folder, and who may write into it."""

import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ..errors import CheckpointError
from ..files import atomic_path, locked, read_json, sha256, sweep_temporaries, write_text
from .log import MetricsLogger
from .manifest import ABOUT, FILES, MANIFEST, SUMMARY, shards_in, there
from .tensors import load_tensors

LOG, TABLES = "metrics.csv", "experts.safetensors"
SETTINGS = "config.yaml"
START, LOCK = ".start", ".lock"
BEST, GENERATIONS, CURVES = "best", "generations.json", "convergence.png"
PRODUCTS = (BEST, SUMMARY, GENERATIONS, CURVES)


class Folder:
    """A run's folder.

        step_0000250/ …        checkpoints, as `checkpoint.py` describes them
        metrics.csv            a row per evaluation
        experts.safetensors    of a model with experts: where each symbol went at each evaluation
        config.yaml            of a run of the command line: what makes it anew (train --config)
        best                   of a training that has ended: the best weights alone
        summary.json           likewise: what they came to, and what that cost
        generations.json       likewise: texts that they write
        convergence.png        likewise: metrics.csv as curves
        .start                 before the first checkpoint: says that what is there is of a start
        .lock                  held by who writes here

    A shipped run is a checkpoint itself, without the state of its training, beside metrics.csv
    and experts.safetensors; nothing is written into it. What is of others is never removed.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.log, self.tables, self.settings = folder / LOG, folder / TABLES, folder / SETTINGS
        self._left: str | None = None  # in which `_state` we left the folder

    def shipped(self) -> bool:
        """Whether the folder is a checkpoint itself."""
        return there(self.folder / MANIFEST)

    def step_folder(self, step: int) -> Path:
        """Where the checkpoint of a step lies, or would."""
        return self.folder / f"step_{step:07d}"

    def step_folders(self) -> dict[int, Path]:
        """The folders of all steps in order, whether or not a checkpoint is in them."""
        steps = (int(n[5:]) for n in names(self.folder) if re.fullmatch(r"step_\d{7,18}", n))
        # another spelling of the number was not written here
        found = {step: self.step_folder(step) for step in sorted(steps)}
        return {step: folder for step, folder in found.items() if os.path.lexists(folder)}

    def checkpoints(self) -> list[Path]:
        """All checkpoints, oldest first. Also while one takes the place of another."""
        listed = self.step_folders()
        found = [folder for folder in listed.values() if there(folder / MANIFEST)]
        return found if found or self.step_folders() == listed else self.checkpoints()

    # --- one writer at a time ---

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Alone in the folder: needed to write into it, not to read.

        `CheckpointError` if another process or thread is, or has been since we last were.
        """
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(self.folder / LOCK))
            except BlockingIOError as error:
                raise CheckpointError(
                    f"{self.folder} is {error.strerror}, which trains there; wait for its end, or "
                    f"choose another folder (out_dir=, --out)"
                ) from error
            except OSError as error:
                raise self._cannot_be_written(error) from error
            if self._left not in (None, self._state()):
                raise CheckpointError(
                    f"another training has been at work in {self.folder} since this one was made; "
                    f"Trainer.resume takes up what is there now"
                )
            try:
                yield
            finally:
                self._left = self._state()

    def _state(self) -> str:
        """What another writer would change: the newest checkpoint, before it the start."""
        with suppress(OSError, CheckpointError):
            newest = self.checkpoints()[-1:]
            return sha256(newest[0] / MANIFEST if newest else self.folder / START)
        return ""

    def _cannot_be_written(self, error: Exception) -> CheckpointError:
        return CheckpointError(
            f"cannot write to {self.folder}: {error}; choose another folder (out_dir=, --out)"
        )

    # --- the start of a run ---

    def start(self) -> None:
        """Make the folder of a new run, or clear what a start left that came to no checkpoint.

        `CheckpointError` if it holds anything else, is in use, or cannot be written and read.
        """
        check_utf8(self.folder)
        self._refuse_if_taken()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:
            raise self._cannot_be_written(error) from error
        with self.writing():
            self._refuse_if_taken()  # another may have been quicker
            try:
                self.sweep()
                self.log.unlink(missing_ok=True)
                self.tables.unlink(missing_ok=True)
                self.settings.unlink(missing_ok=True)
                mark = {"program": "tinygpt", "start": secrets.token_hex(8)}
                write_text(self.folder / START, json.dumps(mark) + "\n")
            except OSError as error:
                raise self._cannot_be_written(error) from error

    def started(self) -> None:
        """There is a checkpoint: from here on everything else is of a run, not of a start."""
        with suppress(OSError):
            (self.folder / START).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove what writers that were killed left half-written."""
        for name in (START, "step_*", f"{LOG}*", TABLES, SETTINGS, *PRODUCTS):
            sweep_temporaries(self.folder, name)

    def is_free(self) -> bool:
        """Whether a new run could start here."""
        if self._taken():
            return False
        try:
            with self.writing() if self.folder.exists() else nullcontext():
                return True
        except CheckpointError:  # somebody is starting one right now
            return False

    def _refuse_if_taken(self) -> None:
        if taken := self._taken():
            raise CheckpointError(f"{self.folder} {taken} (out_dir=, --out)")

    def _taken(self) -> str:
        """What the folder holds already, and the way out; nothing if it is free."""
        if self.shipped():
            return "holds a model that was shipped (load_run); train in another folder"
        if self.checkpoints():
            return (
                "already holds a run; go on with it (Trainer.resume, --resume), or choose another "
                "folder"
            )
        others = sorted(name for name in names(self.folder) if not self._is_of_a_start(name))
        if others:
            shown = ", ".join(others[:3]) + (", …" if len(others) > 3 else "")
            return f"holds {shown}, which no start of a run left there; choose an empty folder"
        return ""

    def _is_of_a_start(self, name: str) -> bool:
        """Whether something in the folder was left by a start that came to no checkpoint."""
        if name in (LOCK, f"{LOCK}-holder") or name.startswith(f".tmp-{START}-"):
            return True
        with suppress(OSError, CheckpointError):
            if read_json(self.folder / START).get("program") != "tinygpt":
                return False
            if name == LOG:
                return self._has_one_row_at_most()
            if name == TABLES:
                return self.load_tables().keys() <= {0}
            temporary = tuple(f".tmp-{of}" for of in ("step_", f"{LOG}-", f"{TABLES}-", SETTINGS))
            ours = name.startswith((START, "events.out.tfevents.", *temporary))
            return ours or name in (SETTINGS, "wandb")
        return False

    def _has_one_row_at_most(self) -> bool:
        header, _, rows = self.log.read_text(encoding="utf-8", errors="replace").partition("\n")
        first, _, more = rows.partition("\n")
        ours = header == ",".join(MetricsLogger.COLUMNS) and "0,".startswith(first[:2])
        return ours and not more

    # --- tables ---

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
        if not there(self.tables):
            return {}
        tables = load_tensors(self.tables)
        if not all(re.fullmatch(r"\d{1,18}", n) and t.dim() == 3 for n, t in tables.items()):
            raise CheckpointError(f"{self.tables} holds other tensors than tables; move it away")
        return {int(step): tables[step] for step in sorted(tables, key=int)}


def check_utf8(folder: Path) -> None:
    """Raise `CheckpointError` for a path that is not UTF-8, from which safetensors cannot read."""
    try:
        str(folder).encode()
    except UnicodeEncodeError as error:
        raise CheckpointError(
            f"the path {str(folder)!r} is not UTF-8, so no weights could be read from there; "
            f"choose another folder (out_dir=, --out)"
        ) from error


def names(folder: Path) -> list[str]:
    """What is in a folder; nothing if there is none, `CheckpointError` if one may not look."""
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return []
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be read: {error}") from error


def remove_checkpoint(folder: Path) -> None:
    """Remove what a checkpoint is made of; what else is in its folder stays, and the folder then.

    Without its manifest it counts no more, whatever of it is still there. What cannot be removed,
    such as a file that is in use on Windows, waits for the next time.
    """
    with suppress(OSError):
        ours = [folder / name for name in (MANIFEST, *FILES, *ABOUT)]
        for path in (*ours, *shards_in(folder)):
            path.unlink(missing_ok=True)
        folder.rmdir()
