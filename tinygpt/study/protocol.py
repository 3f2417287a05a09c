"""What a study consists of, and what there is of it in the tables of its folder."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import pandas as pd
import torch

from ..corpora import Corpus, load_corpus
from ..errors import ConfigError
from ..runtime import pick_device
from ..tables import Row
from .arms import Arm, Design
from .records import Records, fingerprint

FIRST_SEED = 1
SWEEP_SEED = 101  # the first of those for learning rates, which are not reported


@dataclass(frozen=True)
class Study:
    """Arms of one design on one text, with so many seeds.

    What is in the tables is never made again, unless its recipe or the learning rate that was
    chosen is another by now. A study goes on with the kind of device that its runs so far were made
    on.
    """

    design: Design
    folder: Path
    arms: Sequence[Arm]
    seeds: int
    corpus_name: str
    wanted_device: str = "auto"
    compile: bool = False

    @cached_property
    def records(self) -> Records:
        """The tables."""
        return Records(self.folder)

    @cached_property
    def corpus(self) -> Corpus:
        """The text; loaded when something is trained on it."""
        return load_corpus(self.corpus_name, self.design.tokenizer)

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

    def check_trainable(self) -> None:
        """Raise `ConfigError` if nothing can be trained here, or not as before."""
        here, made = pick_device(str(self.device)), self.devices()
        if self.design.cuda_only and here.type != "cuda":
            raise ConfigError(
                f"the study {self.design.name} is trained on a CUDA device only, and device is "
                f"{here.type}; on this machine make another, or print what there is "
                f"(--until report)"
            )
        if set(made) - {here.type}:
            raise ConfigError(
                f"the runs of this study in {self.folder} were made on {' and '.join(made)}, and "
                f"device is {here.type}, which computes otherwise; go on there, or choose another "
                f"folder (--out)"
            )
        if set(self.costs()["compiled"]) - {str(self.compile)}:
            raise ConfigError(
                f"the updates of this study in {self.folder} were timed with "
                f"compile={not self.compile}, and now compile={self.compile}; go on as before, or "
                f"choose another folder (--out)"
            )

    def runs(self) -> pd.DataFrame:
        """The finished runs of its arms and seeds, with the learning rates that were chosen."""
        found, chosen = self._made(self.records.runs.read()), self.lr_factors()
        wanted = found["arm"].isin([arm.name for arm in self.arms])
        wanted &= found["seed"].isin(self.seed_range)
        return found[wanted & (found["lr_factor"] == found["arm"].map(chosen))]

    def details(self, name: Literal["evaluations", "heads", "experts", "samples"]) -> pd.DataFrame:
        """What another table says of the finished runs."""
        found = self._mine(getattr(self.records, name).read())
        return found.merge(self.runs()[["arm", "seed"]])

    def sweep(self) -> pd.DataFrame:
        """The finished trials of learning rates."""
        found = self._made(self.records.sweep.read())
        found = found[found["updates"] == self.sweep_updates]
        return found[found["seed"].isin(self.sweep_seeds)]

    def lr_factors(self) -> dict[str, float]:
        """For each arm the factor with the lowest mean loss over the sweep's seeds.

        NaN as long as not all factors were tried.
        """
        arms, factors = self.design.arms, list(self.design.factors)
        if len(factors) == 1:
            return dict.fromkeys(arms, factors[0])
        losses = self.sweep().pivot_table("best_val_loss", "arm", "lr_factor")
        losses = losses.reindex(columns=factors).dropna()
        best = dict(zip(losses.index, losses.idxmin(axis="columns"), strict=True))
        return {name: best.get(arm.tuned_as, math.nan) for name, arm in arms.items()}

    def costs(self) -> pd.DataFrame:
        """What an update costs on such a device."""
        found = self._mine(self.records.costs.read())
        return found[found["device"] == self.device.type]

    def ms(self) -> dict[str, float]:
        """Milliseconds per update of each arm; of a model that was not timed, its like's."""
        timed = self.costs().set_index("arm")["ms"]
        return {name: timed.get(arm.tuned_as, math.nan) for name, arm in self.design.arms.items()}

    @property
    def unit(self) -> Row:
        """What its rows of all tables have in common."""
        return {"corpus": self.corpus_name, "study": self.design.name}

    def _mine(self, table: pd.DataFrame) -> pd.DataFrame:
        """The rows of a table that are of this study and text, in the order of its arms."""
        mine = (table["study"] == self.design.name) & (table["corpus"] == self.corpus_name)
        place = {name: i for i, name in enumerate(self.design.arms)}
        return table[mine].sort_values("arm", key=lambda arm: arm.map(place), kind="stable")

    def _made(self, table: pd.DataFrame) -> pd.DataFrame:
        """The rows of runs that would be made alike now."""
        arms = self.design.arms
        recipes = {name: fingerprint(arm, self.design) for name, arm in arms.items()}
        table = self._mine(table)
        return table[table["recipe"] == table["arm"].map(recipes)]

    @property
    def seed_range(self) -> range:
        """The seeds of its runs."""
        return range(FIRST_SEED, FIRST_SEED + self.seeds)

    @property
    def sweep_seeds(self) -> range:
        """The seeds with which learning rates are tried."""
        return range(SWEEP_SEED, SWEEP_SEED + self.design.sweep_seeds)

    @property
    def sweep_updates(self) -> int:
        """How many updates a trial of a learning rate makes."""
        return self.design.sweep_updates or self.design.train.max_steps


def open_study(
    design: Design,
    folder: Path,
    arms: Sequence[str] = (),
    seeds: int | None = None,
    corpus: str | None = None,
    device: str = "auto",
    compile: bool = False,
) -> Study:
    """A study by the names of its arms; without any, those of its design, and so with the rest."""
    if unknown := [name for name in arms if name not in design.arms]:
        raise ConfigError(
            f"there is no arm {', '.join(unknown)} in the study {design.name}; "
            f"there are {', '.join(design.arms)}"
        )
    seeds, most = design.seeds if seeds is None else seeds, SWEEP_SEED - FIRST_SEED
    if not 1 <= seeds <= most:
        raise ConfigError(
            f"seeds={seeds} must be between 1 and {most}; later ones are for learning rates"
        )
    wanted = arms or design.usual or design.arms
    chosen = [arm for name, arm in design.arms.items() if name in wanted]
    return Study(design, folder, chosen, seeds, corpus or design.corpus, device, compile)
