"""What is kept of a study: the tables in its folder, and where the figures in them come from."""

import hashlib
import json
from pathlib import Path

from ..config import unusual
from ..measure import FIGURES
from ..tables import Columns, Table
from .arms import Arm, Design

STUDY: Columns = {"corpus": str, "study": str}
RUN: Columns = {**STUDY, "arm": str, "seed": int}
MACHINE: Columns = {"commit": str, "device": str, "processor": str, "torch": str}
LOSSES: Columns = {"val_loss": float, "train_loss": float, "load_cv": float}  # nats per token
RUNS: Columns = {
    **RUN,
    "recipe": str,
    "lr_factor": float,
    "updates": int,
    "tokens": int,  # seen in training
    "flops": int,  # of the training, see measure.flops_per_token
    "total_parameters": int,
    "active_parameters": int,
    **LOSSES,  # after the last update, of the whole validation split
    "best_val_loss": float,
    "best_step": int,
    **MACHINE,
}
EVALUATIONS: Columns = {
    **RUN,
    "step": int,
    "tokens": int,
    "flops": int,
    **LOSSES,
    "balance_loss": float,
    "z_loss": float,
}
HEADS: Columns = {**RUN, "layer": int, "head": int, **dict.fromkeys(FIGURES, float)}
EXPERTS: Columns = {
    **RUN,
    "step": int,
    "layer": int,
    "load_cv": float,
    "max_violation": float,
    "dead_experts": int,
    "entropy": float,
    "saturation": float,
    "saturation_by_chance": float,
    "class_nats": float,
    "class_share": float,
    "style_nats": float,
    "style_share": float,
}
SAMPLES: Columns = {**RUN, "prompt": str, "text": str}  # written with the last weights
COSTS: Columns = {
    **STUDY,
    "arm": str,
    "ms": float,  # per update, the median
    "ratio": float,  # of dense's, the median of the rounds' ratios
    "low": float,  # the middle half of them
    "high": float,
    "rounds": int,
    "compiled": str,
    **MACHINE,
}


class Records:
    """The tables of all studies in a folder. A run counts as made when it is in `runs`."""

    def __init__(self, folder: Path):
        self.folder = folder

        def table(name: str, columns: Columns, *more: str) -> Table:
            return Table(folder / f"{name}.csv", columns, [*RUN, *more], list(RUN))

        self.runs = table("runs", RUNS)
        self.evaluations = table("evaluations", EVALUATIONS, "step")
        self.heads = table("heads", HEADS, "layer", "head")
        self.experts = table("experts", EXPERTS, "step", "layer")
        self.samples = table("samples", SAMPLES, "prompt")
        self.sweep = Table(folder / "sweep.csv", RUNS, [*RUN, "lr_factor"])
        self.costs = Table(
            folder / "costs.csv", COSTS, [*STUDY, "device", "arm"], [*STUDY, "device"]
        )


def fingerprint(arm: Arm, design: Design) -> str:
    """Another one for another recipe: an arm that is made or trained otherwise, or on other tokens.

    Only what is not the default counts, so that a setting that is added later, and off, changes
    nothing. How long an arm trains for another's seconds is not part of it.
    """
    treatment = {k: v for k, v in unusual(arm).items() if k not in ("name", "words", "moe")}
    model, train = arm.config(design.model), arm.recipe(design.train)
    recipe = [unusual(model), unusual(train), treatment, design.looks]
    if design.tokenizer:
        recipe.append(Path(design.tokenizer).name)  # the same in whatever folder the course is
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:8]
