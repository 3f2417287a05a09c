"""Dense models and mixtures on ten novels in Portuguese: the presets ptbr-*, made small."""

from dataclasses import replace

from ..presets import PRESETS
from .arms import FLOPS, TOTAL, Arm, Comparison, Design, named

_DENSE = PRESETS["ptbr-dense"]
NEARLY_FLOPS = "at active parameters and training FLOPs that differ by less than a tenth"
NEARLY_TOTAL = "at total parameters that differ by less than a sixth"


def _arm(name: str, words: str) -> Arm:
    """A preset as an arm; its layer or expert in widths of the dense layer of ptbr-dense."""
    model = PRESETS[f"ptbr-{name}"].model
    inner = model.moe.n_inner if model.moe else model.n_inner
    return Arm(name, words, width=inner / _DENSE.model.n_inner, moe=model.moe)


_ARMS = named(
    _arm("dense", "dense"),
    _arm("dense-active", "dense, a quarter as wide"),
    _arm("moe-4x1", "top-1 of 4 experts a quarter as wide"),
    _arm("moe-6x1", "top-1 of 6 experts a fifth as wide"),
    _arm("moe-8x2", "top-2 of 8 experts a sixth as wide"),
)
PORTUGUESE = Design(
    "portuguese",
    _ARMS,
    (
        Comparison("moe-4x1", "dense-active", FLOPS),
        Comparison("moe-6x1", "dense-active", NEARLY_FLOPS),
        Comparison("moe-8x2", "dense-active", NEARLY_FLOPS),
        Comparison("moe-4x1", "dense", TOTAL),
        Comparison("moe-6x1", "dense", NEARLY_TOTAL),
        Comparison("moe-8x2", "dense", NEARLY_TOTAL),
    ),
    # a quarter of the channels, a third of the layers, a quarter of the context
    replace(_DENSE.model, n_embd=192, n_inner=768, n_head=3, n_layer=4, block_size=128),
    replace(_DENSE.train, max_steps=2000, batch_size=16, grad_accum_steps=1),
    seeds=3,
    corpus="machado-pt",
    tokenizer="bpe:4000",
    looks=10,
    factors=(2.0, 4.0),  # in half a run x 1 was 0.17 to 0.21 behind x 2
    sweep_seeds=2,
    rounds=30,
)
