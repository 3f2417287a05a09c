"""What has to match in a training: model, text and settings, and what a run is resumed with."""

import hashlib
import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from ..config import TrainConfig, to_dict
from ..corpora import Corpus, check_tokens, load_corpus
from ..errors import CheckpointError, ConfigError, CorpusError
from ..measure import flops_per_token
from ..model import TinyGPT
from ..runtime import processor
from .checkpoint import Checkpoint, train_settings
from .loggers import check_logger

SMALL = 3e9  # floating-point operations of a forward pass


def check_fit(model: TinyGPT, corpus: Corpus, config: TrainConfig) -> None:
    """Raise `ConfigError` or the tokenizer's error for what would fail an hour from now."""
    shape, symbols = model.config, corpus.tokenizer.vocab_size
    if symbols != shape.vocab_size:
        raise ConfigError(
            f"the model has vocab_size={shape.vocab_size}, but the corpus {corpus.name} has "
            f"{symbols} symbols; build the model with ModelConfig(vocab_size={symbols})"
        )
    check_tokens(corpus.train, shape.block_size, shape.vocab_size, "train")
    check_tokens(corpus.val, shape.block_size, shape.vocab_size, "validation")
    if config.sample_tokens:
        corpus.tokenizer.encode(config.sample_prompt)
    if config.log:
        check_logger(config.log)


def tokens_per_step(model: TinyGPT, config: TrainConfig) -> int:
    """How many tokens one update sees."""
    return config.batch_size * config.grad_accum_steps * model.config.block_size


def is_small(model: TinyGPT, config: TrainConfig) -> bool:
    """Whether a training on a CPU should use one thread: see `runtime.one_thread`.

    Four layers of 128 channels on 768 tokens train 1.6 times as fast with two threads on two idle
    cores, beside one busy process 1.8 times as slow, beside several ten times. The rule knows the
    model and the settings only: other numbers of threads may round sums otherwise, and then a
    resumed run would not be the same to the bit.
    """
    tokens = config.batch_size * model.config.block_size
    work = tokens * flops_per_token(model, training=False)
    return model.device.type == "cpu" and work <= SMALL


def tokens_seen(state: dict[str, Any], model: TinyGPT, config: TrainConfig) -> int:
    """How many tokens a training had seen, by the state and the settings of its checkpoint."""
    return state.get("tokens_seen", state["step"] * tokens_per_step(model, config))


def updates(
    model: TinyGPT, corpus: Corpus, config: TrainConfig, step: int = 0, seen: int = 0
) -> int:
    """How many updates a training makes in all; up to `step` it has `seen` so many tokens."""
    if config.epochs is None:
        return config.max_steps
    each = tokens_per_step(model, config)
    count = config.epochs * len(corpus.train) / each + (step - seen / each)
    if count > 1 << 53:
        raise ConfigError(f"epochs={config.epochs} are {count:g} updates; use fewer")
    return math.ceil(count)


def settings_of(
    config: TrainConfig, corpus: dict[str, str | int], device: torch.device
) -> dict[str, Any]:
    """What a checkpoint says of how it was made, beside its model; `corpus`: its `identity`."""
    return {"train": to_dict(config), "corpus": corpus, "processor": processor(device)}


def used_before(folder: Path, saved: Checkpoint) -> tuple[TrainConfig, dict[str, Any]]:
    """The training settings of a run's checkpoint, and its corpus as `identity` has it.

    `CheckpointError` if it says nothing of them.
    """
    corpus = saved.settings.get("corpus")
    try:
        if not isinstance(corpus, dict) or not isinstance(corpus.get("name"), str):
            raise ConfigError(f"corpus={corpus!r:.99} names no corpus")
        return train_settings(saved.settings), corpus
    except ConfigError as error:
        raise CheckpointError(
            f"nobody can go on with {folder}: in its config.json, {error!s:.500}; start a new run"
        ) from error


def find_text(folder: Path, saved: Checkpoint, corpus: Corpus | None = None) -> Corpus:
    """The text that a run's checkpoint was trained on; `corpus` if it is that.

    `CorpusError` if it is not to be had, or another by now.
    """
    wanted = saved.settings.get("corpus")
    if not isinstance(wanted, dict) or not isinstance(wanted.get("name"), str):
        raise CorpusError(f"{folder} does not say what text it was trained on")
    corpus = corpus or load_corpus(wanted["name"], saved.tokenizer)
    if (found := identity(corpus))["sha256"] != wanted.get("sha256"):
        raise CorpusError(
            f"{folder} was trained on another text ({_told(wanted)}) than this ({_told(found)})"
        )
    return corpus


def to_go_on_with(
    folder: Path, saved: Checkpoint, corpus: Corpus | str | None, config: TrainConfig | None
) -> tuple[Corpus, TrainConfig]:
    """The text and the settings that a run goes on with: those given, else as they were.

    `CheckpointError` if its checkpoint is of another optimizer or another text.
    """
    before, wanted = used_before(folder, saved)
    config = config or before
    if not isinstance(corpus, Corpus):
        corpus = load_corpus(corpus or wanted["name"], saved.tokenizer)
    if config.optimizer != before.optimizer:
        raise CheckpointError(
            f"{folder} was trained with {before.optimizer}; its averages mean nothing to "
            f"{config.optimizer}. Resume with the same optimizer, or start a new run"
        )
    found = identity(corpus)
    if found["sha256"] != wanted.get("sha256"):
        raise CheckpointError(
            f"{folder} was trained on another text ({_told(wanted)}) than the one given "
            f"({_told(found)}); leave that away, or start a new run with it"
        )
    return corpus, config


def _told(corpus: dict[str, Any]) -> str:
    """An identity in words: two of the same name and number differ in what they say."""
    name, tokens, digest = (corpus.get(key, "?") for key in ("name", "tokens", "sha256"))
    count = f"{tokens:,}" if isinstance(tokens, int) else tokens
    return f"{name!s:.99}, {count!s:.20} training tokens, sha256 {digest!s:.8}…"


def changes(before: TrainConfig, config: TrainConfig) -> list[str]:
    """The settings that are not what they were, as `lr 0.004 -> 0.001`."""
    pairs = {f.name: (getattr(before, f.name), getattr(config, f.name)) for f in fields(config)}
    return [f"{name} {old} -> {new}" for name, (old, new) in pairs.items() if old != new]


def identity(corpus: Corpus) -> dict[str, str | int]:
    """What tells one corpus from another, also when both have the same name."""
    digest = hashlib.sha256(corpus.tokenizer.fingerprint.encode())
    for part in (*corpus.train.split(1 << 22), *corpus.val.split(1 << 22)):
        digest.update(part.long().numpy().tobytes())
    return {"name": corpus.name, "tokens": len(corpus.train), "sha256": digest.hexdigest()}
