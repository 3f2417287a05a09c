"""Files that are either whole or not there: atomic writes, checksums, locks, checked downloads."""

import errno
import hashlib
import http.client
import os
import secrets
import shutil
import socket
import stat
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from .errors import CorpusError

ROOT = Path(__file__).resolve().parent.parent  # the repository, or where packages are installed
INSTALLED = not all((ROOT / name).exists() for name in ("pyproject.toml", "notebooks"))
# where data/ and checkpoints/ lie: the repository, or without one the folder that Python began in
WORKSPACE = Path.cwd() if INSTALLED else ROOT
CHUNK = 1 << 16  # bytes read at a time
GLANCE = 0.3  # seconds


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


def download(url: str, path: Path, checksum: str, timeout: float = 15, tries: int = 3) -> None:
    """Fetch `url` into `path`, with a progress bar; a broken transfer goes on where it stopped.

    The content is checked against `checksum` (SHA-256) before `path` exists. `timeout` is in
    seconds without any byte arriving. Raises `CorpusError` when the content cannot be had.
    Processes that fetch the same at once do not disturb each other: what an earlier one left is
    taken by the first of them, and each writes a file of its own.
    """
    left = path.with_name(path.name + ".part")
    part = path.with_name(f"{path.name}.part{os.getpid()}")
    made = not path.parent.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with suppress(FileNotFoundError):
            os.replace(left, part)
        resumed = part.exists()
        _fetch_patiently(url, part, timeout, tries)
        if resumed and sha256(part) != checksum:  # an old part, of another version
            part.unlink()
            _fetch_patiently(url, part, timeout, tries)
        if (found := sha256(part)) != checksum:
            part.unlink()
            raise CorpusError(f"{url} has sha256 {found}, expected {checksum}; nothing was kept")
        os.replace(part, path)
    except (OSError, http.client.HTTPException) as error:
        raise CorpusError(f"could not download {url}: {error!r}") from error
    finally:
        with suppress(FileNotFoundError):
            os.replace(part, left)
        if made and not any(path.parent.iterdir()):
            path.parent.rmdir()


def _fetch_patiently(url: str, part: Path, timeout: float, tries: int) -> None:
    """Fetch, and try again where that can help: a busy server, a connection that broke."""
    for attempt in range(tries):
        try:
            return _fetch(url, part, timeout)
        except (OSError, http.client.HTTPException) as error:
            code = getattr(error, "code", None)
            if code == 416:  # the part is already the whole file
                return None
            # without an answer or a first byte there is nothing to wait for
            hopeless = code < 500 and code != 429 if code else not part.exists()
            if hopeless or attempt == tries - 1:
                raise
            time.sleep(2**attempt)
    return None


def _fetch(url: str, part: Path, timeout: float) -> None:
    from tqdm.auto import tqdm

    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        if answer.status != 206:  # the server starts from the beginning
            have = 0
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else None
        bar = tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=part.stem)
        with bar, open(part, "ab" if have else "wb") as file:
            _copy(answer.read, file.write, bar.update)
    if total is not None and part.stat().st_size < total:
        raise OSError(f"the connection ended after {part.stat().st_size} of {total} bytes")


def _copy(read: Callable, write: Callable, progress: Callable) -> None:
    while chunk := read(CHUNK):
        write(chunk)
        progress(len(chunk))
