"""`train`: a new run, or one that goes on."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated

from tyro.conf import AvoidSubcommands, arg

from ..config import ModelConfig, MoEConfig, TrainConfig
from ..console import patient_output
from ..errors import ConfigError
from ..text import load_corpus
from .arguments import read_arguments, read_known
from .names import preset_named, run_named


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


def train(arguments: Sequence[str]) -> None:
    """Train a model, or go on with a run (--resume)."""
    start, others = read_known(StartArgs, "train", arguments)
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
    from ..model import TinyGPT
    from ..runtime import seed_all
    from ..training import Run, Trainer

    start = TrainArgs() if name is None else TrainArgs(preset=name)
    preset = preset_named(start.preset)
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
    from ..training import Trainer, latest_checkpoint, read_settings

    model, settings = read_settings(latest_checkpoint(run_named(run)))
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
