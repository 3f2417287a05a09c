"""The commands in the order in which the usage lists them."""

from collections.abc import Callable, Sequence

from .benchmark import benchmark
from .compare import compare
from .data import data
from .generate import generate
from .info import info
from .lab import lab
from .train import train
from .verify import verify

Command = Callable[[Sequence[str]], int | None]

COMMANDS: dict[str, Command] = {
    command.__name__: command
    for command in (lab, data, train, generate, compare, verify, benchmark, info)
}
