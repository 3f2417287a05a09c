"""`train`: a new run, or one that goes on."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated

from tyro.conf import AvoidSubcommands, FlagCreatePairsOff, OmitArgPrefixes, arg

from ..config import ModelConfig, MoEConfig, TrainConfig
from ..console import patient_output, waiting
from ..corpora import Corpus, load_corpus
from ..errors import ConfigError
from ..files import write_text
from ..ranks import join, leave
from ..text import whole_name
from .arguments import read_arguments, read_known, renamed, with_line_ends
from .names import (
    CORPORA,
    STORIES,
    TOKENIZERS,
    corpus_name,
    preset_named,
    run_to_resume,
    settings_of,
    whole_source,
    with_tokenizer,
)
from .settings import RunSettings, as_flags, read_settings_file, write_settings

OTHER_NAMES = {"grad-accum": "grad-accum-steps"}
HELP = ("-h", "--help")
EXPERTS = (
    "Experts in place of feed-forward layers: each of these flags gives them to a dense model."
)
INIT = (
    "start from trained weights: of a run, a folder of transformers, or a name on the hub; its "
    "shape and tokenizer hold, and --preset says how it is trained"
)
RESUME = (
    "go on with a run (a name under checkpoints/, or a path) or from a checkpoint of it (a path); "
    "latest, best: of the run in --out, or of the last one of --preset; what came later is removed"
)
Given = Annotated[str | None, arg(metavar="NAME", help_behavior_hint="")]


@dataclass(frozen=True)
class StartArgs:
    """The flags that say what the others start from, or that only some starts allow.

    None: not given. They are read again with all others, numbers then as numbers.
    """

    config: str | None = None
    preset: str | None = None
    init: str | None = None
    resume: str | None = None
    out: str | None = None
    tokenizer: str | None = None
    num_stories: str | None = None
    max_steps: str | None = None
    vocab_size: str | None = None
    no_moe: FlagCreatePairsOff[bool] = False


@dataclass(frozen=True)
class TrainArgs:
    """Train a model: a preset, then --config, then whatever flags change of it.

    Of a flag that is repeated the last one counts. --max_steps is --max-steps.
    """

    preset: Annotated[str, arg(metavar="NAME")] = "tiny"
    """where all other defaults come from; the command info lists them"""
    config: Annotated[Given, arg(metavar="FILE")] = None
    """a YAML file of settings that win over the preset's, such as the config.yaml of a run"""
    corpus: Annotated[Given, arg(help=f"{CORPORA}; default: the preset's")] = None
    tokenizer: Annotated[Given, arg(help=f"{TOKENIZERS}; default: the preset's")] = None
    num_stories: Annotated[int | None, arg(metavar="INT", help_behavior_hint="")] = None
    """of the corpus tinystories, which this asks for, so many stories; default: all"""
    out: Annotated[Given, arg(metavar="RUN")] = None
    """folder of the run, or a name under checkpoints/; default: a new one, named as the preset"""
    init: Annotated[Given, arg(metavar="SOURCE", help=INIT)] = None
    resume: Annotated[Given, arg(metavar="RUN|latest|best", help=RESUME)] = None
    no_moe: Annotated[FlagCreatePairsOff[bool], arg(help_behavior_hint="")] = False
    """feed-forward layers in place of the preset's experts"""
    model: Annotated[OmitArgPrefixes[AvoidSubcommands[ModelConfig]], arg(help="")] = field(
        default_factory=ModelConfig
    )
    train: Annotated[OmitArgPrefixes[TrainConfig], arg(help="")] = field(
        default_factory=TrainConfig
    )


@dataclass(frozen=True)
class ExpertArgs(TrainArgs):
    __doc__ = TrainArgs.__doc__  # which --help shows

    moe: Annotated[MoEConfig, arg(help=EXPERTS)] = field(default_factory=MoEConfig)


def train(arguments: Sequence[str]) -> None:
    """Train a model, or go on with a run (--resume)."""
    given = renamed(arguments, OTHER_NAMES)
    start, _ = read_known(StartArgs, "train", given)
    if start.init is not None and start.resume is not None:
        raise ConfigError("--resume goes on with the run's own weights: leave --init away")
    flags = _all_flags(start, given)
    trainer, settings = _resumed(start, flags) if start.resume is not None else _new(flags)
    trainer.ranks.once(lambda: _keep(trainer.run, settings))
    with patient_output():
        if trainer.ranks.first:
            print(f"the run is in {trainer.run.folder}", flush=True)
            _tell_of_a_long_warmup(trainer)
        trainer.fit()
        if trainer.ranks.first:
            _print_losses(trainer)
    leave()


def _keep(run, settings: RunSettings) -> None:
    with run.writing():
        write_text(run.settings, write_settings(settings))


def _tell_of_a_long_warmup(trainer) -> None:
    warmup, end = trainer.config.warmup_steps, trainer.max_steps
    if warmup >= end:
        print(
            f"the warm-up of {warmup:,} updates leaves the run of {end:,} nothing else: the "
            f"learning rate never reaches {trainer.config.lr:g}; for so short a run take "
            f"--warmup-steps {end // 10}",
            flush=True,
        )


def _print_losses(trainer) -> None:
    for step, loss in trainer.whole_val_lm_loss.items():
        print(f"step {step}: {_quality(loss)} ({_which(trainer, step)} weights)")


