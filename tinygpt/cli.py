"""The command line: python -m tinygpt COMMAND."""

import math
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial

from .arguments import (
    BenchmarkArgs,
    CompareArgs,
    DataArgs,
    GenerateArgs,
    InfoArgs,
    TrainArgs,
    VerifyArgs,
    did_you_mean,
    read_arguments,
    read_start,
)
from .config import ModelConfig, MoEConfig, TrainConfig, check_value
from .console import (
    describe_os_error,
    drop_output,
    ending_signals,
    fail,
    is_too_large,
    one_line_warnings,
    patient_output,
    prepare_streams,
    program,
)
from .errors import CheckpointError, ConfigError, CorpusError, TinyGPTError
from .files import resolve
from .presets import PRESETS, Preset, find_preset
from .text import load_corpus

USAGE = """usage: {program} COMMAND [flags]

  lab        open the course in JupyterLab; further flags go to JupyterLab (--no-browser, --port)
  data       fetch a text, and show what it holds
  train      train a model, or go on with a run (--resume)
  generate   write text with a trained model
  compare    a study of models with and without experts, or your own runs: what differs, how surely
  verify     compute the losses of shipped runs anew
  benchmark  measure speed on this machine
  info       what this machine and this package have, or what a run or preset is

{program} COMMAND --help shows the flags of a command."""


def data(arguments: Sequence[str]) -> None:
    """Fetch a corpus and print its figures."""
    args = read_arguments(DataArgs, "data", arguments)
    corpus = load_corpus(args.corpus)
    print(corpus)
    print(f"alphabet: {corpus.tokenizer.characters!r}")


def train(arguments: Sequence[str]) -> None:
    """Train or resume, and say where the run is."""
    start, others = read_start(arguments)
    if start.vocab_size is not None:
        raise ConfigError("--vocab-size follows from the corpus: leave it away")
    experts = any(flag.startswith("--moe.") for flag in others)
    if start.resume is None:
        trainer = _new(start.preset, arguments, experts)
    elif start.out is not None or start.preset is not None:
        raise ConfigError("--resume goes on in the run's own folder: leave --out, --preset away")
    else:
        trainer = _resumed(start.resume, arguments, experts, start.max_steps is not None)
    with patient_output():
        print(f"the run is in {trainer.run.folder}", flush=True)
        trainer.fit()
        for step, loss in trainer.whole_val_lm_loss.items():
            print(f"step {step}: {_quality(loss)} ({_which(trainer, step)} weights)")


def _quality(loss: float) -> str:
    perplexity = math.exp(min(loss, 700))  # more is no float
    return f"validation loss {loss:.4f} nats, perplexity {perplexity:.2f}, on the whole split"


def _which(trainer, step: int) -> str:
    if step < trainer.step:
        return "best"
    return "last and best" if step == trainer.best_step else "last"


def _new(name: str | None, arguments: Sequence[str], experts: bool):
    """The trainer of a new run: a preset's settings, then the flags."""
    from .model import TinyGPT
    from .runtime import seed_all
    from .training import Run, Trainer

    start = TrainArgs() if name is None else TrainArgs(preset=name)
    preset = _preset(start.preset)
    model = _with_experts(preset.model, experts)
    start = replace(start, model=model, train=preset.train)
    args = read_arguments(TrainArgs, "train", arguments, start)
    corpus = load_corpus(preset.corpus if args.corpus is None else args.corpus)
    config = replace(args.model, vocab_size=corpus.tokenizer.vocab_size)
    if args.out == "":
        raise ConfigError("--out is empty; name a folder, or leave it away")
    seed_all(args.train.seed)
    return Trainer(TinyGPT(config), corpus, args.train, args.out or Run.fresh(args.preset))


def _resumed(run: str, arguments: Sequence[str], experts: bool, steps: bool):
    """The trainer of a run that goes on: its own settings, then the flags."""
    from .training import Trainer, latest_checkpoint, read_settings

    model, settings = read_settings(latest_checkpoint(_run(run)))
    if steps:  # else the epochs would go on counting instead
        settings = replace(settings, epochs=None)
    start = TrainArgs(resume=run, model=_with_experts(model, experts), train=settings)
    args = read_arguments(TrainArgs, "train", arguments, start)
    if args.model != model:
        raise ConfigError("--resume goes on with the run's own model; leave its flags away")
    corpus = None if args.corpus is None else load_corpus(args.corpus)
    return Trainer.resume(run, corpus, args.train)


def _with_experts(model: ModelConfig, experts: bool) -> ModelConfig:
    """Of a dense model, when flags ask for experts: one that has them."""
    return replace(model, moe=MoEConfig()) if experts and model.moe is None else model


def generate(arguments: Sequence[str]) -> None:
    """Load a run and print a sample."""
    import torch

    from .decoding import generate_temperature
    from .training import load_run

    args = read_arguments(GenerateArgs, "generate", arguments)
    if args.seed is not None:
        check_value(TrainConfig, "seed", args.seed)
    model = load_run(_run(args.run), args.which, args.device)
    torch.seed()  # without --seed another text each time: a new process draws always alike
    print(
        generate_temperature(
            model, args.prompt, args.max_new_tokens, args.temperature, seed=args.seed
        )
    )


