"""Loggers of other makers, fed with the rows of a run's log: each starts, logs and finishes.

Their packages are optional. All of them write on this machine: Weights & Biases goes online only
where WANDB_MODE says so (`wandb sync` sends a run later), and none asks for an account.
"""

import importlib
import math
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..errors import ConfigError
from ..files import WORKSPACE

PROJECT = "tinygpt"


@dataclass(frozen=True)
class Start:
    """What a logger is told of a run: its folder, its settings, and the step that it goes on from
    (0: it is new)."""

    folder: Path
    settings: dict[str, Any]
    step: int

    @property
    def names(self) -> dict[str, str]:
        """The run's name, and a group that is the same after a resume.

        What a logger has of later steps stays with the run that was stopped.
        """
        group = self.folder.name
        return {"group": group, "name": f"{group} from {self.step}" if self.step else group}


class Logger(Protocol):
    """What each of them is made to be; its class is called with a `Start`."""

    def log(self, step: int, figures: dict[str, float]) -> None:
        """Keep figures of a step; it may be an earlier one."""

    def finish(self) -> None:
        """Write what is left, and close."""


class TensorBoard:
    """Event files in the run's folder; what they hold of later steps is hidden after a resume."""

    def __init__(self, start: Start):
        from torch.utils.tensorboard import SummaryWriter

        purge = start.step + 1 if start.step else None
        self.writer = SummaryWriter(start.folder, purge_step=purge)

    def log(self, step: int, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def finish(self) -> None:
        self.writer.close()


class WeightsAndBiases:
    """A run of the project $WANDB_PROJECT, "tinygpt" without it, offline unless $WANDB_MODE is set.

    Its own step may never go back, or what is logged is lost; so the step is an axis of ours.
    """

    def __init__(self, start: Start):
        import wandb

        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            config=start.settings,
            dir=start.folder,
            mode=os.environ.get("WANDB_MODE", "offline"),
            **start.names,
        )
        self.run.define_metric("step")
        self.run.define_metric("*", step_metric="step")

    def log(self, step: int, figures: dict[str, float]) -> None:
        self.run.log({"step": step, **figures})

    def finish(self) -> None:
        self.run.finish()


class Trackio:
    """A run of the project "tinygpt" in $TRACKIO_DIR, by default beside the runs: all in one
    dashboard."""

    def __init__(self, start: Start):
        import trackio

        self.trackio = trackio
        trackio.init(project=PROJECT, config=start.settings, **start.names)

    def log(self, step: int, figures: dict[str, float]) -> None:
        self.trackio.log(figures, step=step)

    def finish(self) -> None:
        self.trackio.finish()


# by the value of TrainConfig.log: what it is called, the module it needs, the package that has it
LOGGERS: dict[str, tuple[type[Logger], str, str]] = {
    "tensorboard": (TensorBoard, "torch.utils.tensorboard", "tensorboard"),
    "wandb": (WeightsAndBiases, "wandb", "wandb"),
    "trackio": (Trackio, "trackio", "trackio"),
}


class Feed:
    """Sends rows to a logger, which starts with the first; its failure never stops a run.

    `ConfigError` at once if its package is missing, or the run has no folder. Whatever fails later
    is said once, and then nothing more is sent.
    """

    def __init__(self, name: str, folder: Path | None, settings: dict[str, Any]):
        if folder is None:
            raise ConfigError(f"log={name!r} needs a folder to write into: give the run an out_dir")
        self.name, self.folder, self.settings = name, folder, settings
        self.step = 0  # at which the run was resumed
        self._logger: Logger | None = None
        self._failed = False
        check_logger(name)

    def send(self, step: int, figures: Mapping[str, float]) -> None:
        """Log what is finite of the figures of a step."""
        known = {k: float(v) for k, v in figures.items() if k != "step" and math.isfinite(v)}
        self._safely(lambda: self._started().log(step, known))

    def finish(self) -> None:
        """Close the logger; a further row would start it anew."""
        if self._logger is not None:
            self._safely(self._logger.finish)
        self._logger = None

    def _started(self) -> Logger:
        if self._logger is None:
            make, _, _ = LOGGERS[self.name]
            self._logger = make(Start(self.folder, self.settings, self.step))
        return self._logger

    def _safely(self, act) -> None:
        if self._failed:
            return
        try:
            act()
        except Exception as error:  # whatever it is: the run matters more
            self._failed = True
            warnings.warn(
                f"{self.name} gets no more of this run, whose metrics.csv goes on: {error!r:.500}",
                stacklevel=4,
            )


def check_logger(name: str) -> None:
    """Raise `ConfigError` if the package of a logger is missing."""
    _, module, package = LOGGERS[name]
    if name == "trackio":  # it looks there when it is imported
        os.environ.setdefault("TRACKIO_DIR", str(WORKSPACE / "checkpoints" / "trackio"))
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"log={name!r} needs a package that is not installed or does not work ({error}): "
            f"pip install {package}"
        ) from error
