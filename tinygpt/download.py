"""Checked downloads, which come to an end whatever the server does."""

import http.client
import io
import os
import re
import socket
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from urllib import request as web
from urllib.error import HTTPError, URLError

from .errors import CorpusError
from .files import alone, flush_to_disk, sha256
from .progress import progress

CHUNK = 1 << 16  # bytes read at a time
STALL = 15.0  # seconds that a server may be silent
PACE = 2_000  # bytes per second that have to come,
GRACE = 60.0  # and seconds that they may be late
TRIES = 3  # in a row that get no further
PATIENCE = 120.0  # seconds that a busy server may ask for


def download(url: str, path: Path, checksum: str, size: int) -> None:
    """Fetch the `size` bytes at `url` into `path`, with a progress bar.

    Their SHA-256 is `checksum` before `path` exists. What came of a broken transfer is kept beside
    it: the next try goes on there, or the next call. Of several processes one fetches, the others
    wait for its file. A server is followed for GRACE seconds, longer only while it sends PACE bytes
    per second, and never beyond `size`. Raises `CorpusError` when the content cannot be had.
    """
    try:
        path.parent.parent.mkdir(parents=True, exist_ok=True)
        with alone(path.parent):
            if not (path.is_file() and sha256(path) == checksum):  # another one fetched it
                _fetch_checked(url, path, checksum, size)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise CorpusError(f"could not download {url}: {error!r}") from error


def fetch_page(url: str, limit: int, agent: str) -> bytes:
    """The content at `url` whose checksum nobody knows, of at most `limit` bytes.

    `agent` says who asks. A busy server is asked again after the time that it wants, a broken
    transfer begins anew. `FileNotFoundError` if there is no such page, else `CorpusError`.
    """
    for left in reversed(range(TRIES)):
        try:
            return _fetch_whole(url, limit, agent, _Clock())
        except (OSError, http.client.HTTPException, ValueError) as error:
            if isinstance(error, HTTPError) and error.code in (404, 410):
                raise FileNotFoundError(f"there is no {url}") from error
            if not left or isinstance(error, ValueError) or _is_hopeless(error, False):
                raise CorpusError(f"could not download {url}: {error!r}") from error
            time.sleep(_asked_to_wait(error, url))
    raise AssertionError("the last try returns or raises")


def _fetch_whole(url: str, limit: int, agent: str, clock: "_Clock") -> bytes:
    content = bytearray()
    with _opened(url, clock, {"User-Agent": agent}) as answer:
        _check_identity(answer, url)
        while len(content) <= limit and (data := answer.read1(CHUNK)):
            content += data
            clock.credit(len(data))
        if len(content) > limit:
            raise CorpusError(f"{url} is longer than the {limit:,} bytes that were expected")
        if answer.length:
            raise OSError(f"the connection ended {answer.length:,} bytes too early")
    return bytes(content)


def _asked_to_wait(error: Exception, url: str) -> float:
    """Seconds until the next try: what the server asks for, else a few."""
    told = error.headers.get("Retry-After", "") if isinstance(error, HTTPError) else ""
    seconds = float(told) if told.isdecimal() else 2.0
    if seconds > PATIENCE:
        raise CorpusError(
            f"{url}: the server is busy and asks to come back in {seconds:,.0f} s; try again then"
        ) from error
    if told.isdecimal():
        print(f"the server asks to wait {seconds:g} s", flush=True)
    return seconds


def _fetch_checked(url: str, path: Path, checksum: str, size: int) -> None:
    part, made = path.with_name(path.name + ".part"), not path.parent.exists()
    path.parent.mkdir(exist_ok=True)
    clock = _Clock()
    try:
        open(part, "ab").close()  # a folder that cannot be written to shows at once
        if _length(part) > size:
            part.unlink()
        begun = _fetch_patiently(url, part, size, clock)
        if begun and sha256(part) != checksum:  # pieces of two versions
            part.unlink()
            _fetch_patiently(url, part, size, clock)
        if (found := sha256(part)) != checksum:
            part.unlink()
            raise CorpusError(f"{url} has sha256 {found}, expected {checksum}; nothing was kept")
        flush_to_disk(part)
        os.replace(part, path)
    finally:
        if not _length(part):
            part.unlink(missing_ok=True)
        if made:
            with suppress(OSError):  # there is something in it
                path.parent.rmdir()


def _fetch_patiently(url: str, part: Path, size: int, clock: "_Clock") -> int:
    """Fetch what is missing, and try again where that can help: the server is busy, the connection
    broke. A try that got further does not count. Returns where the last answer began.
    """
    start = furthest = _length(part)
    fruitless = 0
    while True:
        try:
            return _fetch(url, part, size, clock)
        except (OSError, http.client.HTTPException) as error:
            fruitless = fruitless + 1 if _length(part) <= furthest else 0
            furthest = max(furthest, _length(part))
            if fruitless == TRIES or _is_hopeless(error, furthest > start):
                raise
            time.sleep(2**fruitless / 4)


