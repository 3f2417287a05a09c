"""The learner's private copy of the notebooks, and JupyterLab on it."""

import hashlib
import json
import os
import shutil
from pathlib import Path

from .console import waiting
from .corpora import load_corpus
from .errors import ConfigError, TinyGPTError
from .files import INSTALLED, ROOT, as_json, atomic_path, sha256, write_text

NOTEBOOKS = ROOT / "notebooks"
WORK = ROOT / "my_work"
QUIET = Path(__file__).parent / "jupyter"  # defaults of JupyterLab: it asks about no news
RECORD = ".copied.json"  # sha256 of each notebook as it was copied
EMPTY = hashlib.sha256().hexdigest()  # of a file without content: nothing in it is the learner's


def make_working_copy(notebooks: Path = NOTEBOOKS, work: Path = WORK) -> list[str]:
    """Copy the notebooks to `work`; what the learner changed there is never overwritten.

    A notebook not touched since it was copied follows the course's updates. Returns a message for
    each notebook that the learner changed and the course has a newer version of, or that cannot
    be opened. Raises `TinyGPTError` if `work` cannot be written to.
    """
    sources = sorted(notebooks.glob("[0-9]*.ipynb"))
    if not sources:
        raise TinyGPTError(
            f"there are no notebooks in {notebooks}; start from a clone of the course"
        )
    try:
        work.mkdir(exist_ok=True)
        before = _read_record(work / RECORD)
        record = dict(before)
        messages = [_copy(source, work / source.name, record) for source in sources]
        if record != before:
            write_text(work / RECORD, as_json(record))
    except FileExistsError:
        raise TinyGPTError(
            f"{work} is not a folder, and your copy of the notebooks goes there; rename it"
        ) from None
    except OSError as error:
        raise TinyGPTError(
            f"{error.filename or work}: {error.strerror}; your copy of the notebooks goes to "
            f"{work}, which must be a folder that you can write to. Nothing in it was lost"
        ) from error
    return [message for message in messages if message]


def _copy(source: Path, mine: Path, record: dict[str, str]) -> str:
    """Bring one notebook up to date, if it is not the learner's; returns a message or nothing."""
    if mine.is_dir():
        return f"{mine.name} is a folder; rename it and start again to get the notebook."
    version, state = sha256(source), sha256(mine) if mine.exists() else None
    if state == version:
        record[source.name] = version
    elif state in (None, EMPTY, record.get(source.name)):
        with atomic_path(mine) as new:
            shutil.copyfile(source, new)
        record[source.name] = version
    elif not _is_whole(mine):
        return (
            f"{mine.name} is damaged and will not open; it is kept. To get a new one, rename it "
            f"and start again."
        )
    elif record.get(source.name) != version:
        return (
            f"{mine.name} has a newer version; yours is kept. To get the new one, rename "
            f"yours and start again."
        )
    return ""


def _is_whole(notebook: Path) -> bool:
    """Whether JupyterLab can read it: half a file is no JSON."""
    try:
        json.loads(notebook.read_bytes())
    except (ValueError, RecursionError):
        return False
    return True


def _read_record(path: Path) -> dict[str, str]:
    """What was copied; a lost or damaged record counts as none, so that nothing is overwritten."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, RecursionError):
        return {}
    whole = isinstance(record, dict) and all(isinstance(v, str) for v in record.values())
    return record if whole else {}


def open_lab(flags: list[str]) -> int:
    """Fetch the text, make the working copy, open JupyterLab on its first notebook.

    `flags` go to JupyterLab as they are (`--no-browser`, `--port 9999`).
    """
    if INSTALLED:
        raise ConfigError(
            "the notebooks are in the course's repository, not in what pip installs; clone it, and "
            "in its folder run: pip install -r requirements.txt, python -m tinygpt lab"
        )
    others = os.environ.get("JUPYTER_CONFIG_PATH")
    os.environ["JUPYTER_CONFIG_PATH"] = os.pathsep.join([str(QUIET), *[others] * bool(others)])
    try:
        with waiting("loading JupyterLab"):
            from jupyterlab.labapp import main
    except ImportError as error:
        raise TinyGPTError(
            f"JupyterLab cannot be started ({error}); install it: pip install -r requirements.txt"
        ) from error
    if not {"-h", "--help", "--help-all", "--version"} & set(flags):
        for message in make_working_copy():
            print(message, flush=True)
        with waiting("reading tinyshakespeare"):
            print(load_corpus("tinyshakespeare", fallback="tinyplays"), flush=True)
    start = WORK / "00_start_here.ipynb"
    # the whole repository is served, so that the notebooks find their pictures
    arguments = [str(start), f"--ServerApp.root_dir={ROOT}"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        arguments.append("--allow-root")  # as in most containers
    return main([*arguments, *flags]) or 0
