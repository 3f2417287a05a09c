"""The command line: python -m tinygpt COMMAND."""

import signal
import sys
from collections.abc import Sequence

from .commands import COMMANDS, complete, did_you_mean
from .console import (
    describe_os_error,
    drop_output,
    ending_signals,
    fail,
    is_too_large,
    loaded,
    one_line_warnings,
    prepare_streams,
    program,
)
from .errors import ConfigError, TinyGPTError


def usage() -> str:
    """The commands, each with the first line of its docstring."""
    width = max(map(len, COMMANDS))
    lines = [
        f"  {name:{width}}  {(command.__doc__ or '').splitlines()[0]}"
        for name, command in COMMANDS.items()
    ]
    return "\n".join(
        [
            f"usage: {program()} COMMAND [flags]\n",
            *lines,
            f"\n{program()} COMMAND --help shows the flags of a command.",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 2 for what the user can mend, 130 after Ctrl-C.

    What is wrong is one line on stderr. SIGTERM raises `SystemExit` (143).
    """
    loaded()
    prepare_streams()
    try:
        with ending_signals(), one_line_warnings():
            code = _run_command(sys.argv[1:] if argv is None else list(argv))
            sys.stdout.flush()  # here, where a failure can still be said
            return code
    except KeyboardInterrupt:
        drop_output()
        return 128 + signal.SIGINT
    except TinyGPTError as error:
        return fail(str(error))
    except OSError as error:
        return fail(describe_os_error(error))
    except (MemoryError, OverflowError, RuntimeError, TypeError) as error:
        if not is_too_large(error):
            raise
        first = str(error).partition("\n")[0]
        return fail(f"this machine cannot hold what was asked for: {first}")


def _run_command(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return 0
    if any("\0" in word for word in argv):
        raise ConfigError("a flag holds a NUL character, which no name and no text may have")
    completion = argv[0].startswith("--tyro-")
    command = (lambda _: complete(argv)) if completion else COMMANDS.get(argv[0])
    if command is None:
        near = did_you_mean(argv[0], {"": COMMANDS})
        raise ConfigError(f"there is no command {argv[0]!r}; there are {', '.join(COMMANDS)}{near}")
    try:
        return command(argv[1:]) or 0
    except SystemExit as stop:
        if not stop.code:  # --help
            sys.stdout.flush()
        drop_output()
        raise
