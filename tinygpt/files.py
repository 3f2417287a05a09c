"""Files that are either whole or not there: atomic writes, checksums, checked downloads."""

import hashlib
import http.client
import os
import shutil
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import CorpusError

ROOT = Path(__file__).resolve().parent.parent  # the repository
CHUNK = 1 << 16  # bytes read at a time


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
