"""What the command line takes: the flags of each command, and how they are read."""

import difflib
import io
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from typing import Annotated, Literal, TypeVar

import tyro
from tyro.conf import AvoidSubcommands, Positional, arg

from .config import ModelConfig, TrainConfig
from .console import program
from .errors import ConfigError
from .files import WORKSPACE

Arguments = TypeVar("Arguments")


@dataclass(frozen=True)
class DataArgs:
    """Fetch a text, and show what it holds."""

    corpus: Positional[str] = "tinyshakespeare"
    """tinyshakespeare, tinyplays, or file:PATH"""


@dataclass(frozen=True)
class StartArgs:
    """The flags of `train` that say what the others start from, or that only some starts allow.

    None: not given.
    """

    preset: str | None = None
    resume: str | None = None
    out: str | None = None
    max_steps: int | None = None
    vocab_size: int | None = None


@dataclass(frozen=True)
class TrainArgs:
    """Train a model: a preset, then whatever flags change of it."""

    preset: str = "tiny"
    """where all other defaults come from; the command info lists them"""
    corpus: str | None = None
    """tinyshakespeare, tinyplays, or file:PATH; default: the preset's"""
    out: str | None = None
    """folder of the run; default: a new one under checkpoints/, named after the preset"""
    resume: str | None = None
    """go on with this run (a name under checkpoints/, or a path)"""
    model: Annotated[AvoidSubcommands[ModelConfig], arg(name="")] = field(
        default_factory=ModelConfig
    )
    train: Annotated[TrainConfig, arg(name="")] = field(default_factory=TrainConfig)


@dataclass(frozen=True)
class GenerateArgs:
    """Write text with a trained model."""

    run: Annotated[Positional[str], arg(metavar="RUN")]
    """a name under checkpoints/, or a path"""
    prompt: str = "\n"
    max_new_tokens: int = 500
    temperature: float = 0.8
    """0: always the most probable character; 1: the model's own distribution"""
    seed: int | None = None
    which: str = "best"
    """best (lowest validation loss) or latest"""
    device: str = "auto"


@dataclass(frozen=True)
class BenchmarkArgs:
    """Measure speed on this machine."""

    what: Positional[Literal["step", "decoding", "moe", "scale", "time-to-loss"]] = "step"
    """a training step or writing against transformers; experts against none; the cost of a
    token as context, experts and batch grow; the quickest recipe to a loss, trick by trick"""
    preset: str = "nanogpt-cpu"
    """the model of the training step"""
    rounds: int | None = None
    """default: 50 steps, 3 texts, 20 steps with experts, 10 of each size, 5 seeds"""
    threads: int | None = None
    """CPU threads; default: torch's choice"""
    device: str = "auto"
    runs: str = str(WORKSPACE / "checkpoints" / "speedrun.csv")
    """the finished runs of time-to-loss: what is in this file is not made again"""
    out: str | None = None
    """also write the figures, with the machine and the command, to this JSON file"""
    plot: str | None = None
    """of scale: also draw the costs, into this PNG or SVG file"""


@dataclass(frozen=True)
class CompareArgs:
    """Train the arms of a study with several seeds, and say what differs; or compare runs."""

    runs: Annotated[Positional[tuple[str, ...]], arg(metavar="[RUN ...]")] = ()
    """runs of your own to compare, in the place of a study: names under checkpoints/, or paths"""
    size: Literal["notebook", "laptop", "baby"] | None = None
    """of the models of a study; default: notebook. baby is trained on a CUDA device only"""
    arms: tuple[str, ...] = ()
    """which of them; default: those of the size"""
    seeds: int | None = None
    """runs of each arm; default: 12, of the larger sizes 3"""
    until: Literal["report", "costs", "sweep", "runs"] = "runs"
    """how far to go with what is missing: not at all, the time of an update, learning rates, all"""
    corpus: str = "tinyshakespeare"
    """tinyshakespeare, tinyplays, or file:PATH"""
    device: str = "auto"
    """default: that of the runs so far, else CUDA when present"""
    compile: bool = False
    """torch.compile: slow start, faster steps"""
    out: str = str(WORKSPACE / "checkpoints" / "study")
    """folder of the tables: what is in them is not made again; processes may share it"""


@dataclass(frozen=True)
class VerifyArgs:
    """Compute the validation loss of runs anew, and compare it with what they say of themselves.

    Exit code 1: a loss differs by more than 0.001 nats; 3: a text is not here; 2: anything else.
    """

    runs: Annotated[Positional[tuple[str, ...]], arg(metavar="[RUN ...]")] = ()
    """names under checkpoints/, or paths; default: all shipped runs"""


@dataclass(frozen=True)
class InfoArgs:
    """What this machine has; with a name, what that preset or run is."""

    name: Annotated[Positional[str | None], arg(metavar="[NAME]")] = None


def read_arguments(
    kind: type[Arguments],
    command: str,
    arguments: Sequence[str],
    default: Arguments | None = None,
) -> Arguments:
    """The arguments of a command; `ConfigError` says in one line what is wrong with them.

    `--help` prints the flags and raises `SystemExit`.
    """
    given = {} if default is None else {"default": default}
    return _one_line(tyro.cli, kind, args=arguments, prog=f"{program()} {command}", **given)


def read_start(arguments: Sequence[str]) -> tuple[StartArgs, list[str]]:
    """Which of the flags in `StartArgs` were given to `train`, and what else there is."""
    return _one_line(
        tyro.cli,
        StartArgs,
        args=arguments,
        prog=f"{program()} train",
        add_help=False,
        return_unknown_args=True,
    )


def did_you_mean(name: str, names: dict[str, Iterable[str]]) -> str:
    """The end of a message: what is spelt nearly alike, of each kind of names; or nothing.

    >>> did_you_mean("tinny", {"the preset": ["tiny"], "the run": ["mine"]})
    '; did you mean the preset tiny?'
    """
    near = [
        f"{kind} {match}".lstrip()
        for kind, known in names.items()
        for match in difflib.get_close_matches(name[:100], list(known), n=1)
    ]
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _one_line(parse: Callable, *args, **options):
    """Call the parser; the box of many lines in which it says what is wrong becomes one line."""
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            return parse(*args, **options)
    except SystemExit as stop:
        if stop.code != 2:
            raise
        raise ConfigError(f"{_unboxed(said.getvalue())} ({options['prog']} --help)") from None


def _unboxed(box: str) -> str:
    """The text of a box with a title in its upper edge; lines divide it into parts."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", box)
    rows = [row.strip(" │|") for row in plain.splitlines() if row and row[0] not in "╭╰+"]
    parts = re.split(r"\n─+\n", "\n".join(rows))
    asides = ("For full helptext", "Argument helptext")
    wanted = [" ".join(part.split()) for part in parts if not part.startswith(asides)]
    return ". ".join(part.rstrip(".:") for part in wanted if part) or "these flags do not work"
