"""What a named model consists of."""

from dataclasses import dataclass, field

from ..config import ModelConfig, TrainConfig


@dataclass(frozen=True)
class Preset:
    """A model, how to train it, and on what.

    The model's `vocab_size` is that of the tokenizer named; characters take the corpus's own.
    """

    description: str
    corpus: str = "tinyshakespeare"
    tokenizer: str = "char"
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
