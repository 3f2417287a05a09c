"""What takes long follows when the notebook has a moment, so that a control never feels stuck."""

import asyncio
import time
from collections.abc import Callable, Iterator


class Text:
    """A continuation that is written as far as it is wanted, and can be taken up again."""

    def __init__(self, pieces: Iterator[str]):
        self.pieces, self.text = pieces, ""

    def grow(self, length: int) -> Iterator[None]:
        """Write up to a length, and yield after each character."""
        while len(self.text) < length:
            self.text += next(self.pieces)
            yield


class Later:
    """Work that yields: in slices while a notebook has other things to do, else at once.

    Only the newest work counts; what is still being done is given up.
    """

    def __init__(self):
        self._task: asyncio.Task | None = None
        self._work: Callable[[], Iterator[None]] | None = None

    def start(self, work: Callable[[], Iterator[None]], at_once: bool = False) -> bool:
        """Do `work()`; whether it was put off. In plain Python it never is."""
        self.stop()
        self._work = work
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # plain Python
            at_once = True
        if at_once:
            _exhaust(work())
        else:
            self._task = loop.create_task(in_slices(work()))
        return not at_once

    def stop(self) -> None:
        """Give up what was put off."""
        if self._task:
            self._task.cancel()
        self._task = None

    def finish(self) -> None:
        """Do at once what was put off."""
        if self._task:
            self.stop()
            _exhaust(self._work())


def _exhaust(work: Iterator[None]) -> None:
    for _ in work:
        pass


async def in_slices(work: Iterator[None], seconds: float = 0.02) -> None:
    """Do work that yields, and let the notebook answer its user in between."""
    pause = time.monotonic() + seconds
    for _ in work:
        if time.monotonic() > pause:
            await asyncio.sleep(0)
            pause = time.monotonic() + seconds
