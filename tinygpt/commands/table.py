"""The commands in the order in which the usage lists them."""

from collections.abc import Callable, Sequence

from .benchmark import benchmark
from .compare import compare
from .data import data
from .export import export
from .generate import generate
from .info import info
from .lab import lab
from .progress import progress
from .routing import routing
from .train import train
from .upcycle import upcycle
from .verify import verify

Command = Callable[[Sequence[str]], int | None]

COMMANDS: dict[str, Command] = {
    command.__name__: command
    for command in (
        lab,
        progress,
        data,
        train,
        generate,
        upcycle,
        export,
        compare,
        verify,
        benchmark,
        routing,
        info,
    )
}
