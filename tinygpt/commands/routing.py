"""`routing`: whether a mixture is as sparse as it says, and how its experts share the work."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from ..config import TrainConfig, check_value
from ..console import waiting
from ..errors import ConfigError
from ..files import resolve
from .arguments import read_arguments
from .names import run_named

FIGURE, LAYERS, MEMORY = (
    "expert_routing_distribution.png",
    "expert_routing.json",
    "expert_memory.json",
)


@dataclass(frozen=True)
class RoutingArgs:
    """What the routers and experts of a run do: what is computed, by which experts, at what cost.

    Read from its validation split; the gradients are those of the language-model loss alone.
    """

    run: Annotated[Positional[str], arg(metavar="RUN")]
    """a name under checkpoints/, or a path"""
    out: str = "."
    """folder for expert_routing_distribution.png, expert_routing.json and expert_memory.json"""
    max_tokens: int = 1 << 14
    """of the validation split"""
    batches: tuple[int, ...] = (1, 4, 16)
    """windows in a batch, for the memory of each"""
    device: str = "auto"
    """auto: CUDA when present, else CPU"""


def routing(arguments: Sequence[str]) -> None:
    """Report how sparse a mixture is: experts computed, their load, gradients and memory."""
    args = read_arguments(RoutingArgs, "routing", arguments)
    check_value(TrainConfig, "max_eval_tokens", args.max_tokens)
    for size in args.batches:
        check_value(TrainConfig, "batch_size", size)
    out = resolve(args.out)
    if args.out == "" or not out.is_dir():
        raise ConfigError(f"--out {args.out!r} must be a folder that exists")
    folder = run_named(args.run)
    with waiting(f"{args.run} reads its validation split, then batches for their memory"):
        _report(args, folder, out)


def _report(args: RoutingArgs, folder: Path, out: Path) -> None:
    from ..benchmark import Report
    from ..measure import layer_figures, memory_per_batch
    from ..plots import plot_expert_distribution
    from ..runtime import pick_device
    from ..training import Run, find_text

    saved = Run.open(folder).load("best")
    model = saved.model.to(pick_device(args.device)).eval()
    if model.config.moe is None:
        raise ConfigError(f"{args.run} has no experts; `info {args.run}` says what it is")
    corpus, name = find_text(folder, saved), folder.name
    rows = layer_figures(model, corpus.val, args.max_tokens)
    layers = Report(f"the experts of {name} on {corpus.name}", rows, _about_layers(model, rows))
    rows = memory_per_batch(model, list(args.batches))
    question = f"the most memory that {name} takes at a time on {model.device.type}"
    memory = Report(question, rows, _about_memory(model))
    shown = [{k: v for k, v in row.items() if k != "load"} for row in layers.rows]
    print(replace(layers, rows=shown), memory, sep="\n\n")
    layers.save(out / LAYERS)
    memory.save(out / MEMORY)
    loads, numbers = ([row[column] for row in layers.rows] for column in ("load", "layer"))
    plot_expert_distribution(loads, numbers, layers.question).save(out / FIGURE)
    print(f"\n{FIGURE}, {LAYERS} and {MEMORY} are in {out}")


def _about_layers(model, rows: list[dict]) -> list[str]:
    from ..measure import count_parameters, flops_per_token

    moe, counts = model.config.moe, count_parameters(model)
    held = all(row["computed"] <= moe.top_k + 1e-6 for row in rows)
    shared = f", and {moe.n_shared} shared by all tokens" if moe.n_shared else ""
    return [
        f"computed: experts per token by the matrix products that were made, "
        f"{'no more than' if held else 'MORE than'} top_k = {moe.top_k} of {moe.n_experts}{shared}",
        f"load_cv, max_violation: 0 is even; dead: under a hundredth of an even load; entropy: of "
        f"the router in nats, at most {math.log(moe.n_experts):.2f}",
        "grad: norm of the gradient of the language-model loss alone, one batch: of the router, of "
        "the experts that get least and most",
        f"{counts.active:,} of {counts.total:,} parameters are active; "
        f"{flops_per_token(model, training=False) / 1e6:,.2f} MFLOPs per token forward",
    ]


def _about_memory(model) -> list[str]:
    weights = sum(p.numel() * p.element_size() for p in model.parameters()) / 1e6
    return [
        f"beside the weights, {weights:,.1f} MB, and AdamW's averages, twice as much; a sample is "
        f"a window of {model.config.block_size} tokens"
    ]
