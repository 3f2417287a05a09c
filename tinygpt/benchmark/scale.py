"""How the cost of a token grows with the context, the experts and the batch."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from ..config import ModelConfig, MoEConfig, TrainConfig
from ..decoding import Reader
from ..measure import flops_per_token
from ..model import TinyGPT, evaluating
from ..presets import PRESETS
from ..runtime import autocast, one_thread, pick_device
from ..tables import Row
from ..training import make_optimizers
from .report import Report, settings
from .timing import stepper, take_turns

SHAPE = replace(PRESETS["tiny"].model, block_size=64)  # 2 layers, 64 channels
TOKENS = 4096  # of a step and a forward pass, unless the batch varies
WRITTEN = 32  # tokens at the end of a full context
CONTEXTS = (64, 128, 256, 512, 1024, 2048, 4096)
EXPERTS = (4, 8, 16, 32, 64)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


@dataclass(frozen=True)
class Work:
    """What takes its turn, on how many tokens; and the FLOPs of each by `flops_per_token`."""

    what: str
    run: Callable[[], None]
    tokens: int
    flops: int


def token_cost(rounds: int = 10, device: str = "auto") -> Report:
    """Seconds of a training step, of a forward pass and of decoding with the cache, as one size
    grows: the context, the experts (top-1, each as wide as the dense layer) or the batch.

    Where the batch does not vary, a step reads as many tokens at each size, and decoding writes
    one row. The last row of each line has the slopes of its figures, see `slope`.
    """
    where, rows = pick_device(device), []
    for varied, cases in _cases().items():
        works = [_works(*case, where) for case in cases.values()]
        for line in zip(*works, strict=True):  # the same work at each size
            rows += _line(varied, dict(zip(cases, line, strict=True)), rounds)
    shape = f"{SHAPE.n_layer} layers, {SHAPE.n_embd} channels"
    question = f"the cost of a token as one size grows, {shape}, {settings(where, rounds)}"
    return Report(question, rows, [_at_the_end(rows[: len(CONTEXTS)])])


def slope(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """k where the costs grow as size^k, by least squares of log cost against log size.

    0: the cost is the same at every size; 1: it grows as the size does.
    """
    return statistics.linear_regression(
        [math.log(size) for size in sizes], [math.log(cost) for cost in costs]
    ).slope


def _cases() -> dict[str, dict[int, tuple[ModelConfig, int, int]]]:
    """Of each size that varies: the model, the windows in a step, the rows that are written."""
    batch, moe = TOKENS // SHAPE.block_size, MoEConfig
    return {
        "context": {T: (replace(SHAPE, block_size=T), TOKENS // T, 1) for T in CONTEXTS},
        "experts": {E: (replace(SHAPE, moe=moe(n_experts=E)), batch, 1) for E in EXPERTS},
        "batch": {B: (SHAPE, B, B) for B in BATCHES},
    }


def _works(config: ModelConfig, batch: int, rows: int, device: torch.device) -> list[Work]:
    """A training step and a forward pass of a batch, and the last tokens of some rows."""
    model, T = TinyGPT(config).to(device), config.block_size
    x, y = torch.randint(config.vocab_size, (2, batch, T), device=device)
    train = stepper(model, lambda: model(x, y), make_optimizers(model, TrainConfig()), 1.0)
    read = Reader(model, torch.zeros(rows, dtype=torch.long, device=device), "crop")

    def forward() -> None:
        with evaluating(model), torch.inference_mode(), autocast(device):
            model(x)

    def write(start: int = T - WRITTEN) -> None:
        # as `Writer` does: the cache is as it was before its last tokens
        with evaluating(model), torch.inference_mode(), one_thread(rows <= 64):
            read.cache.length = start
            read(x[:rows], T)

    write(0)
    step, once = (flops_per_token(model, training) for training in (True, False))
    return [
        Work("training step", train, batch * T, step),
        Work("forward pass", forward, batch * T, once),
        Work("decoding", write, rows * WRITTEN, once),
    ]


def _line(varied: str, works: dict[int, Work], rounds: int) -> list[Row]:
    """A row for each size; the slopes stand in the last one."""
    seconds = take_turns({str(size): work.run for size, work in works.items()}, rounds, warm_up=1)
    line = []
    for (size, work), values in zip(works.items(), seconds.values(), strict=True):
        cost, about = statistics.median(values), {"varied": varied, "what": work.what}
        figures = {"ms": 1e3 * cost, "us_per_token": 1e6 * cost / work.tokens}
        figures["mflop_per_token"] = work.flops / 1e6
        line.append(about | {"size": size, "tokens": work.tokens} | figures)
    line[-1] |= {f"slope_{name}": slope(list(works), [r[name] for r in line]) for name in figures}
    return line


def _at_the_end(line: list[Row]) -> str:
    """What a power law over all sizes hides: attention is the cost only where contexts are long."""
    names = ("size", "us_per_token", "mflop_per_token")
    sizes, costs, flops = ([row[name] for row in line[-2:]] for name in names)
    return (
        f"{line[-1]['what']}, from {line[-1]['varied']} {sizes[0]:,} to {sizes[1]:,} alone: slope "
        f"{slope(sizes, costs):.2f} per token, {slope(sizes, flops):.2f} of its FLOPs"
    )
