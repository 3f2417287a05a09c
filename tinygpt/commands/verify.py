"""`verify`: the losses of runs, computed anew."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from ..console import fail, waiting
from ..errors import CheckpointError, CorpusError, TinyGPTError
from .arguments import read_arguments
from .names import run_named


@dataclass(frozen=True)
class VerifyArgs:
    """Compute the validation loss of runs anew, and compare it with the one on record.

    Exit code 1: a loss differs by more than 0.001 nats; 3: a text is not here; 2: anything else.
    """

    runs: Annotated[
        Positional[tuple[str, ...]], arg(metavar="[RUN ...]", help_behavior_hint="")
    ] = ()
    """names under checkpoints/, or paths; default: all shipped runs"""


def verify(arguments: Sequence[str]) -> int:
    """Compute the losses of shipped runs anew.

    Gives the worst of their exit codes.
    """
    from ..training import run_names

    args = read_arguments(VerifyArgs, "verify", arguments)
    names = args.runs or run_names(shipped=True)
    if not names:
        raise CheckpointError("there is no shipped run here; name the runs to verify")
    codes = {_verify(name) for name in names}
    return next(code for code in (2, 1, 3, 0) if code in codes)


def _verify(name: str) -> int:
    """Say how it stands with one run; gives its exit code."""
    from ..training import verify_run

    try:
        folder = run_named(name)
        with waiting(f"{name}: computing the loss of the whole validation split"):
            it = verify_run(folder)
    except CorpusError as error:
        print(f"{name}: not verified, its text is not here: {error}", flush=True)
        return 3
    except TinyGPTError as error:
        return fail(f"{name}: {error}")
    verdict = "holds" if it.holds else f"DIFFERS by {abs(it.found - it.recorded):.4f}"
    print(
        f"{name}: {verdict}: validation loss {it.found:.4f} nats on the whole split, "
        f"{it.recorded:.4f} in its {it.source}",
        flush=True,
    )
    return 0 if it.holds else 1
