"""What has to match in a training: model, text and settings, and what a run is resumed with."""

import hashlib
from pathlib import Path

from ..config import TrainConfig, from_dict
from ..errors import CheckpointError, ConfigError
from ..model import TinyGPT
from ..text import Corpus, check_tokens
from .checkpoint import Checkpoint


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


def check_goes_on(folder: Path, saved: Checkpoint, corpus: Corpus, config: TrainConfig) -> None:
    """Raise `CheckpointError` if a run's checkpoint is of another optimizer or another text."""
    before = from_dict(TrainConfig, saved.settings["train"])
    if config.optimizer != before.optimizer:
        raise CheckpointError(
            f"{folder} was trained with {before.optimizer}; its averages mean nothing to "
            f"{config.optimizer}. Resume with the same optimizer, or start a new run"
        )
    wanted, found = saved.settings["corpus"], identity(corpus)
    if found["sha256"] != wanted["sha256"]:
        raise CheckpointError(
            f"{folder} was trained on another text ({wanted}) than the one given ({found})"
        )


def identity(corpus: Corpus) -> dict[str, str | int]:
    """What tells one corpus from another, also when both have the same name."""
    digest = hashlib.sha256(corpus.tokenizer.fingerprint.encode())
    for part in (*corpus.train.split(1 << 22), *corpus.val.split(1 << 22)):
        digest.update(part.long().numpy().tobytes())
    return {"name": corpus.name, "tokens": len(corpus.train), "sha256": digest.hexdigest()}
