"""Executes the notebooks as they are committed: with outputs, each widget as its still picture, and
how long they ran, which README, notebook 00 and their headers say in the same words.

python -m tests.execute           all notebooks, on a quiet machine
python -m tests.execute 02 05     these
python -m tests.execute write     only writes the times that were measured into the pages
"""

import json
import math
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from tinygpt.benchmark import machine
from tinygpt.files import ROOT, write_text

FOLDER, README = ROOT / "notebooks", ROOT / "README.md"
TIMES = FOLDER / "times.json"
QUIET = 0.5  # processes that run or wait, on average over a minute
WIDGET = "application/vnd.jupyter.widget-view+json"
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


def still(notebook: nbformat.NotebookNode) -> None:
    """Leave of each widget its sentence and its picture, where it has them.

    Without a kernel JupyterLab would show "model not found" in its place, and GitHub nothing.
    """
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "text/html" in output.get("data", {}):
                output["data"].pop(WIDGET, None)
    notebook.metadata.pop("widgets", None)


def execute(path: Path) -> float:
    """Run a notebook and write it with what it shows; how many seconds it took."""
    notebook, start = nbformat.read(path, as_version=4), time.perf_counter()
    NotebookClient(
        notebook, timeout=None, record_timing=False, resources={"metadata": {"path": FOLDER}}
    ).execute()
    seconds = time.perf_counter() - start
    still(notebook)
    nbformat.write(notebook, path)
    subprocess.run(["nbstripout", "--keep-output", "--keep-count", path], check=True)
    return seconds


def execute_all(names: list[str]) -> None:
    """Execute the notebooks whose names begin so, all if there are none; keep their times."""
    kept, load = json.loads(TIMES.read_text(encoding="utf-8")), os.getloadavg()[0]
    if load > QUIET:
        print(f"the load is {load:.1f}: on a busy machine times say nothing, so none is kept")
    for path in notebooks():
        if path.name.startswith(tuple(names) or ""):
            seconds = round(execute(path), 1)
            print(f"{path.stem}: {seconds} s", flush=True)
            if load <= QUIET:
                kept["seconds"][path.stem] = seconds
                kept["machine"] = f"{os.cpu_count()} cores of one {machine()['processor']}"
    write_text(TIMES, json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:] != ["write"]:
        execute_all(sys.argv[1:])
    for page, text in pages().items():
        write_text(page, text)
