"""The time of a training step."""

import statistics

import torch

from ..measure import model_flop_utilisation
from ..model import TinyGPT
from ..presets import find_preset
from ..runtime import pick_device
from ..training import make_optimizers
from .report import Report, settings
from .rivals import transformers_gpt2
from .timing import stepper, take_turns


def step_time(preset: str = "nanogpt-cpu", rounds: int = 50, device: str = "auto") -> Report:
    """The median time of a training step: ours against transformers' GPT-2 class.

    Both do the same: forward, loss, backward, clipping, one update of fused AdamW.
    """
    found, where = find_preset(preset), pick_device(device)
    config, train = found.model, found.train
    shape = (train.batch_size, config.block_size)
    x, y = torch.randint(config.vocab_size, (2, *shape), device=where)
    ours = TinyGPT(config).to(where)
    optimizers = make_optimizers(ours, train)
    candidates = {"tinygpt": stepper(ours, lambda: ours(x, y), optimizers, train.grad_clip)}
    if theirs := transformers_gpt2(config, train):
        theirs.to(where)
        adamw = torch.optim.AdamW(theirs.parameters(), lr=train.lr, fused=True)
        candidates["transformers GPT-2"] = stepper(
            theirs, lambda: theirs(x, labels=y), [adamw], train.grad_clip
        )
    seconds = take_turns(candidates, rounds)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    rows = [
        {"who": name, "ms": 1e3 * median, "tokens_per_s": x.numel() / median}
        for name, median in medians.items()
    ]
    notes = ["no comparison: transformers is not installed, or the preset is not GPT-2's model"]
    if theirs:
        ratios = [a / b for a, b in zip(*seconds.values(), strict=True)]
        notes = [f"ratio {statistics.median(ratios):.2f} (median of the rounds' ratios)"]
    used = model_flop_utilisation(ours, x.numel() / medians["tinygpt"])
    if used is not None:
        notes.append(f"model FLOP utilisation {100 * used:.1f} %")
    what = f"training step, preset {preset}, batch {shape[0]} x {shape[1]}"
    return Report(f"{what}, {settings(where, rounds)}", rows, notes)
