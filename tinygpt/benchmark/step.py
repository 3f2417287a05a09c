"""The time of a training step."""

import statistics
from collections.abc import Callable

import torch
from torch import Tensor

from ..config import ModelConfig, TrainConfig
from ..measure import flops_per_token
from ..model import TinyGPT
from ..presets import find_preset
from ..runtime import pick_device
from ..training import RecordedUpdate, make_optimizers
from .report import Report, settings
from .rivals import transformers_gpt2
from .timing import product_flops, stepper, take_turns

_THEIRS = "transformers GPT-2"


def step_time(preset: str = "nanogpt-cpu", rounds: int = 50, device: str = "auto") -> Report:
    """The median time of a training step: ours against transformers' GPT-2 class.

    Both do the same: forward, loss, backward, clipping, one update. On a GPU ours also recorded, as
    the trainer makes it, and compiled before that; and how large a part it is of what the GPU does
    in a matrix product.
    """
    found, where = find_preset(preset), pick_device(device)
    config, train = found.model, found.train
    shape = (train.batch_size, config.block_size)
    x, y = torch.randint(config.vocab_size, (2, *shape), device=where)
    ours = TinyGPT(config).to(where)
    optimizers = make_optimizers(ours, train)
    candidates = {"tinygpt": stepper(ours, lambda: ours(x, y), optimizers, train.grad_clip)}
    if where.type == "cuda":
        candidates |= {
            "tinygpt, recorded": _recorded(config, train, x, y),
            "tinygpt, compiled and recorded": _recorded(config, train, x, y, torch.compile),
        }
    if theirs := transformers_gpt2(config, train):
        theirs.to(where)
        adamw = torch.optim.AdamW(theirs.parameters(), lr=train.lr, fused=True)
        candidates[_THEIRS] = stepper(theirs, lambda: theirs(x, labels=y), [adamw], train.grad_clip)
    seconds = take_turns(candidates, rounds)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    rows = [
        {"who": name, "ms": 1e3 * median, "tokens_per_s": x.numel() / median}
        for name, median in medians.items()
    ]
    notes = ["no comparison: transformers is not installed, or the preset is not GPT-2's model"]
    if theirs:
        ratio = medians["tinygpt"] / medians[_THEIRS]
        notes = [f"ms: the median of the rounds; tinygpt takes {ratio:.2f} of transformers' time"]
    if where.type == "cuda":
        made = flops_per_token(ours) * x.numel() / min(medians.values())
        notes.append(
            f"the fastest makes {made / 1e12:.0f} TFLOP/s; a product of large matrices in bf16 "
            f"{product_flops(where) / 1e12:.0f} here"
        )
    what = f"training step, preset {preset}, batch {shape[0]} x {shape[1]}"
    return Report(f"{what}, {settings(where, rounds)}", rows, notes)


def _recorded(
    config: ModelConfig, train: TrainConfig, x: Tensor, y: Tensor, prepare: Callable = lambda m: m
) -> Callable[[], None]:
    """A step of a model of its own, recorded; `prepare` makes what is called of the model."""
    model = TinyGPT(config).to(x.device)
    forward = prepare(model)
    step = stepper(model, lambda: forward(x, y), make_optimizers(model, train), train.grad_clip)

    def update(_) -> Tensor:
        step()
        return torch.zeros(1, device=x.device)

    recorded = RecordedUpdate(update)
    return lambda: recorded.start([])
