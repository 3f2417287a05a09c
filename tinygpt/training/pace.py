"""How quick the updates of a training are: the median, and those since the last evaluation."""

import math
import statistics
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Pace:
    """The seconds of single updates since the training was started or resumed.

    Their median counts, without the first one: so neither what is compiled or recorded in the first
    ones is in it, nor evaluations, samples and saving, nor what else held the machine up.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter):
        self._clock, self._seconds = clock, array("d")

    @contextmanager
    def update(self) -> Iterator[None]:
        """Time one update."""
        start = self._clock()
        yield
        self._seconds.append(self._clock() - start)

    def seconds(self) -> float:
        """Of the median update; nan if none was made."""
        return statistics.median(self._seconds[1:] or self._seconds or [math.nan])

    def tokens_per_s(self, tokens_per_step: int) -> float | None:
        """Of the median update; None if none was made."""
        seconds = self.seconds()
        return None if math.isnan(seconds) else tokens_per_step / seconds


class Stretch:
    """The updates from one evaluation to the next, and their time, from now on."""

    def __init__(self, step: int, tokens_per_step: int):
        self._from, self._tokens, self._start = step, tokens_per_step, time.perf_counter()

    def seconds(self) -> float:
        """Since it began."""
        return time.perf_counter() - self._start

    def tokens_per_s(self, step: int) -> float:
        """The mean speed up to an update."""
        return self._tokens * (step - self._from) / self.seconds()
