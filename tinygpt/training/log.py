"""The log of a run: one row per evaluation."""

import math
import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, TinyGPTError
from ..files import flush_to_disk, set_aside, write_text
from ..measure import perplexity
from .loggers import Feed
from .spreadsheet import Found, Row, read_rows

if TYPE_CHECKING:
    import pandas as pd


class MetricsLogger:
    """One row per evaluation, kept in memory and, with a `path`, in a CSV file.

    An existing file is continued, also when a spreadsheet has been at it: its numbers are read
    (see `read_rows`) and written again in this log's own form. Where that would lose something,
    such as a column that somebody added or a cell that is no number, the file is first set aside
    as metrics.csv.1 (.2, ...) with a warning, and so is a file that is no log at all. Nothing is
    written before the first row, or before a run is resumed. A step has one row: the last.

    With a `logger`, a name as in `TrainConfig.log`, another maker's gets the same numbers, and
    `settings` with them.
    """

    COLUMNS = (
        "step",
        "epoch",
        "train_lm_loss",  # nats per token
        "val_lm_loss",
        "val_tokens",  # how many of each split these two are the mean of
        "whole_val_lm_loss",  # of the whole validation split: for the last weights and the best
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
        self,
        path: str | Path | None = None,
        logger: str | None = None,
        settings: dict[str, Any] | None = None,
    ):
        self.path = Path(path) if path else None
        self.rows: list[Row] = self._found().rows
        self._left: tuple | None = None  # the file's state after our last write
        folder = self.path.parent if self.path else None
        self._feed = Feed(logger, folder, settings or {}) if logger else None

    def log(self, *, step: int, train_lm_loss: float, val_lm_loss: float, **values: float) -> Row:
        """Add a row; the perplexities are filled in from the losses, what is not given is nan."""
        self._check_known(values)
        values |= {
            "train_lm_loss": train_lm_loss,
            "val_lm_loss": val_lm_loss,
            "train_perplexity": perplexity(train_lm_loss),
            "val_perplexity": perplexity(val_lm_loss),
        }
        row = {name: float(values.get(name, math.nan)) for name in self.COLUMNS}
        row["step"] = int(step)
        earlier = [each for each in self.rows if each["step"] != row["step"]]
        again = len(earlier) < len(self.rows)
        self.rows = [*earlier, row]
        if self.path:
            if again or self._left is None or self._left != _state(self.path):
                self._rewrite(self._found())
            else:
                self._append(row)
        self._send(step, row)
        return row

    def amend(self, step: int, **values: float) -> None:
        """Fill in columns of a step that has a row; one that the log has lost stays lost."""
        self._check_known(values)
        row = next((row for row in self.rows if row["step"] == step), None)
        if row is None:
            return
        row.update(values)
        if self.path:
            self._rewrite(self._found())
        self._send(step, values)

    def finish(self) -> None:
        """Nothing more comes for now: close the logger, if there is one."""
        if self._feed:
            self._feed.finish()

    def truncate(self, step: int) -> None:
        """Forget the rows after `step`, at which a run is resumed: they are written again."""
        if self._feed:
            self._feed.step = step
        if self.path is None:
            self.rows = [row for row in self.rows if row["step"] <= step]
            return
        if step and not os.path.lexists(self.path):
            warnings.warn(
                f"{self.path} is gone; the log goes on after step {step}, without the rows before",
                stacklevel=2,
            )
        found = self._found(step)
        found.rows = self.rows = [row for row in found.rows if row["step"] <= step]
        self._rewrite(found)

    def frame(self) -> "pd.DataFrame":
        """The rows as a table."""
        import pandas as pd

        return pd.DataFrame(self.rows, columns=list(self.COLUMNS))

    def _send(self, step: int, figures: dict[str, float]) -> None:
        if self._feed:
            self._feed.send(step, figures)

    def _check_known(self, names: Iterable[str]) -> None:
        if unknown := sorted(set(names) - set(self.COLUMNS)):
            raise ConfigError(f"no column {', '.join(unknown)}; there are {self.COLUMNS}")

    def _found(self, resumed: int | None = None) -> Found:
        """What the file holds at this moment."""
        if self.path is None or not os.path.lexists(self.path):
            return Found()
        return read_rows(self.path, self.COLUMNS, resumed)

    def _append(self, row: Row) -> None:
        with self._writable():
            with open(self.path, "a", encoding="utf-8", newline="\n") as file:
                file.write(_line(row))
            flush_to_disk(self.path)  # the row is safe before the checkpoint of its step
            self._left = _state(self.path)

    def _rewrite(self, found: Found) -> None:
        """Replace the file, in which this was found; set it aside if something would be lost."""
        steps = {row["step"] for row in self.rows}
        lost, others = list(found.lost), sum(row["step"] not in steps for row in found.rows)
        if others:
            lost.append(f"{others} rows of other steps")
        with self._writable():
            if lost:
                self._set_aside(lost)
            write_text(self.path, ",".join(self.COLUMNS) + "\n" + "".join(map(_line, self.rows)))
            self._left = _state(self.path)

    def _set_aside(self, lost: list[str]) -> None:
        aside = set_aside(self.path)
        warnings.warn(
            f"{self.path} holds what this log has no place for ({'; '.join(lost)}); it is kept as "
            f"{aside.name}, and the log goes on with the rows that could be read",
            stacklevel=4,
        )

    @contextmanager
    def _writable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise TinyGPTError(
                f"could not write {self.path}: {error}; make room, close what has it open, or "
                f"choose another folder"
            ) from error


def _state(path: Path) -> tuple | None:
    """What changes when somebody else writes to a file; None: it is not there."""
    try:
        at = path.stat()
    except OSError:
        return None
    return at.st_ino, at.st_size, at.st_mtime_ns


def _line(row: Row) -> str:
    return ",".join(repr(value) for value in row.values()) + "\n"
