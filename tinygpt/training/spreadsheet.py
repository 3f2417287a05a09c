"""The rows of a run's log, also of one that a crash, an editor or a spreadsheet has been at."""

import csv
import math
import re
from dataclasses import dataclass, field
from pathlib import Path

LARGEST_FILE = 1 << 26  # bytes: a quarter of a million rows
LONGEST_LINE = 1 << 14  # characters; a row has some 250
STEP = re.compile(r"\d{1,15}([.,]0)?")  # "20", or "20.0" as some programs write whole numbers

Row = dict[str, float]


@dataclass
class Found:
    """The rows that a file holds, sorted by step, and in words what else it holds."""

    rows: list[Row] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)  # empty: the rows are all that there is


def read_rows(path: Path, columns: tuple[str, ...], resumed: int | None = None) -> Found:
    """Read what can be read of a log. What cannot is named in `lost`; nothing is raised.

    Only the numbers count: a byte-order mark, semicolons or tabs, decimal commas, quotes, other
    line ends, another order of columns or rows, empty lines and empty cells (nan) change nothing.
    Columns that an older log does not have are nan. Of two rows of a step the later counts; if
    they differ, the earlier is lost. A last line without its end was torn by a crash and comes
    again, unless the run is `resumed` at its step or a later one: then an editor left it away.
    """
    try:
        text = _text(path)
    except OSError as error:
        return Found(lost=[f"it cannot be read: {error.strerror}"])
    except ValueError as error:
        return Found(lost=[str(error)])
    first, *lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    table = _Table(first, columns)
    if "step" not in table.place:
        return Found(lost=["no line with the names of the columns"] if text.strip() else [])
    torn = lines.pop() if lines else ""  # what stands after the last line's end
    for line in lines:
        table.add(line)
    if torn:
        table.add_torn(torn, resumed)
    return table.found()


def _text(path: Path) -> str:
    """The text of a file; what is none becomes signs that are no numbers."""
    if not path.is_file():
        raise ValueError("it is not a file")
    if path.stat().st_size > LARGEST_FILE:
        raise ValueError("it is too large for a log")
    return path.read_bytes().decode("utf-8-sig", errors="replace")


class _Table:
    """Lines become rows once all are there: only then is it known what a comma means."""

    def __init__(self, header: str, columns: tuple[str, ...]):
        self.columns = columns
        self.separator = next((s for s in ",;\t" if "step" in _split(header, s)), ",")
        self.names = _split(header, self.separator)
        self.place = {name: self.names.index(name) for name in columns if name in self.names}
        self.lines: list[list[str]] = []
        self.lost: list[str] = []
        self.odd = 0  # lines that are no rows, or not quite

    def add(self, line: str) -> None:
        if not line.strip(f'{self.separator} "'):
            return  # empty, or only separators
        if line.count(self.separator) < max(self.place.values()):
            self.odd += 1  # too short for a row: known without a closer look, if there are millions
        else:
            self.lines.append(_split(line, self.separator))

    def add_torn(self, line: str, resumed: int | None) -> None:
        """A last line without its end; see `read_rows`."""
        cells = _split(line, self.separator)
        complete = self._complete(cells)
        step = self._step(cells if complete else cells[:-1])  # what comes last may be cut off
        if step is None:
            again = re.fullmatch(r"[\d\0]*", line)  # zeros: of a power cut
        else:
            again = not complete if resumed is None else step > resumed
        if not again and resumed is None:
            self.lost.append("a last line without its end")
        elif not again:
            self.lines.append(cells)

    def found(self) -> Found:
        comma, rows = self._decimal_comma(), {}
        for cells in self.lines:
            step = self._step(cells) if self._complete(cells) else None
            if step is None:
                self.odd += 1
                continue
            row = {name: self._number(cells, name, comma) for name in self.columns} | {"step": step}
            earlier = rows.get(step, row)
            self.odd += None in row.values() or repr(row) != repr(earlier)
            rows[step] = {k: math.nan if v is None else v for k, v in row.items()}
        lost = [*self._other_columns(), *self.lost]
        if self.odd:
            lost.append(f"{self.odd} line{'s' * (self.odd > 1)} not as the log writes them")
        return Found([rows[step] for step in sorted(rows)], lost)

    def _complete(self, cells: list[str]) -> bool:
        return len(cells) > max(self.place.values())

    def _step(self, cells: list[str]) -> int | None:
        at = self.place["step"]
        good = at < len(cells) and STEP.fullmatch(cells[at])
        return int(re.split("[.,]", cells[at])[0]) if good else None

    def _number(self, cells: list[str], name: str, comma: bool) -> float | None:
        """The number in a cell; nan where there is no cell or nothing in it, None for no number."""
        cell = cells[self.place[name]] if name in self.place else ""
        try:
            return float(cell.replace(",", ".") if comma else cell) if cell else math.nan
        except ValueError:
            return None

    def _decimal_comma(self) -> bool:
        """Whether "1,5" is a number: some cell has a comma, and none a point."""
        cells = [line[i] for line in self.lines for i in self.place.values() if i < len(line)]
        return any("," in cell for cell in cells) and not any("." in cell for cell in cells)

    def _other_columns(self) -> list[str]:
        """What the log has no column for, unless it is empty."""
        ours = set(self.place.values())
        used = {i for line in self.lines for i, cell in enumerate(line) if cell and i not in ours}
        names = [self.names[i][:40] if i < len(self.names) else "without a name" for i in used]
        return [f"other columns ({', '.join(dict.fromkeys(names[:10]))})"] if names else []


def _split(line: str, separator: str) -> list[str]:
    """The cells of a line, without their quotes; a line far too long is one cell."""
    if len(line) > LONGEST_LINE:
        return ["?"]
    return [cell.strip() for cell in next(csv.reader([line], delimiter=separator), [])]