def _quality(loss: float) -> str:
    from ..measure import perplexity

    return f"validation loss {loss:.4f} nats, perplexity {perplexity(loss):.2f}, on the whole split"


def _which(trainer, step: int) -> str:
    if step < trainer.step:
        return "best"
    return "last and best" if step == trainer.best_step else "last"


def _all_flags(start: StartArgs, given: list[str]) -> list[str]:
    """The flags that were given, after those that the file of settings stands for."""
    values = {} if start.config is None else read_settings_file(start.config)
    first = list(as_flags({name: value for name, value in values.items() if value is not None}))
    if start.no_moe:
        first = [flag for flag in first if not flag.startswith("--moe.")]
    if start.max_steps is not None:  # else epochs said elsewhere would go on counting instead
        first.append("--epochs=None")
    if any(flag.startswith("--moe.") for flag in given):
        first = [flag for flag in first if flag != "--no-moe"]
    return first + given


def _new(flags: list[str]):
    """The trainer of a new run, and its settings: a preset's, then the flags."""
    from ..model import TinyGPT
    from ..runtime import seed_all
    from ..training import Run, Trainer, with_settings

    start, _ = read_known(StartArgs, "train", flags)
    name = TrainArgs.preset if start.preset is None else start.preset
    source = None if start.init is None else with_tokenizer(start.init)
    args = _new_args(flags, start, name, source)
    if source is not None:
        source = with_settings(source, args.model)
    corpus = _text(args, start.vocab_size, source)
    model = replace(args.model, vocab_size=corpus.tokenizer.vocab_size)
    tokenizer = whole_name(args.tokenizer or "char") if source is None else None
    init = start.init and whole_source(start.init)
    settings = RunSettings(name, corpus.name, tokenizer, model, args.train, init)
    seed_all(args.train.seed)
    out = args.out or join().once(lambda: Run.fresh(name))
    with waiting("making the model"):
        return Trainer(source or TinyGPT(model), corpus, args.train, out), settings


def _new_args(flags: list[str], start: StartArgs, name: str, source) -> TrainArgs:
    """The arguments of a new run, from those of its preset on."""
    preset = preset_named(name)
    if source is not None and start.tokenizer is not None:
        raise ConfigError("--init brings its own tokenizer; leave --tokenizer away")
    corpus = preset.corpus if start.num_stories is None else STORIES
    default = TrainArgs(name, corpus=corpus, tokenizer=preset.tokenizer, train=preset.train)
    args = _read(flags, default, source.config if source else preset.model, start.no_moe)
    if args.out == "":
        raise ConfigError("--out is empty; name a folder, or leave it away")
    return args


def _text(args: TrainArgs, vocab_size: str | None, source) -> Corpus:
    """The text of a new run, in the tokens of the model that it starts from, if there is one."""
    tokenizer = source.tokenizer if source else args.tokenizer
    with waiting(f"reading {args.corpus}"):
        corpus = load_corpus(corpus_name(args.corpus, args.num_stories), tokenizer)
    symbols = corpus.tokenizer.vocab_size
    if vocab_size is not None and args.model.vocab_size != symbols:
        raise ConfigError(
            f"--vocab-size {vocab_size} follows from the corpus: {corpus.name} has {symbols} "
            f"symbols; leave it away"
        )
    return corpus


def _resumed(start: StartArgs, flags: list[str]):
    """The trainer of a run that goes on, and its settings: its own, then the flags."""
    from ..training import Run, Trainer

    if start.tokenizer is not None:
        raise ConfigError("--resume goes on with the run's own tokenizer; leave --tokenizer away")
    if start.num_stories is not None:
        raise ConfigError("--resume goes on with the run's own text; leave --num-stories away")
    run, which = run_to_resume(start.resume, start.out, start.preset)
    model, settings = Run(run).trained_with(which)
    args = _read(flags, TrainArgs(resume=start.resume, train=settings), model, start.no_moe)
    if args.model != model:
        raise ConfigError("--resume goes on with the run's own model; leave its flags away")
    with waiting(f"loading {run.name}"):
        trainer = Trainer.resume(run, args.corpus, args.train, which)
    before = settings_of(run)
    said = {name: before.get(name) for name in ("preset", "tokenizer", "init")}
    return trainer, RunSettings(corpus=trainer.corpus.name, model=model, train=args.train, **said)


def _read(flags: list[str], start: TrainArgs, model: ModelConfig, no_moe: bool) -> TrainArgs:
    """The arguments, with the experts in the model: where they belong, but not for tyro."""
    moe = None if no_moe else model.moe
    prompt = start.train.sample_prompt.replace("\n", r"\n")  # as --help should show it
    train = replace(start.train, sample_prompt=prompt)
    start = replace(start, model=replace(model, moe=None), train=train)
    if moe or any(flag.startswith("--moe.") or flag in HELP for flag in flags):
        start = ExpertArgs(**vars(start), moe=moe or MoEConfig())
    args = read_arguments(type(start), "train", flags, start)
    model = replace(args.model, moe=getattr(args, "moe", None))
    settings = replace(args.train, sample_prompt=with_line_ends(args.train.sample_prompt))
    return replace(args, model=model, train=settings)
