"""Sparse experts on TinyStories, and what keeps their load even, at a small size."""

from dataclasses import replace

from ..config import ModelConfig, MoEConfig, TrainConfig
from ..presets import PRESETS
from .arms import FLOPS, TOTAL, Arm, Comparison, Design, named

WINDOW = 4  # times the usual context, of the arm that reads more of the story at once


class LongContext(Arm):
    """An arm with a longer context, and as many tokens in an update."""

    def config(self, shape: ModelConfig) -> ModelConfig:
        """Longer windows."""
        return replace(super().config(shape), block_size=WINDOW * shape.block_size)

    def recipe(self, usual: TrainConfig) -> TrainConfig:
        """Fewer of them."""
        return replace(usual, batch_size=usual.batch_size // WINDOW)


_SPARSE = PRESETS["sparse-158m"]
_PLAIN = replace(_SPARSE.model.moe, balance="none")
_EVEN = replace(_PLAIN, balance="loss")


def _mixture(name: str, words: str, moe: MoEConfig, kind: type[Arm] = Arm) -> Arm:
    return kind(name, words, width=0.5, moe=moe)


STORIES = Design(
    "stories",
    named(
        Arm("dense", "dense"),
        _mixture("top-2", "top-2 of 16 without balance", _PLAIN),
        _mixture("loss", "top-2 with a balance loss", _EVEN),
        _mixture("bias", "top-2 with biases", replace(_PLAIN, balance="bias")),
        _mixture("top-p", "top-p, as many as have 0.3", replace(_EVEN, top_k=4, top_p=0.3)),
        _mixture("dropout", "top-2 with expert dropout", replace(_EVEN, expert_dropout=0.4)),
        _mixture("context", "top-2 with 4 times the context", _EVEN, LongContext),
        Arm("dense-total", "dense 8 times as wide", width=8.0),
    ),
    (
        Comparison("top-2", "dense", FLOPS),
        Comparison("loss", "dense", FLOPS),
        Comparison("loss", "dense-total", TOTAL),
        Comparison("loss", "top-2", "with all but the balance alike"),
        Comparison("bias", "top-2", "with all but the balance alike"),
        Comparison("bias", "loss", "with all but the balance alike"),
        Comparison("top-p", "loss", "with all but the number of experts alike"),
        Comparison("dropout", "loss", "with all but the dropout alike"),
        Comparison("context", "loss", "with as many tokens in an update"),
    ),
    replace(_SPARSE.model, block_size=64, n_layer=2, n_head=4, n_embd=64, moe=None),
    replace(
        _SPARSE.train, max_steps=700, batch_size=16, grad_accum_steps=1, lr=4e-3, warmup_steps=20
    ),
    seeds=5,
    corpus="tinystories-sample",
    tokenizer="bpe:1000",
    looks=10,
    sweep_updates=350,
    sweep_seeds=2,
)
