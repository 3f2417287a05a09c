"""Set-ups for other machines, tried on this one: a fresh environment from exactly their files, in a
copy of the repository, which then runs notebook 00.

python -m tests.setups devcontainer | binder | colab

What is not there is left away: containers, and the index of torch's builds for CPUs where it cannot
be reached; Python is the one that runs this, unless PYTHON names another.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import nbformat

from tinygpt.files import ROOT

START = "00_start_here.ipynb"
INDEX = "https://download.pytorch.org/whl/cpu"
PYTHON = os.environ.get("PYTHON", sys.executable)
ADDRESS = "ADDRESS"  # of the repository, in the README's cell for Colab
# of a network that stumbles or hangs: pip tries again; and no command goes on for ever
NETWORK = {"PIP_RETRIES": "10", "PIP_DEFAULT_TIMEOUT": "60"}
LONGEST = 1800  # seconds
OURS = ("PYTHONPATH", "VIRTUAL_ENV", "PYTHONHOME")
MEASURE = (
    "import resource, subprocess, sys; subprocess.check_call(sys.argv[1:]); "
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
)


def devcontainer(copy: Path) -> Path:
    """What `.devcontainer/devcontainer.json` runs when a container is made; gives its Python."""
    content = json.loads((copy / ".devcontainer" / "devcontainer.json").read_text())
    names = copy.parent / "bin"
    names.mkdir()
    (names / "python3").symlink_to(PYTHON)
    env = _environment() | content["containerEnv"]
    if not _reachable(env["PIP_EXTRA_INDEX_URL"]):
        del env["PIP_EXTRA_INDEX_URL"]
    env["PATH"] = f"{names}{os.pathsep}{env['PATH']}"
    for command in ("updateContentCommand", "postCreateCommand"):
        _run(["bash", "-c", content[command]], copy, env)
    assert (copy / "my_work" / START).is_file()
    return copy / ".venv" / "bin" / "python"


def binder(copy: Path) -> Path:
    """As repo2docker does: the requirements from the repository's folder, then `postBuild`."""
    requirements = copy / ".binder" / "requirements.txt"
    if not _reachable(INDEX):
        text = requirements.read_text()
        assert f"--extra-index-url {INDEX}\n" in text
        requirements.write_text(text.replace(f"--extra-index-url {INDEX}\n", ""))
    python, env = _venv(copy)
    pip = [str(python), "-m", "pip", "install", "--no-cache-dir", "-r", ".binder/requirements.txt"]
    _run(pip, copy, env)
    env |= {"NB_PYTHON_PREFIX": str(python.parent.parent)}
    env["PATH"] = f"{python.parent}{os.pathsep}{env['PATH']}"
    _run([".binder/postBuild"], copy, env)
    settings = python.parent.parent / "share/jupyter/lab/settings/overrides.json"
    assert "fetchNews" in settings.read_text()
    return python


def colab(copy: Path) -> Path:
    """The libraries that Colab has, and the README's first cell, which clones the repository.

    Torch may be any of the range that the package takes.
    """
    python, env = _venv(copy)
    listed = (copy / "tests" / "colab.txt").read_text().splitlines()
    pinned = [line for line in listed if line[:1] not in "#" and not line.startswith("torch=")]
    _run([str(python), "-m", "pip", "install", "torch>=2.11,<2.14", *pinned], copy, env)
    for command in ("init", "add .", "-c user.name=x -c user.email=x commit --quiet -m copy"):
        _run(["git", *command.split()], copy, env)
    readme = (copy / "README.md").read_text(encoding="utf-8")
    (cell,) = re.findall(r"<!-- colab cell -->\n+```python\n(.*?)\n```", readme, flags=re.S)
    notebook = nbformat.read(copy / "notebooks" / START, as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(cell.replace(ADDRESS, f"file://{copy}")))
    shutil.rmtree(copy / "notebooks")  # the clone has them: only one notebook is there at first
    (copy / "notebooks").mkdir()
    nbformat.write(notebook, copy / "notebooks" / START)
    return python


def run_notebook(python: Path, folder: Path, name: str = START) -> float:
    """Run a notebook; gives the most memory that one of its processes took, in GB."""
    command = ["-m", "jupyter", "nbconvert", "--to", "notebook", "--execute", "--stdout", name]
    env = _environment() | {"IPYTHONDIR": str(folder / ".ipython")}
    done = subprocess.run(
        [python, "-c", MEASURE, python, *command], cwd=folder, env=env, stdout=subprocess.PIPE
    )
    assert done.returncode == 0, f"{name} stopped"
    *notebook, kilobytes = done.stdout.decode().rstrip().splitlines()
    assert "ready" in "".join(notebook)
    return int(kilobytes) * 1024 / 1e9


def tried(form: Callable[[Path], Path]) -> float:
    """The memory that notebook 00 takes in a fresh copy and environment of this form, in GB."""
    with tempfile.TemporaryDirectory() as folder:
        copy = copied(Path(folder) / "course")
        return run_notebook(form(copy), copy / "notebooks")


def copied(place: Path) -> Path:
    """The files of the repository, as far as git knows or would take them."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, place / name)
    return place


def _venv(copy: Path) -> tuple[Path, dict[str, str]]:
    env, folder = _environment(), copy.parent / "environment"
    _run([PYTHON, "-m", "venv", str(folder)], copy, env)
    return folder / "bin" / "python", env


def _environment() -> dict[str, str]:
    """This process's, without what would let its own environment shine through."""
    return NETWORK | {name: value for name, value in os.environ.items() if name not in OURS}


def _reachable(url: str) -> bool:
    try:
        socket.create_connection((urlsplit(url).hostname, 443), timeout=5).close()
    except OSError:
        return False
    return True


def _run(command: list[str], folder: Path, env: dict[str, str]) -> None:
    print("+", " ".join(command), flush=True)
    options = {"stdout": subprocess.DEVNULL, "check": True, "timeout": LONGEST}
    subprocess.run(command, cwd=folder, env=env, **options)


if __name__ == "__main__":
    for form in map(
        {"devcontainer": devcontainer, "binder": binder, "colab": colab}.get, sys.argv[1:]
    ):
        print(f"{form.__name__}: notebook 00 runs, in {tried(form):.2f} GB")
