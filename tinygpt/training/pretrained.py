"""Models in and out: from the hub or a folder of transformers to a run, and back."""

import re
import warnings
from pathlib import Path
from typing import Any

import torch

from ..checks import check
from ..config import ModelConfig
from ..errors import CheckpointError, ConfigError, some
from ..files import resolve
from ..hub import snapshot
from ..model import TinyGPT, assemble, own_tensors, read_pretrained, write_pretrained
from ..text import read_tokenizer, write_tokenizer
from .checkpoint import Checkpoint, new_folder, write_checkpoint
from .run import Run, check_new, new_place
from .tensors import check_finite

FREE = ("block_size", "dropout")  # settings that may be others for the same weights
FREE += ("moe.capacity_factor", "moe.jitter", "moe.expert_dropout", "moe.bias_rate")
FREE += ("moe.balance_weight", "moe.z_weight", "moe.cv_weight", "moe.dispatch")
ON_THE_HUB = re.compile(r"[\w-][\w.-]*/[\w.-]+")


def load_pretrained(
    source: str | Path, dtype: torch.dtype = torch.float32, endpoint: str | None = None
) -> TinyGPT:
    """A model that transformers can load, as a `TinyGPT` on the CPU, in eval mode.

    `source` is a folder, or a name on the Hugging Face Hub such as "openai-community/gpt2". GPT-2,
    Llama, Qwen2 and Qwen3 are read, and the mixtures Mixtral, Qwen2-MoE and Qwen3-MoE; the weights
    become `dtype`. `model.tokenizer` is set if its files are like GPT-2's or written here, and it
    has as many symbols as the model.
    `CheckpointError` if the source cannot be had, or is another kind of model.
    """
    folder = resolve(source)
    if not folder.is_dir():
        if not ON_THE_HUB.fullmatch(str(source)):
            raise CheckpointError(
                f"{str(source)!r} is no folder, and no name on the hub (openai-community/gpt2)"
            )
        folder = snapshot(str(source), endpoint)
    model = read_pretrained(folder, dtype)
    tokenizer, size = _tokenizer(folder), model.config.vocab_size
    if tokenizer is not None and tokenizer.vocab_size != size:
        warnings.warn(
            f"{folder} has a tokenizer of {tokenizer.vocab_size} symbols and a model of {size}: it "
            f"was left aside; transformers' resize_token_embeddings({tokenizer.vocab_size}) makes "
            f"the model fit",
            stacklevel=2,
        )
        tokenizer = None
    model.tokenizer = tokenizer
    return model


def save_pretrained(model: TinyGPT, folder: str | Path) -> None:
    """Write a model, and its tokenizer if it has one, as a folder that transformers loads.

    Its logits there are the same, and so are those of what `load_pretrained` makes of it. All or
    nothing: `ConfigError` says why no class of transformers holds this model, `CheckpointError`
    that the folder exists or cannot be written.
    """
    folder = check_new(resolve(folder))
    check_finite(model)
    end = model.tokenizer.end_of_text if model.tokenizer else None
    with new_folder(folder) as new:
        write_pretrained(model, new, end)
        if model.tokenizer:
            write_tokenizer(model.tokenizer, new)


def pretrained_place(source: str | Path) -> str | Path | None:
    """What `load_pretrained` takes where one might also name a run: a folder, or a name on the hub.

    None if a run is meant, as by all that is neither.
    """
    place = Run.place(source)
    if Run(place).exists():
        return None
    if (place / "config.json").is_file():
        return place
    is_path = place.parent.exists()  # runs/mine where there are runs
    return None if is_path or not ON_THE_HUB.fullmatch(str(source)) else str(source)


def with_settings(model: TinyGPT, config: ModelConfig) -> TinyGPT:
    """The same weights, shared, with other settings: such as change nothing of what it says.

    That is `dropout`, a shorter `block_size` (whose position vectors are a copy), and how a mixture
    is trained. The mode and the tokenizer stay. `ConfigError` names what else differs.
    """
    old, new = _flat(model.config), _flat(config)
    changed = [name for name in old | new if old.get(name) != new.get(name) and name not in FREE]
    other = [f"{name} {old.get(name)} -> {new.get(name)}" for name in changed]
    longest = model.config.block_size
    if config.block_size > longest:
        other.append(f"block_size {longest} -> {config.block_size}")
    check(
        not other,
        f"trained weights hold for their own shape, and for no longer block_size; leave away what "
        f"is other: {some(other)}",
    )
    state = own_tensors(model)
    if config.block_size < longest and "wpe.weight" in state:
        state["wpe.weight"] = state["wpe.weight"][: config.block_size].clone()
    same = assemble(config, state)
    same.tokenizer = model.tokenizer
    return same.train(model.training)


def _flat(config: ModelConfig) -> dict[str, Any]:
    """Settings by name, those of experts as `moe.top_k`."""
    moe = vars(config.moe) if config.moe else {}
    top = {name: value for name, value in vars(config).items() if name != "moe"}
    return top | {f"moe.{name}": value for name, value in moe.items()}


def save_run(model: TinyGPT, folder: str | Path) -> Path:
    """Write a model as a run without training state, for `load_run` and `--init`; its folder.

    A name under checkpoints/, or a path. `ConfigError` if the model has no tokenizer,
    `CheckpointError` if the folder exists or cannot be written.
    """
    if model.tokenizer is None:
        raise ConfigError(
            "the model has no tokenizer, without which a run writes no text: set model.tokenizer, "
            "or give a folder that holds one that is read here (README: Models in and out)"
        )
    target = new_place(folder)
    with new_folder(target) as new:
        write_checkpoint(new, Checkpoint(model, model.tokenizer, {}, {}, {}))
    return target


def _tokenizer(folder: Path):
    try:
        return read_tokenizer(folder)
    except (CheckpointError, ConfigError) as error:
        warnings.warn(f"the tokenizer was left aside: {error}", stacklevel=3)
        return None
