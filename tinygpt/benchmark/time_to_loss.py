"""How much training a loss takes: the quickest recipe, and what each trick in it is worth."""

import hashlib
import json
import math
import statistics
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import torch

from ..config import ModelConfig, TrainConfig, unusual
from ..corpora import Corpus, load_corpus
from ..files import locked
from ..measure import count_parameters, evaluate, holm, paired_difference
from ..model import TinyGPT
from ..presets import PRESETS
from ..runtime import one_thread, pick_device
from ..tables import Columns, Row, Table
from ..training import Trainer
from . import tricks
from .report import Report, machine

GOAL = 1.88  # nats per character on the whole validation split; nanoGPT's CPU example gives 1.89
UPDATES = PRESETS["speedrun"].train.max_steps
LONGER = 1.5  # times as many updates, until the goal is reached
MOST = 4000  # updates
FIRST_SEED = 21  # the first of those used: not those by which the recipe was found
KEY: Columns = {"arm": str, "updates": int, "seed": int}
COLUMNS: Columns = {
    **KEY,
    "recipe": str,
    "loss": float,
    "seconds": float,
    "parameters": int,
    "device": str,
    "processor": str,
}


@dataclass(frozen=True)
class Arm:
    """A recipe: a model and its training, and whose code makes them."""

    model: ModelConfig = PRESETS["speedrun"].model
    train: TrainConfig = PRESETS["speedrun"].train
    kind: type[TinyGPT] = TinyGPT
    trainer: type[Trainer] = Trainer
    updates: int | None = None  # None: as many as the quickest recipe, then as many as it takes

    @property
    def fingerprint(self) -> str:
        """Another one for another recipe: of its settings, and whose code makes it.

        Only what is not the default counts, so that a setting that is added later, and off,
        changes nothing.
        """
        code = self.kind.__qualname__, self.trainer.__qualname__
        recipe = [unusual(self.model), unusual(self.train), *code, self.updates]
        return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:8]


def _with(**settings) -> Arm:
    """The quickest recipe but for some settings, of the model or of its training."""
    base = Arm()
    model = {name: value for name, value in settings.items() if hasattr(base.model, name)}
    train = {name: value for name, value in settings.items() if name not in model}
    return Arm(replace(base.model, **model), replace(base.train, **train))


