"""Making what a study lacks: resumable, and shared by as many processes as are started."""

import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from filelock import Timeout

from ..files import alone
from ..tables import Row
from .costs import measure_costs
from .plan import Trial, missing, untimed, untried
from .protocol import Study
from .trial import evaluation_rows, expert_rows, head_rows, run_row, sample_rows, train

Stage = Literal["report", "costs", "sweep", "runs"]
Trials = Callable[[Study], list[Trial]]  # those that are left by now


def carry_out(study: Study, until: Stage = "runs") -> None:
    """Make what is missing: first the costs, then the learning rates, then the runs.

    Several processes may be at it: each takes the next trial that nobody works on, and at the end
    of a stage waits for the others. What a process that dies was working on is made by another;
    what is finished is kept.
    """
    if until == "report":
        return
    study.folder.mkdir(parents=True, exist_ok=True)
    if untimed(study):
        _time(study)
    if until in ("sweep", "runs"):
        _share(study, untried, _try)
    if until == "runs":
        _share(study, missing, _run)


def _time(study: Study) -> None:
    study.check_trainable()
    with alone(study.folder / f"{study.design.name}-costs"):
        if arms := untimed(study):  # unless another process has done it meanwhile
            print(f"timing updates of {', '.join(arm.name for arm in arms)}, in turns", flush=True)
            study.records.costs.add(measure_costs(study, arms))


def _try(study: Study, trial: Trial) -> Row:
    """Train with a learning rate that may be the best."""
    trainer = train(study, trial, sys.stderr.isatty())
    row = _unit(study, trial) | run_row(study, trial, trainer)
    study.records.sweep.add([row])
    return row


def _run(study: Study, trial: Trial) -> Row:
    """Train for the tables. What is in that of the runs, written last, is finished.

    Weights that diverged attend to nothing and write nothing.
    """
    trainer = train(study, trial, sys.stderr.isatty())
    tables, row = study.records, run_row(study, trial, trainer)
    usable = math.isfinite(row["val_loss"])
    found = {
        tables.evaluations: evaluation_rows(trainer),
        tables.heads: head_rows(trainer) if usable else [],
        tables.experts: expert_rows(trainer),
        tables.samples: sample_rows(trainer) if usable else [],
        tables.runs: [row],
    }
    for table, rows in found.items():
        table.add([_unit(study, trial) | each for each in rows])
    return row


def _unit(study: Study, trial: Trial) -> Row:
    return study.unit | {"arm": trial.arm.name, "seed": trial.seed}


# --- sharing the work ---


def _share(study: Study, left: Trials, make: Callable[[Study, Trial], Row]) -> None:
    """Make trials until none is left; for those of other processes, wait."""
    pace = Pace(study, left(study))
    while trials := left(study):
        study.check_trainable()
        for trial in trials:
            if _took(study, trial, left, make, pace):
                break
        else:
            with alone(_claim(study, trials[0])):
                pass  # who worked on it has finished it, or died


def _took(study: Study, trial: Trial, left: Trials, make: Callable, pace: "Pace") -> bool:
    """Whether this trial was free; then it is finished now."""
    try:
        with alone(_claim(study, trial), wait=False):
            if trial in left(study):  # not finished while we looked
                row = make(study, trial)
                print(f"{_said(trial, row)}; {pace.words(left(study))}", flush=True)
    except Timeout:
        return False
    return True


def _claim(study: Study, trial: Trial) -> Path:
    name = f"{study.design.name}-{trial.arm.name}-{trial.seed}-{trial.lr_factor:g}-{trial.updates}"
    return study.folder / name


def _said(trial: Trial, row: Row) -> str:
    what = f"{trial.arm.name}, seed {trial.seed}, learning rate x {trial.lr_factor:g}"
    return f"{what}: loss {row['val_loss']:.4f}, best {row['best_val_loss']:.4f}"


class Pace:
    """How long what is left will take, by what has been done since now, by all processes."""

    def __init__(self, study: Study, left: Sequence[Trial]):
        self.ms = study.ms()
        self.start, self.work = time.monotonic(), self._work(left)

    def words(self, left: Sequence[Trial]) -> str:
        """What is left, and the time for it."""
        if not left:
            return "all done"
        work = self._work(left)
        seconds = (time.monotonic() - self.start) * work / max(self.work - work, 1e-9)
        return f"{len(left)} left, about {math.ceil(seconds / 60)} min"

    def _work(self, trials: Sequence[Trial]) -> float:
        return sum(trial.updates * self.ms[trial.arm.name] for trial in trials)
