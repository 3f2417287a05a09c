"""The process in which a learner's answers are examined, one after another.

An answer may loop without end, or end Python: a watchdog, which needs no help of Python's, then
ends the process, and `progress` starts another for the exercises that are left.
"""

import ast
import faulthandler
import json
import linecache
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO
from unittest.mock import Mock

from .cells import code_cells, definitions, place_of
from .registry import examine
from .words import attempt

READY = "ready"


def main() -> None:
    """`NOTEBOOK SECONDS NAME …`: a line of JSON on stdout for each, whether it passes and why."""
    notebook, seconds, *names = sys.argv[1:]
    report, faults = _streams()
    cells = [_plain(cell) for cell in code_cells(Path(notebook))]
    os.chdir(Path(notebook).parent)
    _define(cells, {})  # what takes its time to import is then there, before the clock runs
    print(READY, file=report, flush=True)
    for name in names:
        faulthandler.dump_traceback_later(float(seconds), exit=True, file=faults)
        found = _verdict(name, cells)
        faulthandler.cancel_dump_traceback_later()
        print(json.dumps(found), file=report, flush=True)


def _streams() -> tuple[TextIO, TextIO]:
    """Where to report, and where the watchdog writes; what answers print goes nowhere."""
    report, faults = (os.fdopen(os.dup(fd), "w", encoding="utf-8") for fd in (1, 2))
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for fd in (1, 2):
        os.dup2(nowhere, fd)
    return report, faults


def _plain(cell: str) -> str:
    """Python, also where a cell has magic commands of IPython."""
    from IPython.core.inputtransformer2 import TransformerManager

    return attempt(lambda: TransformerManager().transform_cell(cell), cell)


def _verdict(name: str, cells: list[str]) -> tuple[bool, str]:
    """What `examine` says of the answer; its cell is run, of those before what they define."""
    place, names = place_of(name, cells), {"__name__": "__main__"}
    _define(cells[:place], names)
    if f"def {name}" in cells[place]:
        names.pop(name, None)  # one of the lesson's
    names |= {"check": Mock(), "get_ipython": Mock()}
    lines = cells[place].splitlines(keepends=True)
    linecache.cache[_file(place)] = len(cells[place]), None, lines, _file(place)
    try:
        _run(cells[place], place, names)
    except BaseException as error:
        if name not in names:
            return False, f"✗ {name}: its cell stops with {_described(error)}"
    return examine(names[name])


def _define(cells: list[str], names: dict[str, Any]) -> None:
    for number, node in definitions(cells):
        with suppress(BaseException):  # what needs the rest of its cell is not there
            _run(ast.Module([node], []), number, names)


def _run(code: Any, number: int, names: dict[str, Any]) -> None:
    exec(compile(code, _file(number), "exec"), names)


def _file(number: int) -> str:
    return f"<cell {number}>"


def _described(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg}, in its line «{(error.text or '').strip()}»"
    return f"{type(error).__name__}: {attempt(lambda: str(error), '')}"
