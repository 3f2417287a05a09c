"""The command line: python -m tinygpt lab | data | train | generate | benchmark | info."""

import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import AvoidSubcommands, Positional, arg

from .config import ModelConfig, MoEConfig, TrainConfig
from .errors import ConfigError, TinyGPTError
from .presets import PRESETS, find_preset
from .text import load_corpus

USAGE = """usage: python -m tinygpt COMMAND [flags]

  lab        open the course in JupyterLab; further flags go to JupyterLab (--no-browser, --port)
  data       fetch a text, and show what it holds
  train      train a model, or go on with a run (--resume)
  generate   write text with a trained model
  benchmark  measure speed on this machine
  info       what this machine and this package have, or what a run or preset is

python -m tinygpt COMMAND --help shows the flags of a command."""


@dataclass(frozen=True)
class DataArgs:
    """Fetch a text, and show what it holds."""

    corpus: Positional[str] = "tinyshakespeare"
    """tinyshakespeare, tinyplays, or file:PATH"""


@dataclass(frozen=True)
class TrainArgs:
    """Train a model: a preset, then whatever flags change of it."""

    preset: str = "tiny"
    """where all other defaults come from: see python -m tinygpt info"""
    corpus: str | None = None
    """tinyshakespeare, tinyplays, or file:PATH; default: the preset's"""
    out: Path | None = None
    """folder of the run; default: checkpoints/PRESET"""
    resume: str | None = None
    """go on with this run (a name under checkpoints/, or a path)"""
    model: Annotated[AvoidSubcommands[ModelConfig], arg(name="")] = field(
        default_factory=ModelConfig
    )
    train: Annotated[TrainConfig, arg(name="")] = field(default_factory=TrainConfig)


@dataclass(frozen=True)
class GenerateArgs:
    """Write text with a trained model."""

    run: Positional[str]
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

    what: Positional[Literal["step", "decoding", "moe"]] = "step"
    """a training step or 300 tokens against transformers' GPT-2, or experts against none"""
    preset: str = "nanogpt-cpu"
    """the model of the training step"""
    rounds: int | None = None
    """default: 50 steps, 5 texts, 20 steps with experts"""
    threads: int | None = None
    """CPU threads; default: torch's choice"""
    device: str = "auto"


@dataclass(frozen=True)
class InfoArgs:
    """What this machine has; with a name, what that preset or run is."""

    name: Annotated[Positional[str | None], arg(metavar="[NAME]")] = None


def data(arguments: Sequence[str]) -> None:
    """Fetch a corpus and print its figures."""
    args = tyro.cli(DataArgs, args=arguments, prog="tinygpt data")
    corpus = load_corpus(args.corpus)
    print(corpus)
    print(f"alphabet: {corpus.tokenizer.characters!r}")


def train(arguments: Sequence[str]) -> None:
    """Train or resume, and say where the run is."""
    from .model import TinyGPT
    from .runtime import seed_all
    from .training import RUNS, Trainer

    args = tyro.cli(
        TrainArgs,
        args=arguments,
        prog="tinygpt train",
        default=_defaults(arguments),
    )
    if args.resume:
        if args.out or _value_of("--preset", arguments):
            raise ConfigError(
                "--resume goes on in the run's own folder: leave --out, --preset away"
            )
        corpus = load_corpus(args.corpus) if args.corpus else None
        trainer = Trainer.resume(args.resume, corpus, args.train)
        if args.model != trainer.model.config:
            raise ConfigError("--resume goes on with the run's own model; leave its flags away")
    else:
        corpus = load_corpus(args.corpus or find_preset(args.preset).corpus)
        if _value_of("--vocab-size", arguments):
            raise ConfigError("--vocab-size follows from the corpus: leave it away")
        config = replace(args.model, vocab_size=corpus.tokenizer.vocab_size)
        seed_all(args.train.seed)
        out = args.out or RUNS / args.preset
        trainer = Trainer(TinyGPT(config), corpus, args.train, out)
    for last in trainer.fit().rows[-1:]:
        print(
            f"step {last['step']}: validation loss {last['val_lm_loss']:.4f} nats, perplexity "
            f"{last['val_perplexity']:.2f}; best {trainer.best_val_loss:.4f} at step "
            f"{trainer.best_step}"
        )
    print(f"the run is in {trainer.run.folder}")


