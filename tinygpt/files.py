"""Files that are whole or not there: atomic writes, JSON, checksums, locks; where they lie."""

import errno
import hashlib
import json
import os
import secrets
import shutil
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from .errors import CheckpointError

ROOT = Path(__file__).resolve().parent.parent  # the repository, or where packages are installed
INSTALLED = not all((ROOT / name).exists() for name in ("pyproject.toml", "notebooks"))
# where data/ and checkpoints/ lie: the repository, or without one the folder that Python began in
WORKSPACE = Path.cwd() if INSTALLED else ROOT
GLANCE = 0.3  # seconds
LARGEST_JSON = 1 << 24  # bytes: no file that is read here comes near


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
    folder = path.is_dir()
    if folder and os.name == "nt":
        return  # Windows cannot open a folder
    descriptor = os.open(path, os.O_RDONLY if folder else os.O_RDWR)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not folder or error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise  # some file systems cannot flush a folder
    finally:
        os.close(descriptor)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; move it there once the block has ended well.

    Works for a file and for a folder that does not exist yet. A reader sees the old content or
    the new, never a half; after an error nothing is left behind, no empty folder above `path`
    either. Whatever wrote the files, they may be read by whom the umask lets.
    """
    missing = [folder for folder in path.parents if not folder.exists()]
    scratch = path.parent / f".tmp-{path.name}-{secrets.token_hex(4)}"
    new = scratch / path.name
    try:
        scratch.mkdir(parents=True)
        yield new
        readers = stat.S_IMODE(scratch.stat().st_mode) & 0o666
        for item in [new, *new.rglob("*")] if new.is_dir() else [new]:
            if not item.is_dir():
                item.chmod(readers)
            flush_to_disk(item)
        os.replace(new, path)
        for folder in [path, *missing]:
            flush_to_disk(folder.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        with suppress(OSError):  # those that hold something stay
            for folder in missing:
                folder.rmdir()


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically, with the same line ends on every system."""
    with atomic_path(Path(path)) as new:
        new.write_text(text, encoding="utf-8", newline="\n")


def as_json(content: Any) -> str:
    """JSON as it is written here, byte by byte."""
    return json.dumps(content, indent=1) + "\n"


def write_json(path: Path, content: Any) -> None:
    """Write JSON into a folder that as a whole is put in place; elsewhere `write_text` is due."""
    path.write_text(as_json(content), encoding="utf-8", newline="\n")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; `CheckpointError` for anything else."""
    try:
        if (size := path.stat().st_size) > LARGEST_JSON:
            raise ValueError(f"it has {size:,} bytes, and at most {LARGEST_JSON:,} are read")
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"it holds a {type(content).__name__} where a dict is due")
        return content
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def set_aside(path: Path) -> Path:
    """Rename a file to the first free name of NAME.1, NAME.2, …, which is returned."""
    names = (path.with_name(f"{path.name}.{n}") for n in count(1))
    aside = next(name for name in names if not os.path.lexists(name))
    return path.rename(aside)


def sweep_temporaries(folder: Path, name: str = "*") -> None:
    """Remove what killed processes left of `atomic_path(folder / name)`; patterns are allowed.

    Nobody may be writing there now: see `locked`.
    """
    for leftover in folder.glob(f".tmp-{name}-*"):
        shutil.rmtree(leftover, ignore_errors=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock, which is a file; the system frees it when its process dies, however it dies.

    `BlockingIOError`, which says by whom, if another process or thread holds it, and longer than
    to have a look; another `OSError` if there can be no lock here. The file stays: only who holds
    it matters.
    """
    lock, note = FileLock(path, thread_local=False), path.with_name(f"{path.name}-holder")
    try:
        lock.acquire(timeout=GLANCE)
    except Timeout:
        raise BlockingIOError(errno.EAGAIN, f"in use by {_holder(note)}", str(path)) from None
    except NotImplementedError as error:
        raise OSError(errno.ENOTSUP, f"no locks on this file system: {error}", str(path)) from error
    try:
        with suppress(OSError):  # a courtesy
            note.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield
    finally:
        with suppress(OSError):
            note.unlink()
        lock.release()


def _holder(note: Path) -> str:
    try:
        return note.read_text(encoding="utf-8") or "another process"
    except (OSError, ValueError):
        return "another process"


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
        print(f"waiting for another process that is at work on {folder}", flush=True)
        lock.acquire()
    except NotImplementedError as error:
        raise OSError(f"no locks on the file system of {folder}: {error}") from error
    try:
        yield
    finally:
        with suppress(OSError):  # Windows keeps what is open
            path.unlink()
        lock.release()
