"""How long the notebooks run: measured, kept in notebooks/times.json, and said in the same words by
the README's table, notebook 00's table and the notebooks' headers.

python -m tests.notebook_times           measures all notebooks, on a quiet machine, and writes
python -m tests.notebook_times 02 05     measures these
python -m tests.notebook_times write     only writes what was measured into the pages
"""

import json
import math
import os
import re
import sys
import time
from pathlib import Path

import nbformat

from tinygpt.benchmark import machine
from tinygpt.files import ROOT, write_text

FOLDER, README = ROOT / "notebooks", ROOT / "README.md"
TIMES = FOLDER / "times.json"
QUIET = 0.5  # processes that run or wait, on average over a minute
LENGTH = r"\d+ (?:seconds|minutes|min|s)"


def notebooks() -> list[Path]:
    """All of them, in their order."""
    return sorted(FOLDER.glob("[0-9]*.ipynb"))


def measured() -> dict[str, float]:
    """Seconds by notebook."""
    return json.loads(TIMES.read_text(encoding="utf-8"))["seconds"]


def said(seconds: float, unit: tuple[str, str]) -> str:
    """A time in the units for seconds and minutes: up to the next 5 seconds, or to the minute.

    >>> said(61, ("s", "min")), said(121, ("seconds", "minutes"))
    ('65 s', '3 minutes')
    """
    if seconds <= 120:
        return f"{5 * math.ceil(seconds / 5)} {unit[0]}"
    return f"{math.ceil(seconds / 60)} {unit[1]}"


def with_times(text: str, page: str) -> str:
    """A page as it should be: the README, or the JSON of the notebook of this name."""
    content = json.loads(TIMES.read_text(encoding="utf-8"))
    for name, seconds in content["seconds"].items():  # rows of a table that begin with a link
        row = rf"(\| \[[^\]\n]*\]\((?:notebooks/)?{name}\.ipynb\) \|[^\n]*\| ){LENGTH} \|"
        text = re.sub(row, rf"\g<1>{said(seconds, ('s', 'min'))} |", text)
    if page in content["seconds"]:
        header = said(content["seconds"][page], ("seconds", "minutes"))
        text = re.sub(rf"\brun {LENGTH} on two CPU cores", f"run {header} on two CPU cores", text)
    return re.sub(r"(?<=\nTimes on ).*?(?=, without a GPU\.)", content["machine"], text)


def pages() -> dict[Path, str]:
    """Each page with its text as it should be."""
    paths = [README, *notebooks()]
    return {path: with_times(path.read_text(encoding="utf-8"), path.stem) for path in paths}


def seconds_of(path: Path) -> float:
    """How long the cells of a notebook take, without the start of Python."""
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=None, resources={"metadata": {"path": FOLDER}})
    with client.setup_kernel():
        start = time.perf_counter()
        for number, cell in enumerate(notebook.cells):
            client.execute_cell(cell, number)
        return time.perf_counter() - start


def measure(names: list[str]) -> None:
    """Run notebooks whose names begin so, all if there are none, and keep their times."""
    kept = json.loads(TIMES.read_text(encoding="utf-8"))
    for path in notebooks():
        if path.name.startswith(tuple(names) or ""):
            if os.getloadavg()[0] > QUIET:
                sys.exit(
                    f"the load is {os.getloadavg()[0]:.1f}: on a busy machine times say nothing"
                )
            kept["seconds"][path.stem] = round(seconds_of(path), 1)
            print(f"{path.stem}: {kept['seconds'][path.stem]} s", flush=True)
            time.sleep(90)  # until the load is that of others alone
    if not names:
        kept["machine"] = f"{os.cpu_count()} cores of one {machine()['processor']}"
    write_text(TIMES, json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:] != ["write"]:
        measure(sys.argv[1:])
    for page, text in pages().items():
        write_text(page, text)
