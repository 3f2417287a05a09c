"""Widgets that follow their controls, in whatever thread these are moved."""

import asyncio
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import ipywidgets as widgets

from ..plots import Picture
from . import frame

STILL = "This is a still picture of it: run the cell to use it."
Result = TypeVar("Result")
SLICE = 0.02  # seconds of work, before the notebook has its turn


class Text:
    """A continuation that is written as far as it is wanted, and can be taken up again."""

    def __init__(self, open_stream: Callable[[], Iterator[int]]):
        self.tokens: list[int] = []
        self.ended = False  # by an end of the text
        self._open, self._stream = open_stream, open_stream()

    def grow(self, length: int) -> Iterator[None]:
        """Write up to so many tokens, and yield after each; the text may end before."""
        while len(self.tokens) < length and not self.ended:
            try:
                token = next(self._stream, None)
                if token is None:
                    self.ended = True
                else:
                    self.tokens.append(token)
            except BaseException:  # a stream that was broken off, by Ctrl-C say, cannot go on
                self.tokens, self._stream = [], self._open()
                raise
            yield


def drained(work: Generator[None, None, Result]) -> Result:
    """Do all of a work that yields, and give what it returns."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


class Later:
    """Work that yields, done anew from its newest start: in the loop of the cell that made it.

    JupyterLab's kernel answers a control in another thread, which has a loop of its own. `start`
    only wakes the first one, where a task does the work in slices. In that loop's own thread the
    first step, up to the first yield, is done at once; in plain Python, without a loop, all is.

    What the work shares with other threads, they touch under `lock`, which each step holds.
    """

    def __init__(self, work: Callable[[], Iterator[None]]):
        self.lock = threading.RLock()
        self._work = work
        self._loop = _running_loop()
        self._task: asyncio.Task | None = None
        self._wanted = False  # started since the work was last begun
        self._steps: Iterator[None] = iter(())
        self._inside = False  # a step

    @property
    def alive(self) -> bool:
        """Whether the cell's loop runs, so that there are slices."""
        return self._loop is not None and self._loop.is_running()

    def start(self) -> None:
        """Do `work()`; what is still being done is given up."""
        self._wanted = True
        if not self.alive:
            self.finish()
        elif _running_loop() is self._loop:
            self._step()
            self._wake()
        else:
            self._wake_from_outside()

    def finish(self) -> None:
        """Do at once, in this thread, what is still to be done."""
        while self._step():
            pass

    def _wake(self) -> None:
        """See to it that there is a task; only in the loop's own thread."""
        if self._task is None or self._task.done():
            self._task = self._loop.create_task(self._in_slices())

    def _wake_from_outside(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._wake)
        except RuntimeError:  # it was closed just now
            self.finish()

    async def _in_slices(self) -> None:
        pause = time.monotonic() + SLICE
        while self._step():
            if time.monotonic() > pause:
                await asyncio.sleep(0)
                pause = time.monotonic() + SLICE

    def _step(self) -> bool:
        """Do a step of the newest work; whether there was any."""
        with self.lock:
            if self._inside:  # somebody looks on while a picture is drawn, and asks for the end
                return False
            self._inside = True
            try:
                if self._wanted:
                    self._wanted, self._steps = False, self._work()
                return next(self._steps, _END) is not _END or self._wanted
            finally:
                self._inside = False


_END = object()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:  # plain Python
        return None


class Live(widgets.VBox):
    """A widget whose views follow its controls; what is wrong is said in a line above them.

    There is one way for all: a control that is moved lets others follow (`_follow`), and starts
    `_work` in the loop of the cell that made the widget. The work reads the controls once, draws
    what is quick, yields, and goes on with what takes time. So models and pictures are touched in
    one thread only, and the newest state of the controls is what is drawn in the end.

    A notebook shows the widget itself. A reader without a kernel, as on a page or before anything
    is run, gets the sentence `about` and the figure `still()`.
    """

    box = staticmethod(frame.box)
    about = ""

    def __init__(
        self, above: Sequence[widgets.Widget], views: Sequence[widgets.Widget], style: str = ""
    ):
        self.message = widgets.HTML()
        self._pictures: dict[widgets.HTML, str] = {}  # the last good ones
        self._error: Exception | None = None
        self._results: dict = {}
        self._moving = False
        self._later = Later(self._guarded)
        super().__init__(
            [widgets.HTML(frame.STYLE + style + frame.NAMES_AND_KEYS), *above, self.message, *views]
        )
        self.add_class("tg-live")

    def _live_by(self, *controls: widgets.Widget) -> None:
        """Draw all, and from now on whenever one of these is moved."""
        self._later.start()
        self._later.finish()
        for control in controls:
            control.observe(self._moved, names="value")

    def finish(self) -> None:
        """Do at once what is still being done."""
        self._later.finish()

    def still(self) -> Picture:
        """What the widget shows now, as a figure that does not move."""
        raise NotImplementedError

    def save_page(self, path: str | Path) -> Path:
        """Write the widget into one HTML file, which moves without Python and without a network.

        What it shows is fixed now: the model is not in it. Gives the path. Raises the error that is
        shown, if there is one.
        """
        with self._later.lock:
            self._found()
            return self._save_page(Path(path))

    def _save_page(self, path: Path) -> Path:
        raise NotImplementedError

    def _repr_mimebundle_(self, **kwargs) -> dict:
        bundle = super()._repr_mimebundle_(**kwargs)
        words, image, found = f"{self.about} {STILL}", "", ""
        if self._error is None:
            picture = self.still()
            image, found = picture.image, f" {picture.alt}"
        page = f"<p>{frame.safe(words)}</p>{image}"
        return bundle | {"text/html": page, "text/plain": f"{words}{found}"}

    def _found(self) -> dict:
        """What the work left in `_results`, of the newest state; its error is raised."""
        with self._later.lock:
            self._later.finish()
            if self._error:
                raise self._error
            return self._results

    def _moved(self, change) -> None:
        with self._later.lock:
            if self._moving:  # by this widget itself
                return
            with self._quietly():
                self._follow(change)
        self._later.start()

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        """Controls that are set in here start nothing."""
        with self._later.lock:
            self._moving = True
            try:
                yield
            finally:
                self._moving = False

    def _follow(self, change) -> None:
        """Let other controls follow the one that was moved, `change["owner"]`."""

    def _work(self) -> Iterator[None]:
        """Draw what the controls say; yield where the notebook may have its turn."""
        raise NotImplementedError

    def _guarded(self) -> Iterator[None]:
        """The work; an error, which nobody would see in a task, is drawn."""
        try:
            for _ in self._work():
                self._well()
                yield
            self._well()
        except Exception as error:
            self._complain(error)

    def _show(self, view: widgets.HTML, content: str) -> None:
        self._pictures[view] = content
        view.value = self.box(content)

    def _wait(self, view: widgets.HTML) -> None:
        """Show that a view is not of today, but soon will be."""
        view.value = self.box(self._pictures.get(view, ""), "pending")

    def _well(self) -> None:
        self._error, self.message.value = None, ""

    def _complain(self, error: Exception) -> None:
        """Say what is wrong; what was drawn last stays, pale."""
        self._error = error
        self.message.value = frame.error_line(frame.explained(error), drawn=bool(self._pictures))
        for view, content in self._pictures.items():
            view.value = self.box(content, "old")
