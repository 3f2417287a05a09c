"""What a study still lacks, in the order in which it is made."""

from dataclasses import dataclass

import pandas as pd

from .arms import Arm
from .protocol import Study

SWEEP_LOOKS = 5


@dataclass(frozen=True)
class Trial:
    """A training: an arm, a seed, so many times the recipe's learning rate, so many updates, and
    how often the validation loss is measured meanwhile."""

    arm: Arm
    seed: int
    lr_factor: float
    updates: int
    looks: int


def untimed(study: Study) -> list[Arm]:
    """The arms whose updates have to be timed: if one has not been, all together, with those of
    earlier calls, since only costs of the same turns can be compared."""
    arms, timed = study.design.arms, set(study.costs()["arm"])
    names = {next(iter(arms)), *(arm.tuned_as for arm in study.arms)}
    names |= {arm.seconds_of for arm in study.arms if arm.seconds_of}
    return [arm for arm in arms.values() if arm.name in names | timed] if names - timed else []


def untried(study: Study) -> list[Trial]:
    """The trials of learning rates that are missing; seeds outermost, so that they balance."""
    design, done = study.design, set(_keys(study.sweep()))
    tuned = {arm.tuned_as: design.arms[arm.tuned_as] for arm in study.arms}
    factors = design.factors if len(design.factors) > 1 else ()
    return [
        Trial(arm, seed, factor, study.sweep_updates, min(SWEEP_LOOKS, design.looks))
        for seed in study.sweep_seeds
        for arm in tuned.values()
        for factor in factors
        if (arm.name, seed, factor) not in done
    ]


def missing(study: Study) -> list[Trial]:
    """The runs that are missing, seeds outermost. Needs costs, and a sweep that is done."""
    done = set(_keys(study.runs()))
    chosen = study.lr_factors()
    plans = [(arm, chosen[arm.name], updates(study, arm)) for arm in study.arms]
    return [
        Trial(arm, seed, factor, count, study.design.looks)
        for seed in study.seed_range
        for arm, factor, count in plans
        if (arm.name, seed, factor) not in done
    ]


def updates(study: Study, arm: Arm) -> int:
    """The design's, or as many as take another arm's seconds.

    All runs of an arm make equally many, also if costs have been measured anew since. It is a
    multiple of the looks, so that there are equally many in each arm.
    """
    looks = study.design.looks
    rounds = arm.budget * study.design.train.max_steps / looks
    if arm.seconds_of is None:
        return looks * round(rounds)
    runs = study.runs()
    if made := runs.loc[runs["arm"] == arm.name, "updates"].tolist():
        return made[0]
    ms = study.ms()
    return looks * round(rounds * ms[arm.seconds_of] / ms[arm.name])


def _keys(runs: pd.DataFrame) -> list[tuple]:
    return list(runs[["arm", "seed", "lr_factor"]].itertuples(index=False, name=None))
