"""How the flags of a command are read, by tyro from a dataclass."""

import io
import re
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from typing import TypeVar

import tyro
from tyro.conf import UseAppendAction, arg

from ..console import program
from ..errors import ConfigError
from .names import did_you_mean

Arguments = TypeVar("Arguments")

# of a flag that may be left away, where the help says what happens then
Described = arg(help_behavior_hint="")

# how tyro says that a value is of none of several types, or none of the choices
NO_TYPE = r"^Error parsing (\S+): no type matching (\S+) could be instantiated from \['(.*?)'\].*"
CHOICE = r"^invalid choice '(.*?)' for argument \S+ Expected one of (.*)"
QUOTED = r"'(.*?)'"


def with_line_ends(text: str) -> str:
    """A text from the command line, in which a backslash and an n stand for a line end."""
    return text.replace("\\n", "\n")


def renamed(arguments: Sequence[str], names: dict[str, str]) -> list[str]:
    """The arguments with flags by other names, `{"grad-accum": "grad-accum-steps"}`.

    For flags of the settings themselves, which know nothing of the command line.
    """

    def rename(word: str) -> str:
        flag, equals, value = word.partition("=")
        name = names.get(flag[2:].replace("_", "-")) if flag.startswith("--") else None
        return f"--{name}{equals}{value}" if name else word

    return [rename(word) for word in arguments]


def read_arguments(
    kind: type[Arguments],
    command: str,
    arguments: Sequence[str],
    default: Arguments | None = None,
    repeatable: bool = False,
) -> Arguments:
    """The arguments of a command; `ConfigError` says in one line what is wrong with them.

    `repeatable`: a flag of several values takes one each time that it is given, so that what
    follows it cannot be taken for another. `--help` prints the flags and raises `SystemExit`.
    """
    given = {} if default is None else {"default": default}
    if repeatable:
        given["config"] = (UseAppendAction,)
    return _one_line(tyro.cli, kind, args=arguments, prog=f"{program()} {command}", **given)


def read_known(
    kind: type[Arguments], command: str, arguments: Sequence[str]
) -> tuple[Arguments, list[str]]:
    """Those of the arguments that `kind` has, and what else there is: for a first look."""
    return _one_line(
        tyro.cli,
        kind,
        args=arguments,
        prog=f"{program()} {command}",
        add_help=False,
        return_unknown_args=True,
    )


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
    text = ". ".join(part.rstrip(".:") for part in wanted if part) or "these flags do not work"
    text = re.sub(r"^Error parsing \w+: ", "", text)  # the name of a group of flags
    text = re.sub(NO_TYPE, r"\1: '\3' is not \2", text)
    chosen = re.match(CHOICE, text)
    return _with_choices(text, chosen[1], chosen[2]) if chosen else text


def _with_choices(text: str, given: str, choices: str) -> str:
    """The message with its choices, which tyro has in a set, in one order, and the nearest one."""
    names = sorted(re.findall(QUOTED, choices))
    return f"{text.removesuffix(choices)}{', '.join(names)}{did_you_mean(given, {'': names})}"
