"""`progress`: which exercises are solved."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from ..console import waiting
from ..errors import ConfigError
from .arguments import read_arguments


@dataclass(frozen=True)
class ProgressArgs:
    """Show which exercises of your copy of the notebooks are solved.

    Your functions are run anew, each for at most 20 seconds; the rest of a notebook is not.
    """

    where: Annotated[Positional[str | None], arg(metavar="[FOLDER]", help_behavior_hint="")] = None
    """a folder of notebooks, or one notebook; default: my_work, where `lab` puts your copy"""


def progress(arguments: Sequence[str]) -> None:
    """Show which exercises of your copy are solved."""
    args = read_arguments(ProgressArgs, "progress", arguments)

    from ..exercises import progress_table
    from ..lab import WORK

    if args.where == "":
        raise ConfigError("the name of the folder is empty; leave it away, or name one")
    if args.where is None and not WORK.is_dir():
        raise ConfigError(f"there is no {WORK} yet; `python -m tinygpt lab` makes it")
    with waiting("running your answers"):
        for line in progress_table(WORK if args.where is None else args.where):
            print(line, flush=True)