def _is_hopeless(error: Exception, was_connected: bool) -> bool:
    if isinstance(error, HTTPError):  # too slow, out of range, too many: not so for ever
        return error.code < 500 and error.code not in (408, 416, 429)
    return isinstance(error, URLError) and not was_connected  # this machine is offline


def _fetch(url: str, part: Path, size: int, clock: "_Clock") -> int:
    """One try: append to `part` what is missing; returns where the server began."""
    if (have := _length(part)) == size:
        return have
    try:
        answer = _opened(url, clock, {"Range": f"bytes={have}-"} if have else {})
    except HTTPError as error:
        if error.code == 416:  # nothing there to go on with
            part.write_bytes(b"")
        raise
    with answer:
        start = _start_of(answer, url, size)
        if start not in (0, have):
            part.write_bytes(b"")
            raise OSError(f"the server sends another part than the one asked for, from {have} on")
        left = size - start
        bar = progress(total=size, initial=start, unit="B", unit_scale=True, desc=part.stem)
        with bar, open(part, "ab" if start else "wb") as file:
            while left and (data := answer.read1(min(CHUNK, left))):
                file.write(data)
                left -= len(data)
                clock.credit(len(data))
                bar.update(len(data))
    if left:
        raise OSError(f"the connection ended after {_length(part)} of {size} bytes")
    return start


def _start_of(answer: http.client.HTTPResponse, url: str, size: int) -> int:
    """Where in the file an answer begins; -1 if it does not say. An error if it is another file."""
    _check_identity(answer, url)
    start, total = 0, answer.length
    if answer.status == 206:
        place = answer.headers.get("Content-Range", "")
        found = re.fullmatch(r"bytes (\d{1,18})-\d+/(\d{1,18}|\*)", place)
        start = int(found[1]) if found else -1
        total = int(found[2]) if found and found[2] != "*" else None
    elif answer.status != 200:
        raise OSError(f"the server answers {answer.status} {answer.reason}")
    if total is not None and total != size:
        raise CorpusError(
            f"could not download {url}: it is {total:,} bytes long, expected {size:,}. Is it "
            f"another version, or a page that wants a log-in?"
        )
    return start


def _check_identity(answer: http.client.HTTPResponse, url: str) -> None:
    encoding = answer.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        raise CorpusError(f"could not download {url}: it is sent as {encoding}, though not asked")


def _length(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


# --- connections with a time limit for the whole, where sockets know one per packet --------------


class _Clock:
    """When a download has fallen too far behind: GRACE seconds from now, if bytes keep coming."""

    def __init__(self):
        self._end = time.monotonic() + GRACE

    def credit(self, count: int) -> None:
        """So many bytes came."""
        self._end = min(self._end + count / PACE, time.monotonic() + GRACE)

    def patience(self) -> float:
        """Seconds to wait for the next byte; `TimeoutError` when the time is up."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"{GRACE:g} s behind {PACE} bytes per second")
        return min(STALL, left)


class _Timed(io.RawIOBase):
    """The bytes of a socket; each wait for more is as long as the clock allows."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, clock: _Clock):
        self._raw, self._sock, self._clock = raw, sock, clock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int | None:
        self._sock.settimeout(self._clock.patience())
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Answer(http.client.HTTPResponse):
    """An answer that is timed from the first byte of its head."""

    def __init__(self, sock: socket.socket, *args, clock: _Clock, **named):
        super().__init__(sock, *args, **named)
        self.fp = io.BufferedReader(_Timed(self.fp.detach(), sock, clock))


class _Connect(web.HTTPSHandler, web.HTTPHandler):
    """Connections whose answers are timed."""

    def __init__(self, clock: _Clock):
        super().__init__()
        self._clock = clock

    def do_open(self, kind, request, **options):
        def connect(*args, **named) -> http.client.HTTPConnection:
            connection = kind(*args, **named)
            connection.response_class = partial(_Answer, clock=self._clock)
            return connection

        return super().do_open(connect, request, **options)


class _Redirect(web.HTTPRedirectHandler):
    """Follows a redirection without reading the page that goes with it, which may have no end."""

    max_redirections = 5

    def http_error_302(self, request, answer, code, message, headers):
        answer.close()
        return super().http_error_302(request, io.BytesIO(), code, message, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def _opened(url: str, clock: _Clock, headers: dict[str, str]) -> http.client.HTTPResponse:
    """The answer to a request; an `HTTPError` is closed before it is raised."""
    try:
        return _ask(url, clock, headers)
    except HTTPError as error:
        error.close()
        raise


def _ask(url: str, clock: _Clock, headers: dict[str, str]) -> http.client.HTTPResponse:
    opener = web.OpenerDirector()
    errors = (web.UnknownHandler(), web.HTTPDefaultErrorHandler(), web.HTTPErrorProcessor())
    for handler in (web.ProxyHandler(), _Connect(clock), _Redirect(), *errors):
        opener.add_handler(handler)
    return opener.open(web.Request(url, headers=headers), timeout=clock.patience())
