"""Files that are either whole or not there: atomic writes, checksums, locks; where they lie."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

ROOT = Path(__file__).resolve().parent.parent  # the repository, or where packages are installed
INSTALLED = not all((ROOT / name).exists() for name in ("pyproject.toml", "notebooks"))
# where data/ and checkpoints/ lie: the repository, or without one the folder that Python began in
WORKSPACE = Path.cwd() if INSTALLED else ROOT


def resolve(path: str | Path, home: Path | None = None) -> Path:
    """The absolute path that is meant: a relative one starts at the current folder, ~ is known.

    With `home`, a bare name is that of something in there, as runs are named: `mine`, not `./mine`.
    """
    given = os.path.expanduser(path)
    bare = given not in ("", ".", "..") and Path(given).name == given
    return Path(home if home and bare else "", given).absolute()


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush_to_disk(path: Path) -> None:
    """Make a file's (on POSIX also a folder's) content survive a power cut."""
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot open a folder
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; move it there once the block has ended well.

    Works for a file and for a folder that does not exist yet. A reader sees the old content or
    the new, never a half; after an error nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".tmp-{path.name}-", dir=path.parent))
    new = scratch / path.name
    try:
        yield new
        for item in [new, *new.rglob("*")] if new.is_dir() else [new]:
            flush_to_disk(item)
        os.replace(new, path)
        flush_to_disk(path.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically, with the same line ends on every system."""
    with atomic_path(Path(path)) as new:
        new.write_text(text, encoding="utf-8", newline="\n")


def sweep_temporaries(folder: Path) -> None:
    """Remove what a killed process left of `atomic_path` in a folder."""
    for leftover in folder.glob(".tmp-*"):
        shutil.rmtree(leftover, ignore_errors=True)


@contextmanager
def alone(folder: Path, wait: bool = True) -> Iterator[None]:
    """Of all processes and threads one at a time is in such a block with this folder.

    The others wait until it is done or dead, or get a `Timeout` with `wait=False`. The lock is a
    file beside the folder, which may itself not exist; the system frees it with its process.
    """
    path = folder.with_name(f".{folder.name}.lock")
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if not wait:
            raise
        print(f"waiting for another process that is at work on {folder}")
        lock.acquire()
    except NotImplementedError as error:
        raise OSError(f"no locks on the file system of {folder}: {error}") from error
    try:
        yield
    finally:
        with suppress(OSError):  # Windows keeps what is open
            path.unlink()
        lock.release()
