"""What an update of each arm costs, measured so that the arms can be compared."""

import statistics
import time
from collections.abc import Sequence

from ..benchmark import take_turns
from ..runtime import one_thread
from ..tables import Row
from .arms import Arm
from .plan import Trial
from .protocol import Study
from .trial import make_trainer, place


def measure_costs(study: Study, arms: Sequence[Arm]) -> list[Row]:
    """A row per arm; the first of them is what the others are compared with.

    Every update is one of the training, with its batch, without evaluations. The arms take turns,
    update by update, in one process: what slows the machine down slows all alike. On a CPU the time
    is that of one thread, however busy the machine is; on a GPU that of the clock.
    """
    rounds, on_cpu = study.design.rounds, study.device.type == "cpu"
    warm_up = 1 + rounds // 5
    trainers = [make_trainer(study, Trial(arm, 0, 1.0, warm_up + rounds, 1)) for arm in arms]
    steps = {arm.name: trainer.train_step for arm, trainer in zip(arms, trainers, strict=True)}
    with one_thread(on_cpu):
        clock = time.process_time if on_cpu else time.perf_counter
        seconds = take_turns(steps, rounds, warm_up, clock)
    first, about = seconds[arms[0].name], {"rounds": rounds, "compiled": str(study.compile)}
    about |= study.unit | place(study.device)
    return [about | {"arm": name} | _figures(values, first) for name, values in seconds.items()]


def _figures(seconds: list[float], first: list[float]) -> Row:
    """The median of an arm's seconds, and of their ratios to the first's with the middle half."""
    ratios = [a / b for a, b in zip(seconds, first, strict=True)]
    low, ratio, high = statistics.quantiles(ratios, n=4, method="inclusive")
    found = {"ms": 1e3 * statistics.median(seconds), "ratio": ratio, "low": low, "high": high}
    return {name: round(value, 4) for name, value in found.items()}