def generate(arguments: Sequence[str]) -> None:
    """Load a run and print a sample."""
    import torch

    from .decoding import generate_temperature
    from .training import load_run

    args = tyro.cli(GenerateArgs, args=arguments, prog="tinygpt generate")
    model = load_run(args.run, args.which, args.device)
    torch.seed()  # without --seed another text each time: a new process draws always alike
    print(
        generate_temperature(
            model, args.prompt, args.max_new_tokens, args.temperature, seed=args.seed
        )
    )


def benchmark(arguments: Sequence[str]) -> None:
    """Run a comparison."""
    import torch

    from .benchmark import decoding_speed, moe_speed, step_time

    args = tyro.cli(BenchmarkArgs, args=arguments, prog="tinygpt benchmark")
    for name in ("rounds", "threads"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ConfigError(f"{name}={value} must be at least 1")
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.what == "step":
        step_time(args.preset, args.rounds or 50, args.device)
    elif args.what == "moe":
        moe_speed(args.rounds or 20, args.device)
    else:
        decoding_speed(args.rounds or 5, args.device)


def info(arguments: Sequence[str]) -> None:
    """Print the environment and the presets, or one model's counts."""
    import torch

    from .model import TinyGPT
    from .runtime import environment
    from .training import load_run

    args = tyro.cli(InfoArgs, args=arguments, prog="tinygpt info")
    if args.name is None:
        for name, value in environment().items():
            print(f"{name:12} {value}")
        print("\npresets:")
        for name, preset in PRESETS.items():
            print(f"  {name:12} {preset.description}")
    elif args.name in PRESETS:
        with torch.device("meta"):  # shapes without numbers: a large one costs nothing
            _describe(TinyGPT(PRESETS[args.name].model))
    else:
        _describe(load_run(args.name, device="cpu"))


def lab(arguments: Sequence[str]) -> int:
    """Open the course."""
    from .lab import open_lab

    return open_lab(list(arguments))


COMMANDS: dict[str, Callable[[Sequence[str]], int | None]] = {
    f.__name__: f for f in (lab, data, train, generate, benchmark, info)
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 2 for what the user can mend, 130 after Ctrl-C."""
    argv = sys.argv[1:] if argv is None else list(argv)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a Windows console may know few characters
            stream.reconfigure(encoding="utf-8", errors="replace")
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    command = COMMANDS.get(argv[0])
    if command is None:
        print(f"there is no command {argv[0]!r}\n\n{USAGE}", file=sys.stderr)
        return 2
    try:
        return command(argv[1:]) or 0
    except TinyGPTError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _defaults(arguments: Sequence[str]) -> TrainArgs:
    """What the flags start from: the preset's settings, or those of the run to resume."""
    from .training import find_run, latest_checkpoint, read_settings

    resume, name = _value_of("--resume", arguments), _value_of("--preset", arguments) or "tiny"
    if resume:
        model, train = read_settings(latest_checkpoint(find_run(resume)))
        if _value_of("--max-steps", arguments):
            train = replace(train, epochs=None)
        return TrainArgs(resume=resume, model=model, train=train)
    preset = find_preset(name)
    model = preset.model
    if model.moe is None and any(word.startswith("--moe.") for word in arguments):
        model = replace(model, moe=MoEConfig())  # a dense preset, with experts from here on
    return TrainArgs(preset=name, model=model, train=preset.train)


def _value_of(flag: str, arguments: Sequence[str]) -> str | None:
    for word, following in zip(arguments, [*arguments[1:], None], strict=True):
        if word == flag:
            return following
        if word.startswith(flag + "="):
            return word.partition("=")[2]
    return None


def _describe(model) -> None:
    from .measure import count_parameters, flops_per_token

    count = count_parameters(model)
    fields = {k: v for k, v in vars(model.config).items() if k != "moe"}
    if model.config.moe is not None:
        fields |= {f"moe.{name}": value for name, value in vars(model.config.moe).items()}
    for name, value in fields.items():
        print(f"{name:26} {value}")
    print(f"\nparameters                 {count.total:,} ({count.embedding:,} in embeddings)")
    if model.config.moe is not None:
        print(f"active                     {count.active:,} that one token passes through")
    print(f"training FLOPs             {flops_per_token(model):,} per token")
