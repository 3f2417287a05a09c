"""`compare`: the study of models with and without experts, or runs of one's own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from ..console import patient_output, waiting
from ..errors import ConfigError
from ..files import WORKSPACE, resolve
from .arguments import Described, read_arguments
from .names import CORPORA, run_named


@dataclass(frozen=True)
class CompareArgs:
    """Train the arms of a study with several seeds; or compare runs: what differs?"""

    runs: Annotated[
        Positional[tuple[str, ...]], arg(metavar="[RUN ...]", help_behavior_hint="")
    ] = ()
    """runs of your own to compare, in the place of a study: names under checkpoints/, or paths"""
    study: Literal["notebook", "laptop", "baby", "portuguese", "stories", "upcycling"] = "notebook"
    """which; baby is trained on a CUDA device only"""
    arms: Annotated[tuple[str, ...], arg(metavar="ARM ...", help_behavior_hint="")] = ()
    """which of them; default: those of the study"""
    seeds: Annotated[int | None, arg(metavar="INT", help_behavior_hint="")] = None
    """runs of each arm; default: 12, of the larger ones 3, of stories 5"""
    until: Literal["report", "costs", "sweep", "runs"] = "runs"
    """how far to go with what is missing: not at all, the time of an update, learning rates, all"""
    corpus: Annotated[
        str | None,
        arg(metavar="NAME", help=f"{CORPORA}; default: the study's", help_behavior_hint=""),
    ] = None
    device: Annotated[str, Described] = "auto"
    """default: that of the runs so far, else CUDA when present"""
    compile: bool = False
    """torch.compile: slow start, faster steps"""
    out: Annotated[str, arg(metavar="FOLDER", help_behavior_hint="")] = str(
        WORKSPACE / "checkpoints" / "study"
    )
    """of the tables, which are made once and shared by processes; default: checkpoints/study"""


def compare(arguments: Sequence[str]) -> None:
    """Make a study of models with and without experts, or compare runs of your own."""
    from ..study import STUDIES, carry_out, compare_runs, open_study, report

    args = read_arguments(CompareArgs, "compare", arguments)
    if args.runs:
        if args != CompareArgs(runs=args.runs):
            raise ConfigError("runs of your own are compared as they are: leave all flags away")
        for name in args.runs:
            run_named(name)
        with waiting("reading the runs"):
            reports = compare_runs(args.runs)
    elif args.out == "":
        raise ConfigError("--out is empty; name a folder, or leave it away")
    else:
        options = (args.arms, args.seeds, args.corpus, args.device, args.compile)
        study = open_study(STUDIES[args.study], resolve(args.out), *options)
        with patient_output():
            carry_out(study, args.until)
        reports = report(study)
    print("\n\n".join(map(str, reports)))
