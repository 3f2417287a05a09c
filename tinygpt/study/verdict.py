"""What follows from the runs: differences between arms, how sure they are, and a verdict in words.

The loss of a run is its best of the whole validation split. All arms are looked at equally often,
so all have the same chance to be lucky in that.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from ..measure import SURE, Difference, holm, paired_difference, unpaired_difference
from .arms import FLOPS, SECONDS, TOTAL, Arm, Comparison
from .protocol import Study

Losses = Mapping[str, Mapping[int, float]]  # of each arm, by seed; nats per token


@dataclass(frozen=True)
class Verdict:
    """The mean loss of the first arm minus that of the second, of runs that differ in seed only.

    models: in words. welch: the seeds of both arms taken apart, each arm with a variance of its
    own. paired: by seed, where two seeds or more are in both, else None. p_holm: the p-value of
    the test that the comparison is judged by, corrected for all comparisons made together.
    """

    comparison: Comparison
    models: tuple[str, str]
    runs: tuple[int, int]
    welch: Difference
    paired: Difference | None
    p_holm: float = 1.0

    @property
    def difference(self) -> Difference:
        """The one that the comparison is judged by."""
        return self.paired if self.comparison.paired else self.welch

    @property
    def found(self) -> int:
        """-1: the first is better; 1: the second; 0: no difference detected."""
        if self.p_holm >= SURE:
            return 0
        return -1 if self.difference.mean < 0 else 1

    @property
    def words(self) -> str:
        """The verdict as a sentence."""
        first, second = self.models
        better, other = (first, second) if self.found <= 0 else (second, first)
        given, d = f" {self.comparison.equal}".rstrip(), self.difference
        if self.found:
            low, high = sorted((abs(d.low), abs(d.high)))
            size = f"{abs(d.mean):.4f} nats (95 % interval {low:.4f} to {high:.4f}"
            return f"{better} is better than {other}{given}: by {size}, {self._chance})"
        size = f"{d.mean:+.4f} nats (95 % interval {d.low:+.4f} to {d.high:+.4f}"
        doubt = "" if d.low <= 0 <= d.high else ", which alone would exclude 0"
        said = f"no difference detected between {first} and {second}{given}"
        return f"{said}: {size}{doubt}, {self._chance})"

    @property
    def _chance(self) -> str:
        places = 4 if round(self.p_holm, 3) == SURE else 3  # 0.0495 is not 0.050
        p = "p < 0.001" if self.p_holm < 0.001 else f"p = {self.p_holm:.{places}f}"
        n, m = self.runs
        seeds = f"{n if n == m else f'{n} and {m}'} seeds"
        pairs = ", in pairs" if self.comparison.paired else ""
        return f"{p} after Holm's correction, {seeds}{pairs}"


def verdicts(study: Study) -> list[Verdict]:
    """What follows from the finished runs of a study."""
    return judge(losses_of(study.runs()), study.design.comparisons, study.design.arms)


def judge(
    losses: Losses, comparisons: Sequence[Comparison], arms: Mapping[str, Arm] | None = None
) -> list[Verdict]:
    """A verdict for each comparison of two arms with two runs at least, of which none diverged;
    where it is paired, with the same two seeds.

    What is not in `arms` goes by its name.
    """
    usable = {arm for arm, runs in losses.items() if len(runs) > 1 and _finite(runs.values())}
    found = []
    for comparison in (c for c in comparisons if {c.first, c.second} <= usable):
        a, b = losses[comparison.first], losses[comparison.second]
        welch, paired = unpaired_difference([*a.values()], [*b.values()]), _paired(a, b)
        if paired or not comparison.paired:
            models = _words(comparison, arms or {})
            found.append(Verdict(comparison, models, (len(a), len(b)), welch, paired))
    corrected = holm([verdict.difference.p for verdict in found])
    return [replace(verdict, p_holm=p) for verdict, p in zip(found, corrected, strict=True)]


def _finite(values: Iterable[float]) -> bool:
    return all(map(math.isfinite, values))


def _paired(first: Mapping[int, float], second: Mapping[int, float]) -> Difference | None:
    seeds = sorted(first.keys() & second.keys())
    if len(seeds) < 2:
        return None
    return paired_difference([first[s] for s in seeds], [second[s] for s in seeds])


def losses_of(runs: pd.DataFrame, column: str = "best_val_loss") -> dict[str, dict[int, float]]:
    """From a table of runs."""
    groups = runs.groupby("arm", sort=False)
    return {arm: dict(zip(rows["seed"], rows[column], strict=True)) for arm, rows in groups}


def differences(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """The verdicts as a table."""
    return pd.DataFrame([_row(verdict) for verdict in verdicts])


def _row(verdict: Verdict) -> dict:
    paired, by = verdict.paired or Difference(*[float("nan")] * 4), verdict.difference
    row = vars(verdict.comparison) | {"difference": by.mean, "low": by.low}
    row |= {"high": by.high, "p": by.p, "p_holm": verdict.p_holm}
    return row | {"paired_low": paired.low, "paired_high": paired.high, "paired_p": paired.p}


def summary(verdicts: Sequence[Verdict]) -> list[str]:
    """Where experts win and where they lose: per FLOP, per second, per parameter in all."""
    units = {FLOPS: "training FLOP", SECONDS: "second", TOTAL: "parameter in all"}
    told = []
    for equal, unit in units.items():
        sides = {-1: [], 1: [], 0: []}
        for verdict in verdicts:
            if verdict.comparison.equal == equal:
                sides[verdict.found].append(verdict.models[0])
        phrases = ((-1, "experts win"), (1, "experts lose"), (0, "no difference detected"))
        parts = [f"{words} ({' and '.join(sides[side])})" for side, words in phrases if sides[side]]
        if parts:
            told.append(f"per {unit}: {'; '.join(parts)}")
    return told


def _words(comparison: Comparison, arms: Mapping[str, Arm]) -> tuple[str, str]:
    names = comparison.first, comparison.second
    first, second = (arms[name].words if name in arms else name for name in names)
    return first, second
