"""Which exercises of a learner's copy are solved."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import TinyGPTError
from ..files import resolve
from .cells import checked, code_cells, is_skeleton, place_of
from .examination import READY
from .registry import exercises
from .words import COLUMNS, in_one_line

State = Literal["solved", "not yet", "not attempted"]
MARKS: dict[State, str] = {"solved": "✓", "not yet": "✗", "not attempted": "·"}
PATIENCE = 20.0  # seconds for an answer and its check
PROGRAM = "from tinygpt.exercises.examination import main; main()"


@dataclass(frozen=True)
class Verdict:
    """How it stands with one exercise; `said` is what is wrong with it."""

    notebook: Path
    exercise: str
    state: State
    said: str = ""


def progress(where: str | Path, patience: float = PATIENCE) -> Iterator[Verdict]:
    """How it stands with the exercises of a notebook, or of all in a folder.

    Answers are run in a process of their own, skeletons not at all. Of the cells before an answer
    only imports, functions, classes and plain values are run: nothing is trained.
    """
    path = resolve(where)
    if not path.exists():
        raise TinyGPTError(f"{path} is not there; name a notebook, or a folder of notebooks")
    found = False
    for notebook in sorted(path.glob("*.ipynb")) if path.is_dir() else [path]:
        for verdict in _of(notebook, patience):
            found = True
            yield verdict
    if not found:
        raise TinyGPTError(f"there are no exercises in {path}")


def progress_table(where: str | Path) -> Iterator[str]:
    """The lines of a table of it, each as soon as it is known; the last one counts."""
    last, states = None, []
    width = max(map(len, exercises()))
    for it in progress(where):
        if it.notebook != last:
            yield it.notebook.stem
        last = it.notebook
        states.append(it.state)
        row = f"  {MARKS[it.state]} {it.state:13}  {it.exercise:{width}}  "
        yield f"{row}{in_one_line(it.said, COLUMNS - len(row))}".rstrip()
    yield f"{states.count('solved')} of {len(states)} exercises are solved"


def _of(notebook: Path, patience: float) -> Iterator[Verdict]:
    cells, groups = code_cells(notebook), exercises()
    here = {groups[name] for name in checked(cells) if name in groups}
    names = [name for name, group in groups.items() if group in here]
    places = {name: place_of(name, cells) for name in names}
    touched = [n for n, i in places.items() if i is not None and not is_skeleton(cells[i], n)]
    said = _examined(notebook, touched, patience)
    for name in names:
        if name in touched:
            passed, text = next(said)
            yield Verdict(notebook, name, *_state(passed, text, name))
        else:
            yield Verdict(notebook, name, "not attempted")


def _state(passed: bool, said: str, name: str) -> tuple[State, str]:
    if passed:
        return "solved", ""
    if said.startswith(f"{name}: not attempted"):
        return "not attempted", ""
    return "not yet", re.sub(rf"^✗ {name}:? ", "", said)


def _examined(notebook: Path, names: list[str], patience: float) -> Iterator[tuple[bool, str]]:
    """What `examine` says of each; an answer that ends the process is followed by a new one."""
    left = list(names)
    while left:
        argv = [sys.executable, "-c", PROGRAM, str(notebook), str(patience), *left]
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(argv, encoding="utf-8", **pipes) as process:
            try:
                ready = process.stdout.readline().strip() == READY
                for line in process.stdout:
                    yield json.loads(line)
                    left.pop(0)
                faults = process.stderr.read()
            finally:
                process.kill()
        if not ready:
            raise TinyGPTError(f"answers cannot be examined: {faults.strip()[-300:]}")
        if left:
            left.pop(0)
            yield False, _ended(process.returncode, faults, code_cells(notebook), patience)


def _ended(code: int, faults: str, cells: list[str], patience: float) -> str:
    """What is said of an answer that ended its process, or would not end."""
    if not faults.startswith("Timeout"):
        return f"ended Python itself (exit code {code})"
    own = re.search(r'File "<cell (\d+)>", line (\d+)', faults)
    line = cells[int(own[1])].splitlines()[int(own[2]) - 1].strip() if own else ""
    where = f", and was then in its line «{line}»" if line else ""
    return f"did not end in {patience:g} s{where}"
