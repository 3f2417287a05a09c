"""A study's tables, as they are read."""

import math
from collections.abc import Sequence

import pandas as pd

from ..benchmark import Report
from ..tables import Row
from .protocol import Study
from .verdict import Verdict, differences, judge, losses_of, summary


def report(study: Study) -> list[Report]:
    """What the finished runs of a study come to, the differences between its arms, the verdict."""
    runs, about = study.runs(), f"size {study.size.name}, {study.corpus_name}"
    arms = Report(f"the arms, {about}", _arms(study, runs), _sources(study, runs))
    return [arms, *differences_report(judge(losses_of(runs)))]


def differences_report(verdicts: Sequence[Verdict]) -> list[Report]:
    """The differences as a table, and the verdicts below it; nothing if there are none."""
    if not verdicts:
        return []
    notes = [
        "difference: the first's loss less the second's, in nats per token; low, high and p by "
        f"Welch's t-test; p_holm: corrected for {len(verdicts)} comparisons; paired: by seed",
        *(verdict.words for verdict in verdicts),
        *summary(verdicts),
    ]
    rows = differences(verdicts).drop(columns="equal").to_dict("records")
    return [Report("differences between arms", rows, notes)]


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
        "sd": best.std(),
        "last": runs["val_loss"].mean(),
        "train": runs["train_loss"].mean(),
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
    places = [f"{name} {_counted(runs[name])}" for name in ("commit", "processor", "torch")]
    notes = [
        "best: the lowest validation loss of the whole split at any look, sd over seeds; last: "
        "after the last update; lr: times the recipe's; seconds: updates times their cost",
        f"{len(runs)} of {wanted} runs; {'; '.join(places)}",
    ]
    diverged = runs[runs["best_val_loss"].map(math.isinf)]
    if len(diverged):
        notes.append(f"diverged, so not compared: {_counted(diverged['arm'])}")
    return notes


def _counted(values: pd.Series) -> str:
    """Each value, with its number if there are several."""
    counts = values.value_counts(sort=False)
    if len(counts) < 2:
        return "".join(counts.index)
    return ", ".join(f"{value} ({count})" for value, count in counts.items())
