"""The learner's private copy of the notebooks, and JupyterLab on it."""

import json
import os
import shutil
from pathlib import Path

from .errors import ConfigError
from .files import INSTALLED, ROOT, atomic_path, sha256, write_text
from .text import load_corpus

NOTEBOOKS = ROOT / "notebooks"
WORK = ROOT / "my_work"
RECORD = ".copied.json"  # sha256 of each notebook as it was copied


def make_working_copy(notebooks: Path = NOTEBOOKS, work: Path = WORK) -> list[str]:
    """Copy the notebooks to `work`; what the learner changed there is never overwritten.

    A notebook not touched since it was copied follows the course's updates. Returns a message for
    each notebook that the learner changed and the course has a newer version of.
    """
    work.mkdir(exist_ok=True)
    record_path = work / RECORD
    record = _read_record(record_path)
    messages = []
    for source in sorted(notebooks.glob("[0-9]*.ipynb")):
        mine, version = work / source.name, sha256(source)
        state = sha256(mine) if mine.exists() else None
        if state == version or (state and record.get(source.name) == version):
            record[source.name] = version
            continue
        if state and state != record.get(source.name):
            messages.append(
                f"{mine.name} has a newer version; yours is kept. To get the new one, rename "
                f"yours and start again."
            )
            continue
        with atomic_path(mine) as new:
            shutil.copyfile(source, new)
        record[source.name] = version
    write_text(record_path, json.dumps(record, indent=1) + "\n")
    return messages


def _read_record(path: Path) -> dict[str, str]:
    """What was copied; a lost or damaged record counts as none, so that nothing is overwritten."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def open_lab(flags: list[str]) -> int:
    """Fetch the text, make the working copy, open JupyterLab on its first notebook.

    `flags` go to JupyterLab as they are (`--no-browser`, `--port 9999`).
    """
    if INSTALLED:
        raise ConfigError(
            "the notebooks are in the course's repository, not in what pip installs; clone it, and "
            "in its folder run: pip install -r requirements.txt, python -m tinygpt lab"
        )
    from jupyterlab.labapp import main

    print(load_corpus("tinyshakespeare", fallback="tinyplays"))
    for message in make_working_copy():
        print(message)
    start = WORK / "00_start_here.ipynb"
    # the whole repository is served, so that the notebooks find their pictures
    arguments = [str(start), f"--ServerApp.root_dir={ROOT}"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        arguments.append("--allow-root")  # as in most containers
    return main([*arguments, *flags]) or 0
