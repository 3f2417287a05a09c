"""Files that are either whole or not there: atomic writes, checksums, checked downloads."""

import hashlib
import os
import shutil
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import CorpusError

ROOT = Path(__file__).resolve().parent.parent  # the repository
CHUNK = 1 << 20  # bytes read at a time


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
    """
    part = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(tries):
        try:
            _fetch(url, part, timeout)
            break
        except urllib.error.HTTPError as error:
            if error.code != 416:  # 416: the part is already the whole file
                _remove_if_empty(path.parent)
                raise CorpusError(f"could not download {url}: {error}") from error
            break
        except OSError as error:
            # without a first byte there is no connection to wait for
            if attempt == tries - 1 or not part.exists():
                _remove_if_empty(path.parent)
                raise CorpusError(f"could not download {url}: {error}") from error
            time.sleep(2**attempt)
    if (found := sha256(part)) != checksum:
        part.unlink()
        raise CorpusError(f"{url} has sha256 {found}, expected {checksum}; nothing was kept")
    os.replace(part, path)


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


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
    while chunk := read(CHUNK // 16):
        write(chunk)
        progress(len(chunk))
