"""What a study consists of, and what of it is still to be made, by the tables in its folder."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import pandas as pd
import torch

from ..errors import ConfigError
from ..runtime import pick_device
from ..tables import Row
from ..text import Corpus, load_corpus
from .arms import ARMS, Arm, Size
from .records import Records, fingerprint

FIRST_SEED = 1
SWEEP_SEEDS = (101, 102)  # of the learning rates: not those that are reported
SWEEP_LOOKS = 5
DENSE = ARMS["dense"]


@dataclass(frozen=True)
class Trial:
    """A training: an arm, a seed, so many times the recipe's learning rate, so many updates, and
    how often the validation loss is measured meanwhile."""

    arm: Arm
    seed: int
    lr_factor: float
    updates: int
    looks: int


@dataclass(frozen=True)
class Study:
    """Arms of one size on one text, with so many seeds.

    What is in the tables is never made again, unless its recipe is another by now. A study goes on
    with the kind of device that its runs so far were made on.
    """

    size: Size
    folder: Path
    arms: Sequence[Arm]
    seeds: int
    corpus_name: str = "tinyshakespeare"
    wanted_device: str = "auto"
    compile: bool = False

    @cached_property
    def records(self) -> Records:
        """The tables."""
        return Records(self.folder)

    @cached_property
    def corpus(self) -> Corpus:
        """The text; loaded when something is trained on it."""
        return load_corpus(self.corpus_name)

    @cached_property
    def device(self) -> torch.device:
        """Where its runs were made, else where they would be."""
        made = self.devices()
        if self.wanted_device == "auto" and made:
            return torch.device(made[0])
        return pick_device(self.wanted_device)

    def devices(self) -> list[str]:
        """The kinds of device on which its runs and trials so far were made."""
        return sorted({*self.runs()["device"], *self.sweep()["device"]})

    def check_device(self) -> None:
        """Raise `ConfigError` if nothing can be trained here, or not as the runs so far were."""
        here, made = pick_device(str(self.device)), self.devices()
        if self.size.cuda_only and here.type != "cuda":
            raise ConfigError(
                f"the size {self.size.name} is trained on a CUDA device only, and device is "
                f"{here.type}; on this machine compare another size, or print what there is "
                f"(--until report)"
            )
        if set(made) - {here.type}:
            raise ConfigError(
                f"the runs of this study in {self.folder} were made on {' and '.join(made)}, and "
                f"device is {here.type}, which computes otherwise; go on there, or choose another "
                f"folder (--out)"
            )

    # --- what there is ---

    def runs(self) -> pd.DataFrame:
        """The finished runs of its arms and seeds."""
        found, names = self._made(self.records.runs.read()), [arm.name for arm in self.arms]
        return found[found["seed"].isin(self._seeds) & found["arm"].isin(names)]

    def details(self, name: Literal["evaluations", "heads", "experts"]) -> pd.DataFrame:
        """What another table says of the finished runs."""
        found = self._mine(getattr(self.records, name).read())
        return found.merge(self.runs()[["arm", "seed"]])

    def sweep(self) -> pd.DataFrame:
        """The finished trials of learning rates."""
        found = self._made(self.records.sweep.read())
        return found[(found["updates"] == self._sweep_updates) & found["seed"].isin(SWEEP_SEEDS)]

    def costs(self) -> pd.DataFrame:
        """What an update costs on such a device."""
        found = self._mine(self.records.costs.read())
        return found[found["device"] == self.device.type]

    def ms(self) -> dict[str, float]:
        """Milliseconds per update of each arm; of a model that was not timed, its like's."""
        timed = self.costs().set_index("arm")["ms"]
        return {name: timed.get(arm.tuned_as, math.nan) for name, arm in ARMS.items()}

    @property
    def unit(self) -> Row:
        """What its rows of all tables have in common."""
        return {"corpus": self.corpus_name, "size": self.size.name}

    def _mine(self, table: pd.DataFrame) -> pd.DataFrame:
        """The rows of a table that are of this size and text."""
        return table[(table["size"] == self.size.name) & (table["corpus"] == self.corpus_name)]

    def _made(self, table: pd.DataFrame) -> pd.DataFrame:
        """The rows of runs that would be made alike now."""
        recipes = {name: fingerprint(arm, self.size) for name, arm in ARMS.items()}
        table = self._mine(table)
        return table[table["recipe"] == table["arm"].map(recipes)]

    # --- what is missing ---

    def untimed(self) -> list[Arm]:
        """The arms whose updates have to be timed, all together, if some have not been."""
        names = {DENSE.name, *(arm.tuned_as for arm in self.arms)}
        names |= {arm.seconds_of for arm in self.arms}
        wanted = [arm for arm in ARMS.values() if arm.name in names]
        return wanted if {arm.name for arm in wanted} - set(self.costs()["arm"]) else []

    def untried(self) -> list[Trial]:
        """The trials of learning rates that are missing; seeds outermost, so that they balance."""
        done = set(_keys(self.sweep()))
        tuned = {arm.tuned_as: ARMS[arm.tuned_as] for arm in self.arms}
        factors = self.size.factors if len(self.size.factors) > 1 else ()
        return [
            Trial(arm, seed, factor, self._sweep_updates, min(SWEEP_LOOKS, self.size.looks))
            for seed in SWEEP_SEEDS
            for arm in tuned.values()
            for factor in factors
            if (arm.name, seed, factor) not in done
        ]

    def missing(self) -> list[Trial]:
        """The runs that are missing, seeds outermost. Wants costs, and a sweep that is done."""
        done = set(_keys(self.runs()))
        plans = [(arm, self.lr_factor(arm), self.updates(arm)) for arm in self.arms]
        return [
            Trial(arm, seed, factor, updates, self.size.looks)
            for seed in self._seeds
            for arm, factor, updates in plans
            if (arm.name, seed, factor) not in done
        ]

    def lr_factor(self, arm: Arm) -> float:
        """That with the lowest mean loss over the sweep's seeds."""
        if len(self.size.factors) == 1:
            return self.size.factors[0]
        tried = self.sweep()
        losses = tried[tried["arm"] == arm.tuned_as].groupby("lr_factor")["best_val_loss"].mean()
        return float(losses[list(self.size.factors)].idxmin())

    def updates(self, arm: Arm) -> int:
        """The size's, or as many as take another arm's seconds.

        All runs of an arm make equally many, also if costs have been measured anew since. It is a
        multiple of the looks, so that there are equally many in each arm.
        """
        usual, looks = self.size.train.max_steps, self.size.looks
        if arm.seconds_of is None:
            return usual
        runs = self.runs()
        if made := runs.loc[runs["arm"] == arm.name, "updates"].tolist():
            return made[0]
        ms = self.ms()
        return looks * round(usual / looks * ms[arm.seconds_of] / ms[arm.name])

    @property
    def _seeds(self) -> range:
        return range(FIRST_SEED, FIRST_SEED + self.seeds)

    @property
    def _sweep_updates(self) -> int:
        return self.size.sweep_updates or self.size.train.max_steps


def open_study(
    size: Size,
    folder: Path,
    arms: Sequence[str] = (),
    seeds: int | None = None,
    corpus: str = "tinyshakespeare",
    device: str = "auto",
    compile: bool = False,
) -> Study:
    """A study by the names of its arms; without any, those of its size, and so with the seeds."""
    if unknown := [name for name in arms if name not in ARMS]:
        raise ConfigError(f"there is no arm {', '.join(unknown)}; there are {', '.join(ARMS)}")
    seeds, most = size.seeds if seeds is None else seeds, SWEEP_SEEDS[0] - FIRST_SEED
    if not 1 <= seeds <= most:
        raise ConfigError(
            f"seeds={seeds} must be between 1 and {most}; later ones are for learning rates"
        )
    chosen = [arm for name, arm in ARMS.items() if name in (arms or size.arms)]
    return Study(size, folder, chosen, seeds, corpus, device, compile)


def _keys(runs: pd.DataFrame) -> list[tuple]:
    return list(runs[["arm", "seed", "lr_factor"]].itertuples(index=False, name=None))
