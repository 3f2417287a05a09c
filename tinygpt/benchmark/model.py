"""What a model takes to read and write, against dense ones of its active and its total size."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..decoding import Reader
from ..measure import count_parameters, flops_per_token, peak_bytes
from ..model import TinyGPT
from ..runtime import autocast, one_thread, pick_device
from ..tables import Row
from .report import Report, settings
from .timing import take_turns
from .twins import dense_twins

WRITTEN = 32  # tokens at the end of a full context
NOTES = [
    "ms: of a pass, its median; times: that over the first model's. A "
    "sample is a window; with batch 1 ms is its latency. gflop_per_token counts matrix products;",
    "gflop_per_s is what they make of the time. peak_mb: the weights, the cache where there is one "
    "and the most that the pass takes beside them. writing: the last tokens of a full context.",
]


@dataclass(frozen=True)
class Work:
    """A pass of a model over so many tokens of so many windows (None: it writes them), with a
    cache of so many bytes."""

    run: Callable[[], None]
    tokens: int
    samples: int | None
    cache: int = 0


def model_speed(
    model: TinyGPT, name: str, batch: int = 8, rounds: int = 10, device: str = "auto"
) -> Report:
    """Time, throughput, FLOPs and memory of a model and of its dense twins, in turns: a forward
    pass of one window, one of a batch, and writing. On CUDA in bf16."""
    where, models = pick_device(device), {name: model}
    models |= {twin: TinyGPT(config) for twin, config in dense_twins(model.config).items()}
    models = {each: built.to(where).eval() for each, built in models.items()}
    works = {each: _works(built, batch) for each, built in models.items()}
    rows = []
    for what in ("forward, batch 1", f"forward, batch {batch}", "writing"):
        line = {each: own[what] for each, own in works.items() if what in own}
        seconds = take_turns({each: work.run for each, work in line.items()}, rounds, warm_up=2)
        medians = {each: statistics.median(values) for each, values in seconds.items()}
        for each, work in line.items():
            figures = _figures(models[each], work, medians[each])
            times = medians[each] / medians[name]
            rows.append({"what": what, "model": each, **figures, "times": times})
    sizes = [_size(each, built) for each, built in models.items()]
    question = f"{name}, windows of {model.config.block_size} tokens, {settings(where, rounds)}"
    return Report(question, rows, NOTES + sizes)


def _works(model: TinyGPT, batch: int) -> dict[str, Work]:
    T, device = model.config.block_size, model.device
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(model.config.vocab_size, (batch, T), generator=generator).to(device)
    read = Reader(model, torch.zeros(1, dtype=torch.long, device=device), "crop")

    def forward(x: torch.Tensor) -> Callable[[], None]:
        def run() -> None:
            with torch.inference_mode(), autocast(device):
                model(x)

        return run

    written = min(WRITTEN, T - 1)

    def write(start: int = T - written) -> None:
        # as `Writer` does: the cache is as it was before its last tokens
        with torch.inference_mode(), autocast(device), one_thread():
            read.cache.length = start
            read(x[:1], T)

    write(0)
    return {
        "forward, batch 1": Work(forward(x[:1]), T, 1),
        f"forward, batch {batch}": Work(forward(x), batch * T, batch),
        "writing": Work(write, written, None, read.cache.nbytes),
    }


def _figures(model: TinyGPT, work: Work, seconds: float) -> Row:
    flops = flops_per_token(model, training=False)
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    samples = {} if work.samples is None else {"samples_per_s": work.samples / seconds}
    return {
        "ms": 1e3 * seconds,
        **samples,
        "tokens_per_s": work.tokens / seconds,
        "gflop_per_token": flops / 1e9,
        "gflop_per_s": flops * work.tokens / seconds / 1e9,
        "peak_mb": (weights + work.cache + peak_bytes(work.run, model)) / 1e6,
    }


def _size(name: str, model: TinyGPT) -> str:
    counts, config = count_parameters(model), model.config
    width = f"feed-forward width {config.inner_size}"
    if config.moe is not None:
        width = f"{config.moe.top_k} of {config.moe.n_experts} experts a token"
    return f"{name}: {counts.total:,} parameters, {counts.active:,} active, {width}"
