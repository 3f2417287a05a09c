"""The log of a run: one row per evaluation."""

import csv
import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigError, TinyGPTError
from ..files import write_text

if TYPE_CHECKING:
    import pandas as pd


class MetricsLogger:
    """One row per evaluation, kept in memory and, with a `path`, in a CSV file.

    An existing file is continued; a last line torn by a crash is dropped. TensorBoard and
    Weights & Biases get the same numbers when asked for (and installed).
    """

    COLUMNS = (
        "step",
        "epoch",
        "train_lm_loss",  # nats per token
        "val_lm_loss",
        "train_perplexity",
        "val_perplexity",
        "val_bits_per_char",  # of the text, so that tokenizers can be compared
        "lr",
        "grad_norm",  # before clipping
        "tokens_per_s",
        "peak_gpu_gb",
        "seconds",
        "load_cv",  # of the experts, in the most uneven layer; nan without experts
        "balance_loss",  # mean over the layers with experts; 1: even
        "z_loss",
    )

    def __init__(
        self, path: str | Path | None = None, tensorboard: bool = False, wandb: str | None = None
    ):
        self.path = Path(path) if path else None
        self.rows: list[dict[str, float]] = []
        if self.path and self.path.exists():
            self.rows = self.read(self.path)
            self._rewrite()
        self._sinks = [_tensorboard(self.path)] if tensorboard else []
        if wandb:
            self._sinks.append(_wandb(wandb))

    def log(
        self, *, step: int, train_lm_loss: float, val_lm_loss: float, **values: float
    ) -> dict[str, float]:
        """Add a row; the perplexities are filled in from the losses, what is not given is nan."""
        unknown = set(values) - set(self.COLUMNS)
        if unknown:
            raise ConfigError(f"no column {', '.join(sorted(unknown))}; there are {self.COLUMNS}")
        values |= {
            "train_lm_loss": train_lm_loss,
            "val_lm_loss": val_lm_loss,
            "train_perplexity": math.exp(min(train_lm_loss, 700)),
            "val_perplexity": math.exp(min(val_lm_loss, 700)),
        }
        row = {name: float(values.get(name, math.nan)) for name in self.COLUMNS}
        row["step"] = int(step)
        self.rows.append(row)
        if self.path:
            self._append(row)
        for sink in self._sinks:
            sink(row)
        return row

    def truncate(self, step: int) -> None:
        """Forget the rows after `step`: a resumed run writes them again."""
        self.rows = [row for row in self.rows if row["step"] <= step]
        if self.path:
            self._rewrite()

    @classmethod
    def read(cls, path: str | Path) -> list[dict[str, float]]:
        """The rows of a CSV file; an incomplete last line is left out."""
        text = Path(path).read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]
        rows = list(csv.DictReader(io.StringIO(whole)))
        good = [row for row in rows if None not in row and None not in row.values()]
        blank = dict.fromkeys(cls.COLUMNS, math.nan)  # what an older file does not have
        return [
            blank | {k: int(v) if k == "step" else float(v) for k, v in r.items()} for r in good
        ]

    def frame(self) -> "pd.DataFrame":
        """The rows as a table."""
        import pandas as pd

        return pd.DataFrame(self.rows, columns=list(self.COLUMNS))

    def _append(self, row: dict[str, float]) -> None:
        with self._writable():
            if not self.path.exists():
                write_text(self.path, ",".join(self.COLUMNS) + "\n")
            with open(self.path, "a", encoding="utf-8", newline="\n") as file:
                file.write(_line(row))

    def _rewrite(self) -> None:
        with self._writable():
            write_text(self.path, ",".join(self.COLUMNS) + "\n" + "".join(map(_line, self.rows)))

    @contextmanager
    def _writable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise TinyGPTError(
                f"could not write {self.path}: {error}; make room or choose another folder"
            ) from error


def _line(row: dict[str, float]) -> str:
    return ",".join(repr(value) for value in row.values()) + "\n"


def _tensorboard(path: Path | None):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            "TensorBoard was asked for but is not installed: pip install tensorboard"
        ) from error
    writer = SummaryWriter(str(path.parent) if path else None)

    def write(row: dict[str, float]) -> None:
        for name, value in row.items():
            if name != "step":
                writer.add_scalar(name, value, row["step"])
        writer.flush()

    return write


def _wandb(project: str):
    try:
        import wandb
    except ImportError as error:
        raise ConfigError(
            "Weights & Biases was asked for but is not installed: pip install wandb"
        ) from error
    run = wandb.init(project=project)
    return lambda row: run.log(row, step=row["step"])
