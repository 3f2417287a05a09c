"""What experts cost in a training step."""

import statistics
from collections.abc import Callable
from dataclasses import replace

import torch

from ..config import ModelConfig, MoEConfig, TrainConfig
from ..model import TinyGPT
from ..presets import PRESETS
from ..runtime import pick_device
from ..training import make_optimizers
from .report import Report, settings
from .timing import stepper, take_turns

QUARTERS = torch.tensor([0.25, 0.5, 0.75])


def moe_speed(rounds: int = 20, device: str = "auto") -> Report:
    """The time of a training step with experts, top-1, over that of the dense model with the
    same active parameters: each expert is as wide as the dense layer.

    On a CPU the model of notebook 04, with 4 experts at 2,048 tokens and 16 and 64 at 8,192; on
    CUDA a model of GPT-2's width in bf16, at 16,384 tokens.
    """
    where = pick_device(device)
    if where.type == "cuda":
        shape = ModelConfig(block_size=1024, n_layer=4, n_head=12, n_embd=768)
        cases = [(4, 16), (16, 16), (64, 16)]
    else:
        shape, cases = PRESETS["tiny"].model, [(4, 64), (16, 256), (64, 256)]
    rows = []
    for n_experts, batch in cases:
        arms: dict[str, MoEConfig | None] = {"dense": None}
        for way in ("auto", "split", "grouped_mm", "loop"):
            arms[way] = MoEConfig(n_experts=n_experts, dispatch=way)
        arms["auto, even load"] = MoEConfig(n_experts=n_experts, forced_balance=True)
        x, y = torch.randint(shape.vocab_size, (2, batch, shape.block_size), device=where)
        steps = {name: _training(replace(shape, moe=moe), x, y) for name, moe in arms.items()}
        seconds = take_turns(steps, rounds, warm_up=min(3, rounds))
        for name, values in seconds.items():
            ratios = [a / b for a, b in zip(values, seconds["dense"], strict=True)]
            low, middle, high = torch.tensor(ratios).quantile(QUARTERS).tolist()
            rows.append(
                {
                    "experts": n_experts,
                    "tokens": x.numel(),
                    "way": name,
                    "ms": 1e3 * statistics.median(values),
                    "times_dense": middle,
                    "lower_quarter": low,
                    "upper_quarter": high,
                }
            )
    return Report(f"training step with experts, top-1, {settings(where, rounds)}", rows)


def _training(config: ModelConfig, x: torch.Tensor, y: torch.Tensor) -> Callable[[], None]:
    model = TinyGPT(config).to(x.device).train()
    return stepper(model, lambda: model(x, y), make_optimizers(model, TrainConfig()), 1.0)
