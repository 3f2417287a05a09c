"""The same comparison for runs of anybody's own."""

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import pandas as pd

from ..benchmark import Report
from ..config import MoEConfig, TrainConfig, to_dict
from ..corpora import load_corpus
from ..errors import ConfigError
from ..measure import count_parameters, evaluate, flops_per_token
from ..tables import Row
from ..training import Checkpoint, MetricsLogger, Run, identity, used_before
from .arms import Comparison
from .report import differences_report
from .verdict import judge

# settings that change nothing but chance: runs that differ in these alone are one arm
CHANCE = ("seed", "device", "compile", "strategy", "activation_checkpointing")
CHANCE += ("keep_last", "sample_tokens", "sample_prompt", "log")


@dataclass(frozen=True)
class OwnRun:
    """A run as it is compared. loss: of its best weights, on the whole validation split."""

    name: str
    seed: int
    loss: float
    budget: Row  # what it cost
    settings: dict[str, str]  # all that makes its arm, by name
    corpus: str


def compare_runs(names: Sequence[str]) -> list[Report]:
    """Runs that differ in chance alone form an arm; each arm is compared with each other.

    An arm is called after its first run; a run that is named twice counts once. `ConfigError` if
    the runs are of several texts, or two of an arm have the same seed.
    """
    once = {Run.open(name).folder.resolve(): name for name in names}
    runs = [read_run(name) for name in once.values()]
    if len({run.corpus for run in runs}) > 1:
        raise ConfigError(
            f"{', '.join(names)} were trained on several texts, or with several tokenizers; their "
            f"losses per token cannot be compared"
        )
    arms: dict[str, list[OwnRun]] = defaultdict(list)
    for run in runs:
        arms[json.dumps(run.settings, sort_keys=True)].append(run)
    for arm in arms.values():
        _check_seeds(arm)
    first = [arm[0].name for arm in arms.values()]
    losses = {arm[0].name: {run.seed: run.loss for run in arm} for arm in arms.values()}
    verdicts = judge(losses, [Comparison(a, b) for a, b in combinations(first, 2)])
    rows, notes = [_row(arm) for arm in arms.values()], _notes(list(arms.values()))
    return [Report("your runs", rows, notes), *differences_report(verdicts)]


def read_run(name: str) -> OwnRun:
    """What is compared of a run: a name under checkpoints/, or a path."""
    run = Run.open(name)
    saved = run.load("best")
    train, corpus = used_before(run.folder, saved)
    log = MetricsLogger(run.log).rows
    recipe = to_dict(replace(train, **{k: getattr(TrainConfig(), k) for k in CHANCE}))
    settings = _flat(to_dict(saved.model.config) | recipe)
    loss, budget = _loss(run, saved, corpus, log), _budget(saved, train, log)
    return OwnRun(name, train.seed, loss, budget, settings, corpus["sha256"])


def _budget(saved: Checkpoint, train: TrainConfig, log: list[Row]) -> Row:
    """What a run cost as far as its log goes; the seconds are with evaluations."""
    counts, T = count_parameters(saved.model), saved.model.config.block_size
    last = log[-1] if log else {}
    tokens = last.get("step", math.nan) * train.batch_size * train.grad_accum_steps * T
    return {
        "updates": last.get("step", math.nan),
        "seconds": last.get("seconds", math.nan),
        "TFLOPs": tokens * flops_per_token(saved.model) / 1e12,
        "active": counts.active,
        "parameters": counts.total,
    }


def _loss(run: Run, saved: Checkpoint, corpus: Row, log: list[Row]) -> float:
    """From the run's log, or measured anew where that does not have it."""
    step = saved.state.get("step")  # not known of a shipped run
    own = [row for row in log if step in (None, row["step"])]
    best = min(own, key=lambda row: row["val_lm_loss"], default={})
    if math.isfinite(loss := best.get("whole_val_lm_loss", math.nan)):
        return loss
    print(f"{run.folder.name}: its log has no loss of the whole split; measuring", flush=True)
    text = load_corpus(corpus["name"], saved.tokenizer)
    if identity(text)["sha256"] != corpus["sha256"]:
        raise ConfigError(
            f"{run.folder} was trained on another text than {corpus['name']} is by now; its loss "
            f"cannot be measured"
        )
    return evaluate(saved.model, text.val)


def _flat(settings: Row, start: str = "") -> dict[str, str]:
    """Settings in settings by names with a dot, as flags have them."""
    found = {}
    for name, value in settings.items():
        inner = _flat(value, f"{start}{name}.") if isinstance(value, dict) else None
        found |= {f"{start}{name}": json.dumps(value)} if inner is None else inner
    return found


# of experts: what is not worth a word
_USUAL = _flat(
    {"moe": {k: v for k, v in to_dict(MoEConfig()).items() if k not in ("n_experts", "top_k")}}
)


def _check_seeds(arm: list[OwnRun]) -> None:
    by_seed = {run.seed: run.name for run in arm}
    if len(by_seed) < len(arm):
        twice = next(run for run in arm if by_seed[run.seed] != run.name)
        raise ConfigError(
            f"{twice.name} and {by_seed[twice.seed]} have the same settings and seed={twice.seed}: "
            f"that is one run, made twice; train with another --seed"
        )


def _row(arm: list[OwnRun]) -> Row:
    losses = pd.Series([run.loss for run in arm])
    row = {"arm": arm[0].name, "runs": len(arm), "loss": losses.mean(), "sd": losses.std()}
    return row | pd.DataFrame([run.budget for run in arm]).mean().to_dict()


def _notes(arms: list[list[OwnRun]]) -> list[str]:
    """What the arms consist of, in what they differ, and what is lacking for a verdict."""
    told = [
        "loss: of the best weights on the whole validation split, nats per token; seconds: on "
        "whatever machine each was trained"
    ]
    settings = [arm[0].settings for arm in arms]
    alike = set.intersection(*(set(own.items()) for own in settings)) | _USUAL.items()
    for arm, own in zip(arms, settings, strict=True):
        runs = ", ".join(f"{run.name} (seed {run.seed}) {run.loss:.4f}" for run in arm)
        differs = ", ".join(f"{k}={v}" for k, v in own.items() if (k, v) not in alike)
        told.append(f"{arm[0].name}: {runs}" + f"; {differs}" * bool(differs))
    if alone := [arm[0].name for arm in arms if len(arm) == 1]:
        told.append(
            f"of {', '.join(alone)} there is one run, and one run has no interval: seeds alone "
            f"make differences. Train with the same settings and other seeds (train … --seed 2), "
            f"and name all runs here"
        )
    return told