def compare(arguments: Sequence[str]) -> None:
    """Make what a study lacks, and print what it says; or do the latter for given runs."""
    from .study import SIZES, carry_out, compare_runs, open_study, report

    args = read_arguments(CompareArgs, "compare", arguments)
    if args.runs:
        if args != CompareArgs(runs=args.runs):
            raise ConfigError("runs of your own are compared as they are: leave all flags away")
        for name in args.runs:
            _run(name)
        reports = compare_runs(args.runs)
    elif args.out == "":
        raise ConfigError("--out is empty; name a folder, or leave it away")
    else:
        options = (args.arms, args.seeds, args.corpus, args.device, args.compile)
        study = open_study(SIZES[args.size or "notebook"], resolve(args.out), *options)
        with patient_output():
            carry_out(study, args.until)
        reports = report(study)
    print("\n\n".join(map(str, reports)))


def verify(arguments: Sequence[str]) -> int:
    """Compute the losses of runs anew; gives the worst of their exit codes."""
    from .training import run_names

    args = read_arguments(VerifyArgs, "verify", arguments)
    names = args.runs or run_names(shipped=True)
    if not names:
        raise CheckpointError("there is no shipped run here; name the runs to verify")
    codes = {_verify(name) for name in names}
    return next(code for code in (2, 1, 3, 0) if code in codes)


def _verify(name: str) -> int:
    """Say how it stands with one run; gives its exit code."""
    from .training import verify_run

    try:
        it = verify_run(_run(name))
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


def benchmark(arguments: Sequence[str]) -> None:
    """Run a comparison."""
    import torch

    from .benchmark import decoding_speed, moe_speed, step_time, time_to_loss, token_cost

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
    if args.what == "step":
        _preset(args.preset)
    ask = {
        "step": partial(step_time, args.preset),
        "decoding": decoding_speed,
        "moe": moe_speed,
        "scale": token_cost,
        "time-to-loss": partial(time_to_loss, resolve(args.runs)),
    }[args.what]
    rounds = {} if args.rounds is None else {"rounds": args.rounds}
    report = ask(**rounds, device=args.device)
    print(report)
    if out is not None:
        report.save(out)
    if plot is not None:
        _draw(report.rows, plot)


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

    from .plots import plot_scaling

    plot_scaling(pd.DataFrame(rows)).save(path)


def info(arguments: Sequence[str]) -> None:
    """Print the environment and the presets, or one model's counts."""
    from .model import TinyGPT
    from .runtime import environment, shapes_only
    from .training import load_run

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
        if args.name in _runs():
            its = f"{program()} info {_path_of_run(args.name)}"
            print(f"\nThis is the preset. There is also a run of this name: {its}")
    else:
        _describe(load_run(_run(args.name, {"the preset": PRESETS}), device="cpu"))


def lab(arguments: Sequence[str]) -> int:
    """Open the course."""
    from .lab import open_lab

    return open_lab(list(arguments))


COMMANDS: dict[str, Callable[[Sequence[str]], int | None]] = {
    f.__name__: f for f in (lab, data, train, generate, compare, verify, benchmark, info)
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 2 for what the user can mend, 130 after Ctrl-C.

    What is wrong is one line on stderr. SIGTERM raises `SystemExit` (143).
    """
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
        print(USAGE.format(program=program()))
        return 0
    if any("\0" in word for word in argv):
        raise ConfigError("a flag holds a NUL character, which no name and no text may have")
    command = COMMANDS.get(argv[0])
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


# --- names: of presets and runs ---


def _preset(name: str) -> Preset:
    """The preset of this name; the error names what is near, also among the runs."""
    try:
        return find_preset(name)
    except ConfigError as error:
        near = did_you_mean(name, {"the preset": PRESETS, "--resume": _runs()})
        raise ConfigError(f"{error}{near}") from None


def _run(name: str, others: dict[str, Iterable[str]] | None = None):
    """The folder of this run; the error names what is near, also among the presets."""
    from .training import find_run

    try:
        return find_run(name)
    except CheckpointError as error:
        if name in PRESETS:
            hint = f". {name} is a preset; train it: {program()} train --preset {name}"
        else:
            hint = did_you_mean(name, {"the run": _runs()} | (others or {}))
        raise CheckpointError(f"{error}{hint}") from None


def _runs() -> list[str]:
    """The names by which runs under checkpoints/ can be had, as far as one may look."""
    from .training import FORMER, run_names

    try:
        found = run_names()
    except CheckpointError:  # nobody may look
        return []
    return found + [old for old, new in FORMER.items() if new in found and old not in found]


def _path_of_run(name: str) -> str:
    """A path, where the mere name would be that of a preset."""
    folder = _run(name)
    path = os.path.relpath(folder)
    return path if os.sep in path else str(folder)


def _describe(model) -> None:
    from .measure import count_parameters, flops_per_token

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
