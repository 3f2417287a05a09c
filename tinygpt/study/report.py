"""A study's tables, as they are read."""

import math
from collections.abc import Sequence

import pandas as pd

from ..benchmark import Report
from ..tables import Row
from .protocol import Study
from .verdict import Verdict, differences, summary, verdicts

PLACES = ("commit", "processor", "torch")


def report(study: Study) -> list[Report]:
    """Costs, learning rates, what the finished runs come to, differences, and the verdict."""
    runs = study.runs()
    arms = Report(f"the arms, {_title(study)}", _arms(study, runs), _sources(study, runs))
    before = [table for table in (_costs(study), _sweep(study)) if table.rows]
    return [*before, arms, *differences_report(verdicts(study))]


def differences_report(found: Sequence[Verdict]) -> list[Report]:
    """The differences as a table, and the verdicts below it; nothing if there are none."""
    if not found:
        return []
    notes = [
        "difference: the first's loss less the second's, in nats per token; low, high and p by "
        "Welch's t-test, or where paired by that of pairs of one seed; p_holm: corrected for "
        f"{len(found)} comparisons",
        *(verdict.words for verdict in found),
        *summary(found),
    ]
    rows = differences(found).drop(columns="equal").to_dict("records")
    return [Report("differences between arms", rows, notes)]


def _costs(study: Study) -> Report:
    """The time of an update."""
    costs = study.costs()
    rows = costs[["arm", "ms", "ratio", "low", "high"]].to_dict("records")
    about = {name: _counted(costs[name]) for name in ("rounds", "compiled", *PLACES)}
    notes = [
        "ratio: to dense, the median of the rounds' with their middle half; arms not named here "
        "are of the same model as one that is",
        "; ".join(f"{name} {value}" for name, value in about.items()),
    ]
    return Report(f"milliseconds per update, {_title(study)}", rows, notes)


def _sweep(study: Study) -> Report:
    """The trials of learning rates: mean losses over seeds, by factor."""
    means = study.sweep().pivot_table("best_val_loss", "arm", "lr_factor", sort=False)
    means = means.sort_index(axis="columns")
    rows = means.rename(columns=lambda factor: f"x {factor:g}").reset_index().to_dict("records")
    what = f"learning rates, best validation loss in {study.sweep_updates} updates"
    best, ends = means.idxmin(axis="columns"), study.design.factors
    edge = [f"{arm} (x {f:g})" for arm, f in best.items() if f in (min(ends), max(ends))]
    notes = [f"best at an end of what was tried: {', '.join(edge)}"] if edge else []
    return Report(f"{what}, {_title(study)}", rows, notes)


def _arms(study: Study, runs: pd.DataFrame) -> list[Row]:
    """A row per arm that has runs, in the order of the study."""
    ms, by_arm = study.ms(), dict(list(runs.groupby("arm")))
    names = [arm.name for arm in study.arms if arm.name in by_arm]
    return [
        {"arm": name} | _losses(by_arm[name]) | _budget(by_arm[name].iloc[0], ms[name])
        for name in names
    ]


def _losses(runs: pd.DataFrame) -> Row:
    best = runs["best_val_loss"]
    return {
        "seeds": len(runs),
        "best": best.mean(),
        "sd": best[best < math.inf].std(),
        "last": runs["val_loss"].mean(),
        "train": runs["train_loss"].mean(),
        "load_cv": runs["load_cv"].mean(),
    }


def _budget(run: pd.Series, ms: float) -> Row:
    return {
        "lr": run["lr_factor"],
        "updates": run["updates"],
        "seconds": run["updates"] * ms / 1e3,
        "TFLOPs": run["flops"] / 1e12,
        "active": run["active_parameters"],
        "parameters": run["total_parameters"],
    }


def _sources(study: Study, runs: pd.DataFrame) -> list[str]:
    """Where the figures come from, and what is missing."""
    wanted = len(study.arms) * study.seeds
    if runs.empty:
        return [f"no run of {wanted} has been made yet (--until runs)"]
    places = [f"{name} {_counted(runs[name])}" for name in PLACES]
    notes = [
        "best: the lowest validation loss of the whole split at any look, sd over seeds; last: "
        "after the last update; lr: times the recipe's; seconds: updates times their cost",
        f"{len(runs)} of {wanted} runs; {'; '.join(places)}",
    ]
    diverged = runs[runs["best_val_loss"].map(math.isinf)]
    if len(diverged):
        notes.append(f"diverged, so not compared: {_counted(diverged['arm'])}")
    return notes


def _title(study: Study) -> str:
    return f"study {study.design.name}, {study.corpus_name}"


def _counted(values: pd.Series) -> str:
    """Each value, with its number if there are several."""
    counts = values.value_counts(sort=False)
    if len(counts) < 2:
        return "".join(map(str, counts.index))
    return ", ".join(f"{value} ({count})" for value, count in counts.items())
