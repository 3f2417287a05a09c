"""`info`: the machine and the presets, or one preset or run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from ..config import ModelConfig, TrainConfig, from_dict
from ..console import program, waiting
from ..errors import CheckpointError, ConfigError
from ..presets import PRESETS
from .arguments import read_arguments
from .names import model_named, path_of_run, run_list, run_named


@dataclass(frozen=True)
class InfoArgs:
    """What this machine has; with a name, what that preset or run is."""

    name: Annotated[Positional[str | None], arg(metavar="[NAME]", help_behavior_hint="")] = None
    """a preset, or a run: a name under checkpoints/, or a path"""


def info(arguments: Sequence[str]) -> None:
    """Show what this machine and this package have, or what a run or preset is."""
    from ..runtime import environment, memory_size, pick_device, processor
    from ..training import pretrained_place

    args = read_arguments(InfoArgs, "info", arguments)
    if args.name is None:
        device = pick_device()
        size = memory_size(device)
        facts = environment() | {"processor": processor(device)}
        facts["memory"] = "unknown" if size is None else _size(size)
        for name, value in facts.items():
            print(f"{name:12} {value}")
        with waiting("counting the parameters of the presets"):
            _list_presets()
    elif args.name in PRESETS:
        _describe_preset(args.name)
    elif pretrained_place(args.name) is not None:
        model = model_named(args.name)
        print(f"{args.name} is a model of transformers\n")
        _describe(model, None)
    else:
        _describe_run(args.name)


def _describe_preset(name: str) -> None:
    preset = PRESETS[name]
    print(f"{name} is a preset: {preset.description}; {preset.corpus}, {preset.tokenizer}\n")
    _describe(_without_weights(preset.model), preset.train)
    if name in run_list():
        its = f"{program()} info {path_of_run(name)}"
        print(f"\nThis is the preset. There is also a run of this name: {its}")


def _describe_run(name: str) -> None:
    from ..training import Run

    try:
        run = Run(run_named(name, {"the preset": PRESETS}))
    except CheckpointError as error:
        presets = f"there is no preset {name!r:.99} ({program()} info lists them)"
        raise ConfigError(f"{presets}, and {error}") from None
    with waiting(f"loading {name}"):
        saved = run.load()
    train = saved.settings.get("train")
    print(f"{name} is a run, in {run.folder}\n")
    _describe(saved.model, train and from_dict(TrainConfig, train))


def _without_weights(config: ModelConfig):
    """The model of a preset, of any size: it takes no memory."""
    from ..model import TinyGPT
    from ..runtime import shapes_only

    with shapes_only():
        return TinyGPT(config)


def _list_presets() -> None:
    from ..measure import count_parameters

    columns = f"{'parameters':>13} {'active':>13} {'to train':>9} {'to write':>9}"
    print(f"\n{'presets':24} {columns}")
    for name, preset in PRESETS.items():
        model = _without_weights(preset.model)
        counts, (training, writing) = count_parameters(model), _memory(model, preset.train)
        print(f"{name:24} {counts.total:13,} {counts.active:13,} {training:>9} {writing:>9}")
        print(f"    {preset.description}")
    print(f"{program()} info PRESET says more of one. Memory is estimated.")


def _describe(model, train: TrainConfig | None) -> None:
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
    print(f"without tables and head    {counts.active_inside:,}")
    print(f"training FLOPs             {flops_per_token(model):,} per token")
    training, writing = _memory(model, train or TrainConfig())
    if train is not None:
        windows = f"batches of {train.batch_size} windows"
        print(f"memory to train            {training}, estimated, with {windows}")
    print(f"memory to write            {writing}, estimated, one text as long as the block")


def _memory(model, train: TrainConfig) -> tuple[str, str]:
    """What training and writing on this machine's device need."""
    from ..measure import inference_memory, training_memory
    from ..runtime import pick_device

    bf16 = train.precision == "bf16" or (
        train.precision == "auto" and pick_device(train.device).type == "cuda"
    )
    return _size(training_memory(model, train, bf16).total), _size(inference_memory(model).total)


def _size(bytes: int) -> str:
    return f"{bytes / 1e9:.1f} GB" if bytes >= 1e9 else f"{bytes / 1e6:.0f} MB"
