"""The process of the command line: how it was called, its output, its end when it is asked to.

Importing torch takes a second or two, in which Ctrl-C would end in a traceback. So this file is
the package's first import, and sees to that. In a notebook, a test or another program it changes
nothing.
"""

import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path

ENDING = (signal.SIGINT, signal.SIGTERM)
SOON = 1.0  # seconds that one waits without a word


def program() -> str:
    """What to type for the command line: `tinygpt`, if it was called so."""
    return "tinygpt" if Path(sys.argv[0]).stem == "tinygpt" else "python -m tinygpt"


def begin() -> threading.Timer | None:
    """If this process is our command: let Ctrl-C and SIGTERM end it at once with 130 and 143.

    Says what is waited for while the package is imported, until `loaded`.
    """
    called = getattr(sys, "argv", [])
    if not called or threading.current_thread() is not threading.main_thread():
        return None
    # while the package is imported by `python -m tinygpt`, argv[0] is still "-m"
    if called[0] == "-m":
        ours = sys.orig_argv[-len(called)] in ("tinygpt", "-mtinygpt")
    else:
        ours = Path(called[0]).stem == "tinygpt"
    if not ours:
        return None
    _handle(lambda signum, frame: os._exit(128 + signum))
    return _announced("loading torch")


def loaded() -> None:
    """The package is imported: nobody waits for that any more."""
    if _BEGUN is not None:
        _BEGUN.cancel()


@contextmanager
def ending_signals() -> Iterator[None]:
    """Ctrl-C raises `KeyboardInterrupt` and SIGTERM `SystemExit` (143), so that all is tidied."""
    main = threading.current_thread() is threading.main_thread()
    old = _handle(_end) if main else {}
    try:
        yield
    finally:
        for signum, handler in old.items():
            signal.signal(signum, handler)


def _end(signum: int, frame: object) -> None:
    if signum == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + signum)


def _handle(handler) -> dict:
    """Set a handler, but of no signal that is ignored (`nohup`, `&`); returns the former ones."""
    caught = [s for s in ENDING if signal.getsignal(s) is not signal.SIG_IGN]
    return {signum: signal.signal(signum, handler) for signum in caught}


# --- output ---


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Say on a terminal what is waited for, if it is not there after a second."""
    timer = _announced(what)
    try:
        yield
    finally:
        timer.cancel()


def _announced(what: str) -> threading.Timer:
    timer = threading.Timer(SOON, _say, [f"{what} …"])
    timer.daemon = True
    if os.environ.get("RANK", "0") == "0" and getattr(sys.stderr, "isatty", bool)():
        timer.start()
    return timer


def prepare_streams() -> None:
    """Output is UTF-8 whatever the console is, with "?" for what UTF-8 has not; a closed stream is
    nothing."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")


@contextmanager
def patient_output() -> Iterator[None]:
    """Let the work go on when its output fails (a closed pipe, a full disk); then raise that."""
    out, err = _Patient(sys.stdout), _Patient(sys.stderr)
    with redirect_stdout(out), redirect_stderr(err):
        yield
    for stream in (out, err):
        if stream.error:
            raise stream.error


class _Patient:
    """A stream that keeps its first error for later, and writes nothing after it."""

    def __init__(self, stream):
        self.stream, self.error = stream, None

    def write(self, text: str) -> int:
        self._try(self.stream.write, text)
        return len(text)

    def flush(self) -> None:
        self._try(self.stream.flush)

    def _try(self, act: Callable, *args) -> None:
        if self.error is None:
            try:
                act(*args)
            except OSError as error:
                self.error = error

    def __getattr__(self, name: str):
        return getattr(self.stream, name)


def drop_output() -> None:
    """Flush what was printed; what cannot be written is not tried again when Python ends."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def fail(message: str) -> int:
    """Say in one line what is wrong; returns the exit code."""
    drop_output()
    rank = os.environ.get("RANK", "0")  # which torchrun gives to each of its processes
    _say(f"error: {message}" if rank == "0" else f"process {rank}: error: {message}")
    return 2


@contextmanager
def one_line_warnings() -> Iterator[None]:
    """Say each warning once, in one line, without the line of code that it comes from."""
    said = set()

    def show(message: Warning, *where: object) -> None:
        if str(message) not in said:
            said.add(str(message))
            _say(f"warning: {message}")

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def describe_os_error(error: OSError) -> str:
    """What could not be read or written, and why."""
    what = "the output" if error.filename is None else str(error.filename)
    if len(what) > 200:
        what = f"{what[:100]}…{what[-20:]}"
    return f"cannot read or write {what}: {error.strerror or error}"


def is_too_large(error: Exception) -> bool:
    """Whether the sizes that were asked for are the fault; torch has no class of errors for it."""
    words = re.search("memory|overflow|storage size", str(error), re.IGNORECASE)
    return bool(words) or isinstance(error, (MemoryError, OverflowError))


def _say(message: str) -> None:
    try:
        print(re.sub(r"\s*\n\s*", " ", message), file=sys.stderr, flush=True)
    except OSError:
        drop_output()


_BEGUN = begin()