ARMS: dict[str, Arm] = {
    "speedrun": Arm(),
    # one part taken out
    "without bigrams": _with(bigrams=0),
    "1,024 hashed bigrams": _with(bigrams=1024),
    "AdamW for Muon": _with(optimizer="adamw"),
    "learned positions": _with(position="learned"),
    "LayerNorm": _with(norm="layernorm"),
    "no QK norm": _with(qk_norm=False),
    "GELU": _with(mlp="gelu"),
    "ReLU²": _with(mlp="relu2"),
    "tied embeddings": _with(tie_embeddings=True),
    "cosine schedule": _with(schedule="cosine"),
    "Muon momentum 0.95": _with(muon_momentum=0.95),
    # another start, another shape
    "zero start": _with(zero_init=True),
    "4 heads": _with(n_head=4),
    "2 layers": _with(n_layer=2),
    "128 channels": _with(n_embd=128),
    "4 layers of 128 channels": _with(n_layer=4, n_embd=128),
    "half the batch": _with(batch_size=PRESETS["speedrun"].train.batch_size // 2),
    # one trick added
    "token shift": _with(token_shift=True),
    "token shift, attention too": Arm(kind=tricks.TokenShift),
    "value embeddings": Arm(kind=tricks.ValueEmbeddings),
    "soft-capped logits": Arm(kind=tricks.SoftCap),
    "two tokens ahead": Arm(kind=tricks.TwoTokens),
    "averaged weights": Arm(trainer=tricks.Averaged),
    "dropout 0.1": _with(dropout=0.1),
    "weight decay 0.1": _with(weight_decay=0.1),
    "cautious weight decay 0.1": Arm(trainer=tricks.CautiousDecay),
    "Polar Express": Arm(trainer=tricks.PolarExpress),
    "4 Newton-Schulz steps": Arm(trainer=tricks.FourSteps),
    "3 Newton-Schulz steps": Arm(trainer=tricks.ThreeSteps),
    "batch grows": Arm(trainer=tricks.GrowingBatch),
    "context grows": Arm(trainer=tricks.GrowingContext),
    # what to compare with
    "modern": Arm(PRESETS["modern"].model, PRESETS["modern"].train),
    "nanogpt-cpu": Arm(PRESETS["nanogpt-cpu"].model, PRESETS["nanogpt-cpu"].train, updates=2000),
}


def time_to_loss(runs: Path, rounds: int = 5, device: str = "auto") -> Report:
    """Train every recipe with so many seeds, longer or shorter, until its mean loss is known on
    both sides of the goal; report what each is worth.

    Finished runs are kept in the CSV file `runs`, and never made twice. The seconds are those of
    the updates, without evaluations; on a CPU those of one thread, however busy the machine is.
    """
    where = pick_device(device)
    with locked(runs.with_name(f".{runs.name}.busy")):
        rows, seeds = read_runs(runs), range(FIRST_SEED, FIRST_SEED + rounds)
        rows = [row for row in rows if row["device"] == where.type]
        while waiting := _waiting(rows, seeds):
            corpus = load_corpus("tinyshakespeare")
            for arm, updates, seed in waiting:
                rows.append(_run(arm, updates, seed, corpus, where))
                _table(runs).add(rows[-1:])
    return report_of([row for row in rows if row["seed"] in seeds])


def report_of(rows: list[Row]) -> Report:
    """What finished runs say of each recipe."""
    by_arm = defaultdict(list)
    for row in rows:
        by_arm[row["arm"]].append(row)
    base = {row["seed"]: row["loss"] for row in by_arm["speedrun"] if row["updates"] == UPDATES}
    table = [_summary(arm, by_arm[arm], base) for arm in ARMS if _equal(arm, by_arm[arm])]
    compared = [row for row in table if not math.isnan(row["p"])]
    for row, p in zip(compared, holm([row["p"] for row in compared]), strict=True):
        row["p_holm"] = p
    notes = [
        f"change: of the loss at {UPDATES} updates from speedrun's of the same seed, the mean with "
        f"half its 95 % interval; p: of it alone, p_holm: corrected for {len(compared)} recipes",
        f"seconds_to_goal: of the updates, until the mean loss is {GOAL}",
        f"from {len(rows)} runs, on {', '.join(sorted({row['processor'] for row in rows}))}",
    ]
    return Report("time to a loss, Tiny Shakespeare", table, notes)


def _waiting(rows: list[Row], seeds: range) -> list[tuple[str, int, int]]:
    """The runs that are made next: recipe, updates, seed."""
    done = {tuple(row[name] for name in KEY) for row in rows}
    lengths = {arm: next_updates(arm, rows, seeds) for arm in ARMS}
    # seeds outside: where the machine slows down for a while, it does so for all recipes
    runs = [(arm, n, seed) for seed in seeds for arm, n in lengths.items() if n is not None]
    return [run for run in runs if run not in done]


def next_updates(arm: str, rows: list[Row], seeds: range) -> int | None:
    """For how many updates a recipe is trained next; None if enough is known of it."""
    means = _means([row for row in rows if row["arm"] == arm and row["seed"] in seeds], len(seeds))
    fixed = ARMS[arm].updates
    if fixed or UPDATES not in means:
        return None if fixed in means else fixed or UPDATES
    missed = [n for n, loss in means.items() if loss > GOAL]
    reached = [n for n, loss in means.items() if loss <= GOAL]
    if missed and reached:
        return None
    updates = round(min(reached) / LONGER) if reached else round(max(missed) * LONGER)
    return updates if 1 < updates <= MOST else None


def seconds_to_goal(rows: list[Row]) -> float:
    """Seconds in which a recipe's mean loss falls to the goal; nan where that is not known.

    Between two lengths of training the loss is taken to fall evenly with the updates' logarithm.
    """
    means = sorted(_means(rows, len({row["seed"] for row in rows})).items())
    for (n, above), (m, below) in pairwise(means):
        if above > GOAL >= below:
            share = (above - GOAL) / (above - below)
            updates = n * (m / n) ** share
            return updates * statistics.fmean(row["seconds"] / row["updates"] for row in rows)
    return math.nan


def read_runs(path: Path) -> list[Row]:
    """The finished runs that a file holds; none if there is no file. Those of recipes that are not
    the same any more are left out."""
    rows = _table(path).read().to_dict("records")
    return [row for row in rows if row["recipe"] == _fingerprints().get(row["arm"])]


def _table(path: Path) -> Table:
    return Table(path, COLUMNS, [*KEY, "device"])


def _fingerprints() -> dict[str, str]:
    return {name: arm.fingerprint for name, arm in ARMS.items()}


def _run(arm: str, updates: int, seed: int, corpus: Corpus, device: torch.device) -> Row:
    recipe, vocab_size = ARMS[arm], corpus.tokenizer.vocab_size
    torch.manual_seed(seed)
    model = recipe.kind(replace(recipe.model, vocab_size=vocab_size))
    config = replace(recipe.train, max_steps=updates, seed=seed, device=str(device))
    trainer = recipe.trainer(model, corpus, config)
    on_cpu = device.type == "cpu"
    clock = time.process_time if on_cpu else time.perf_counter
    with one_thread(on_cpu):
        start = clock()
        for _ in range(updates):
            trainer.train_step()
        seconds = clock() - start
        loss = evaluate(model, corpus.val)
    print(f"{arm}, {updates} updates, seed {seed}: {loss:.4f} in {seconds:.1f} s", flush=True)
    values = [arm, updates, seed, recipe.fingerprint, round(loss, 4), round(seconds, 2)]
    values += [count_parameters(model).total, device.type, machine(device)["processor"]]
    return dict(zip(COLUMNS, values, strict=True))


def _means(rows: list[Row], seeds: int) -> dict[int, float]:
    """The mean loss for each number of updates that all seeds have made."""
    losses = defaultdict(list)
    for row in rows:
        losses[row["updates"]].append(row["loss"])
    return {n: statistics.fmean(values) for n, values in losses.items() if len(values) == seeds}


def _equal(arm: str, rows: list[Row]) -> list[Row]:
    """A recipe's runs of as many updates as the quickest makes, or of those that it always has."""
    return [row for row in rows if row["updates"] == (ARMS[arm].updates or UPDATES)]


def _summary(arm: str, rows: list[Row], base: dict[int, float]) -> Row:
    """A recipe's row of the table; `base` has the quickest recipe's loss by seed."""
    equal = _equal(arm, rows)
    losses, change = [row["loss"] for row in equal], None
    pairs = [(row["loss"], base[row["seed"]]) for row in equal if row["seed"] in base]
    if arm != "speedrun" and ARMS[arm].updates is None and len(pairs) > 1:
        change = paired_difference(*zip(*pairs, strict=True))
    return {
        "recipe": arm,
        "parameters": equal[0]["parameters"],
        "updates": equal[0]["updates"],
        "loss": statistics.fmean(losses),
        "sd": statistics.stdev(losses) if len(losses) > 1 else math.nan,
        "change": change.mean if change else math.nan,
        "half_interval": change.high - change.mean if change else math.nan,
        "p": change.p if change else math.nan,
        "p_holm": math.nan,  # known when all are
        "seconds": statistics.fmean(row["seconds"] for row in equal),
        "seconds_to_goal": seconds_to_goal(rows),
    }
