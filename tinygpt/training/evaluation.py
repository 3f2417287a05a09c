"""The losses that a training is judged by: of its last weights, and of its best."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..corpora import Corpus
from ..errors import CheckpointError
from ..measure import count_predictions
from ..model import TinyGPT
from .checkpoint import load_checkpoint
from .run import Run

# the cross-entropy of a model on a split, or spread over it on so many of its tokens
Loss = Callable[[TinyGPT, Tensor, int | None], float]


@dataclass(frozen=True)
class Losses:
    """The losses of one evaluation, in nats per token, on equally many tokens of both splits."""

    train: float
    val: float
    tokens: int

    @property
    def finite(self) -> bool:
        """Whether the weights are worth to be kept."""
        return math.isfinite(self.train + self.val)

    def columns(self, corpus: Corpus) -> dict[str, float]:
        """The losses as the log has them."""
        return {
            "train_lm_loss": self.train,
            "val_lm_loss": self.val,
            "val_tokens": self.tokens,
            "val_bits_per_char": corpus.val_size.nats_per_character(self.val) / math.log(2),
        }


def measure_both(
    loss: Loss, model: TinyGPT, train: Tensor, val: Tensor, limit: int | None
) -> Losses:
    """Measure both splits alike: the training split on as many tokens as the validation split."""
    of_val = loss(model, val, limit)
    tokens = count_predictions(model, val, limit)
    return Losses(loss(model, train, tokens), of_val, tokens)


def best_model(
    run: Run, step: int, device: torch.device, say: Callable[[str], None]
) -> TinyGPT | None:
    """The best weights of a run, those of `step`; None, and a word of it, if they are lost."""
    try:
        return load_checkpoint(run.step_folder(step)).model.to(device)
    except CheckpointError as error:
        say(f"the best weights, of step {step}, are lost: {error}")
        return None
