"""What a benchmark found, as a table to read and as JSON to keep."""

import json
import math
import shlex
import sys
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path

import torch

from ..files import write_text
from ..runtime import environment, processor
from ..tables import Row


@dataclass(frozen=True)
class Report:
    """A benchmark's question with its settings, a row of figures for each thing measured, and what
    else is to be said of them."""

    question: str
    rows: list[Row]
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        import pandas as pd

        table = pd.DataFrame(self.rows).to_string(index=False, na_rep="-", float_format=_figure)
        return "\n".join([self.question, *[table] * bool(self.rows), *self.notes])

    def save(self, path: str | Path) -> None:
        """Write it as JSON, with the machine, the versions, the command and the time."""
        about = {
            "command": f"python -m tinygpt {shlex.join(sys.argv[1:])}",
            "finished": datetime.now().astimezone().isoformat(timespec="seconds"),
            "machine": machine() | environment(),
        }
        kept = about | asdict(self) | {"rows": [_without_nan(row) for row in self.rows]}
        write_text(Path(path), json.dumps(kept, indent=1, allow_nan=False) + "\n")


def machine(device: torch.device | None = None) -> dict[str, str]:
    """The processor, or the GPU that is used, by the name that its maker gave it."""
    return {"processor": processor(device or torch.device("cpu"))}


def settings(device: torch.device, rounds: int | None = None) -> str:
    """The end of a question: where it was asked, and how often if always the same."""
    count = torch.get_num_threads()
    where = f"{device.type}, {count} thread{'s' * (count > 1)}"
    return where if rounds is None else f"{where}, {rounds} rounds"


def _without_nan(row: Row) -> Row:
    """JSON knows no nan: None instead."""
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()}


def _figure(value: float) -> str:
    """Four digits, and thousands apart."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
