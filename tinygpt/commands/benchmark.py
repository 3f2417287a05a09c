"""`benchmark`: speed on this machine."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from ..config import TrainConfig, check_value
from ..console import waiting
from ..errors import ConfigError
from ..files import WORKSPACE, resolve
from ..presets import PRESETS, find_preset
from .arguments import read_arguments
from .names import preset_named, run_named

Question = Literal["step", "decoding", "moe", "model", "scale", "time-to-loss"]
WHAT = (
    "a training step or writing against transformers; experts against none; a model against its "
    "dense twins; the cost of a token as context, experts and batch grow; the quickest recipe to "
    "a loss, trick by trick"
)


@dataclass(frozen=True)
class BenchmarkArgs:
    """Measure speed on this machine."""

    what: Annotated[Positional[Question], arg(help=WHAT)] = "step"
    preset: Annotated[str, arg(metavar="NAME")] = "nanogpt-cpu"
    """the model of the training step; of benchmark model a preset or, by its name or path, a run"""
    batch_size: int = 8
    """of benchmark model: windows in a batch"""
    rounds: Annotated[int | None, arg(metavar="INT", help_behavior_hint="")] = None
    """default: 50 steps, 3 texts, 20 steps with experts, 10 of a model or size, 5 seeds"""
    threads: Annotated[int | None, arg(metavar="INT", help_behavior_hint="")] = None
    """CPU threads; default: torch's choice"""
    device: str = "auto"
    """auto: CUDA when present, else CPU"""
    runs: Annotated[str, arg(metavar="FILE", help_behavior_hint="")] = str(
        WORKSPACE / "checkpoints" / "speedrun.csv"
    )
    """finished runs of time-to-loss, not made again; default: checkpoints/speedrun.csv"""
    out: Annotated[str | None, arg(metavar="FILE", help_behavior_hint="")] = None
    """also write the figures, with the machine and the command, to this JSON file"""
    plot: Annotated[str | None, arg(metavar="FILE", help_behavior_hint="")] = None
    """of scale: also draw the costs, into this PNG or SVG file"""


def benchmark(arguments: Sequence[str]) -> None:
    """Measure speed on this machine."""
    import torch

    from ..benchmark import decoding_speed, moe_speed, step_time, time_to_loss, token_cost

    args = read_arguments(BenchmarkArgs, "benchmark", arguments)
    for name, most in (("rounds", 10**9), ("threads", 1024)):
        value = getattr(args, name)
        if value is not None and not 1 <= value <= most:
            raise ConfigError(f"{name}={value} must be between 1 and {most}")
    out, plot = _file("out", args.out), _file("plot", args.plot)
    if plot is not None and (args.what != "scale" or plot.suffix.lower() not in (".png", ".svg")):
        raise ConfigError(f"--plot {args.plot!r} must be a .png or .svg file, of benchmark scale")
    if args.threads:
        torch.set_num_threads(args.threads)
    check_value(TrainConfig, "batch_size", args.batch_size)
    if args.what == "step":
        preset_named(args.preset)
    ask = {
        "step": partial(step_time, args.preset),
        "decoding": decoding_speed,
        "moe": moe_speed,
        "model": partial(_model_speed, args.preset, args.batch_size),
        "scale": token_cost,
        "time-to-loss": partial(time_to_loss, resolve(args.runs)),
    }[args.what]
    rounds = {} if args.rounds is None else {"rounds": args.rounds}
    with waiting("measuring, in turns; the table is printed when all rounds are done"):
        report = ask(**rounds, device=args.device)
    print(report)
    if out is not None:
        report.save(out)
    if plot is not None:
        _draw(report.rows, plot)


def _model_speed(name: str, batch_size: int, **options):
    """Of a preset's model as it starts out, or of a run's."""
    from ..benchmark import model_speed
    from ..model import TinyGPT
    from ..training import load_run

    if name in PRESETS:
        return model_speed(TinyGPT(find_preset(name).model), name, batch_size, **options)
    folder = run_named(name, {"the preset": PRESETS})
    return model_speed(load_run(folder, device="cpu"), folder.name, batch_size, **options)


def _file(flag: str, name: str | None):
    """Where figures go, known to be possible before the minutes are spent; None: not asked."""
    if name is None:
        return None
    path = resolve(name)
    if not path.parent.is_dir() or path.is_dir():
        raise ConfigError(f"--{flag} {name!r} must be a file in a folder that exists")
    return path


def _draw(rows, path) -> None:
    import pandas as pd

    from ..plots import plot_scaling

    plot_scaling(pd.DataFrame(rows)).save(path)
