"""Ctrl-C and SIGTERM, noted and acted upon when a good moment comes."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def noted_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying of them; a second one acts at once.

    One that is ignored (`nohup`, `&`) stays so.
    """
    caught: list[int] = []

    def note(signum: int, frame: object) -> None:
        if caught:
            act_on(signum)
        caught.append(signum)

    # only the main thread may set handlers; elsewhere signals act as usual
    main = threading.current_thread() is threading.main_thread()
    both = [signal.SIGINT, signal.SIGTERM] if main else []
    heeded = [s for s in both if signal.getsignal(s) is not signal.SIG_IGN]
    old = {s: signal.signal(s, note) for s in heeded}
    try:
        yield caught
    finally:
        for signum, handler in old.items():
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)  # None: not ours


def act_on(signum: int) -> None:
    """Do what the signal asked for: `SystemExit` (143) for SIGTERM, else `KeyboardInterrupt`."""
    if signum == signal.SIGTERM:
        raise SystemExit(128 + signum)
    raise KeyboardInterrupt
