"""Runs to ship: the best model of a run with what is told of it, and whether that is true."""

import copy
import math
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch

from ..corpora import Corpus
from ..errors import CheckpointError, ConfigError, CorpusError, NonFiniteError
from ..files import read_json
from ..model import TinyGPT
from ..runtime import pick_device
from .checkpoint import Checkpoint, new_folder, write_checkpoint
from .folder import Folder
from .log import MetricsLogger
from .manifest import SAMPLES, SUMMARY, there
from .preflight import find_text
from .run import Run, new_place
from .samples import write_samples
from .summary import MEASURED, summarise, whole_loss
from .tensors import not_finite

STORED = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
TOLERANCE = 1e-3  # nats
TEXTS, LENGTH = 10, 300  # of samples.json


def export_run(
    run: str | Path, folder: str | Path, dtype: str = "fp32", corpus: Corpus | None = None
) -> None:
    """Write the best model of a run, without its training state, as a run to ship: all or nothing.

    Both are names under checkpoints/, or paths. The weights are stored as `dtype`, "fp32", "bf16"
    or "fp16", and loaded as float32 again. summary.json and samples.json tell what they do as they
    are stored: see `summarise`. That takes the text that the run was trained on: `corpus`, else
    what its name leads to; without it a warning says so.
    """
    if dtype not in STORED:
        raise ConfigError(f"dtype={dtype!r} must be one of {', '.join(STORED)}")
    source, target = Run.open(run), new_place(folder)
    best, tables = source.load("best"), source.load_tables()
    if bad := not_finite(best.model.to(STORED[dtype])):
        raise NonFiniteError(f"{dtype} cannot hold the weights in {', '.join(bad)}; choose another")
    best.about = _told(source.folder, best, corpus)
    best.training, best.state = {}, {}
    with new_folder(target) as new:
        write_checkpoint(new, best)
        shipped = Folder(new)
        if there(source.log):
            shutil.copyfile(source.log, shipped.log)
        if tables:
            shipped.save_tables(tables)


def _told(folder: Path, best: Checkpoint, corpus: Corpus | None) -> dict[str, dict]:
    """The files that tell of a checkpoint, by name."""
    try:
        corpus = find_text(folder, best, corpus)
    except CorpusError as error:
        corpus = None
        warnings.warn(f"{SUMMARY} will hold no loss: {error}", stacklevel=3)
    model = _in_float32(best.model)
    said = best.settings.get("corpus")
    known = isinstance(said, dict) and isinstance(said.get("name"), str)
    name = corpus.name if corpus else said["name"] if known else ""
    # on the CPU, where anybody can write them again
    samples = write_samples(model, name, TEXTS, LENGTH)
    summary = summarise(model.to(pick_device()), best, corpus, _measured(folder, best))
    return {SUMMARY: summary, SAMPLES: samples}


def _measured(folder: Path, best: Checkpoint) -> dict[str, float | None]:
    """What only the machine of the training could measure, if the run was told to its end."""
    told = best.about.get(SUMMARY, {})
    if there(folder / SUMMARY) and not told:
        told = read_json(folder / SUMMARY)
    return {name: told.get(name) for name in MEASURED}


def _in_float32(model: TinyGPT) -> TinyGPT:
    other = copy.deepcopy(model, {id(model.tokenizer): model.tokenizer})
    return other.float().eval()


@dataclass(frozen=True)
class Verified:
    """A loss on the whole validation split, as a run has it on record and as its weights have it.

    Both in nats per token; `source` is the file that has the record.
    """

    recorded: float
    found: float
    source: str

    @property
    def holds(self) -> bool:
        """Whether they agree as far as two processors would."""
        return abs(self.found - self.recorded) <= TOLERANCE  # not if one is NaN


def verify_run(name: str | Path) -> Verified:
    """Compute a run's loss on the whole validation split anew, from its best weights.

    `CorpusError` if its text is not to be had; `CheckpointError` if it is damaged, or has no such
    loss on record.
    """
    run = Run.open(name)
    saved = run.load("best")
    recorded, source = _recorded(run, saved)
    corpus = find_text(run.folder, saved)
    model = saved.model.to(pick_device()).eval()
    return Verified(recorded, whole_loss(model, corpus), source)


def _recorded(run: Run, saved: Checkpoint) -> tuple[float, str]:
    """From the summary, or else the log, which knows it of the last and of the best weights."""
    if SUMMARY in saved.about:
        loss, source = saved.about[SUMMARY].get("val_lm_loss"), SUMMARY
    else:
        rows = [r for r in MetricsLogger(run.log).rows if math.isfinite(r["whole_val_lm_loss"])]
        best = min(rows, key=lambda row: row["val_lm_loss"], default={})
        loss, source = best.get("whole_val_lm_loss"), run.log.name
    if not isinstance(loss, float):
        raise CheckpointError(
            f"{run.folder} has no loss of the whole validation split on record, in its {source}; "
            f"train it to its end, or export it where its text is"
        )
    return loss, source
