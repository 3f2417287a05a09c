"""How quick the updates of a training are."""

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
