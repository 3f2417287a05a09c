"""`info`: the machine and the presets, or one preset or run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from ..console import program
from ..presets import PRESETS
from .arguments import read_arguments
from .names import path_of_run, run_list, run_named


@dataclass(frozen=True)
class InfoArgs:
    """What this machine has; with a name, what that preset or run is."""

    name: Annotated[Positional[str | None], arg(metavar="[NAME]")] = None


def info(arguments: Sequence[str]) -> None:
    """Show what this machine and this package have, or what a run or preset is."""
    from ..model import TinyGPT
    from ..runtime import environment, shapes_only
    from ..training import load_run

    args = read_arguments(InfoArgs, "info", arguments)
    if args.name is None:
        for name, value in environment().items():
            print(f"{name:12} {value}")
        print("\npresets:")
        for name, preset in PRESETS.items():
            print(f"  {name:12} {preset.description}")
    elif args.name in PRESETS:
        with shapes_only():
            _describe(TinyGPT(PRESETS[args.name].model))
        if args.name in run_list():
            its = f"{program()} info {path_of_run(args.name)}"
            print(f"\nThis is the preset. There is also a run of this name: {its}")
    else:
        _describe(load_run(run_named(args.name, {"the preset": PRESETS}), device="cpu"))


def _describe(model) -> None:
    from ..measure import count_parameters, flops_per_token

    counts = count_parameters(model)
    fields = {k: v for k, v in vars(model.config).items() if k != "moe"}
    if model.config.moe is not None:
        fields |= {f"moe.{name}": value for name, value in vars(model.config.moe).items()}
    for name, value in fields.items():
        print(f"{name:26} {value}")
    print(f"\nparameters                 {counts.total:,} ({counts.embedding:,} in embeddings)")
    if model.config.moe is not None:
        print(f"active                     {counts.active:,} that one token passes through")
    print(f"training FLOPs             {flops_per_token(model):,} per token")
