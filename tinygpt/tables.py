"""CSV tables to which several processes add rows, each time all of a unit's rows or none."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from .errors import ConfigError
from .files import alone, write_text

Row = dict[str, Any]
Columns = dict[str, type]  # str, int or float; of these three only a float may be unknown (nan)


class Table:
    """A CSV file with these columns. Rows that agree in `unit` are written, and replaced, together.

    `key` tells one row from any other; it is the unit where a unit has one row. What stands in the
    file is kept to the letter when rows are added.
    """

    def __init__(
        self, path: Path, columns: Columns, key: Sequence[str], unit: Sequence[str] | None = None
    ):
        self.path, self.columns, self.key = path, columns, list(key)
        self.unit = self.key if unit is None else list(unit)

    def read(self) -> pd.DataFrame:
        """The rows; none if there is no file. Of two rows with the same key the later counts.

        `ConfigError` if it is damaged, or another table.
        """
        return self._checked(self._text()).drop_duplicates(self.key, keep="last")

    def add(self, rows: Sequence[Row]) -> None:
        """Write these rows, in the place of those of the same unit that are there."""
        if not rows:
            return
        new = pd.DataFrame([{name: _cell(row[name]) for name in self.columns} for row in rows])
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with alone(self.path):
            old = self._text()
            self._checked(old)  # what is damaged is not made worse
            units = set(new[self.unit].itertuples(index=False, name=None))
            replaced = [unit in units for unit in old[self.unit].itertuples(index=False, name=None)]
            kept = old[[not gone for gone in replaced]]
            write_text(self.path, pd.concat([kept, new]).to_csv(index=False))

    def _text(self) -> pd.DataFrame:
        """What the file holds, letter by letter."""
        if not self.path.exists():
            return pd.DataFrame(columns=list(self.columns), dtype=str)
        try:
            text = self.path.read_bytes().decode("utf-8-sig")
            return _cells(text)[list(self.columns)]
        except (ValueError, KeyError, csv.Error) as error:
            raise self._damaged(error) from error

    def _checked(self, text: pd.DataFrame) -> pd.DataFrame:
        """The same as values."""
        try:
            kinds = self.columns.items()
            return pd.DataFrame({name: _values(text[name], kind) for name, kind in kinds})
        except ValueError as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> ConfigError:
        return ConfigError(
            f"{self.path} is not a table with the columns {', '.join(self.columns)}, or a damaged "
            f"one ({error}); mend or remove it"
        )


def _cells(text: str) -> pd.DataFrame:
    header, *lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    if any(len(line) != len(header) for line in lines):
        raise ValueError("a row has more or fewer cells than there are names")
    if not text.endswith("\n"):
        raise ValueError("its last row may be cut off: it has no line end")
    return pd.DataFrame(lines, columns=header, dtype=str)


def _cell(value: Any) -> str:
    """As it is written: a number so that it is read as the same, nothing for nan."""
    return "" if value != value else str(value)


def _values(cells: pd.Series, kind: type) -> pd.Series:
    if kind is not float and (cells == "").any():
        raise ValueError(f"a cell of {cells.name} is empty")
    if kind is str:
        return cells
    if kind is int:
        return cells.map(int).astype("int64")
    return cells.map(lambda cell: float(cell or "nan")).astype("float64")
