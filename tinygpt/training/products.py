"""What a training that has come to its end leaves in its folder, to be read and shown."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from ..corpora import Corpus
from ..errors import CheckpointError
from ..files import as_json, atomic_path, read_json, write_text
from .checkpoint import load_checkpoint, new_folder, write_checkpoint
from .folder import BEST, CURVES, GENERATIONS, remove_checkpoint
from .log import MetricsLogger
from .manifest import SUMMARY, there, verify, write_manifest
from .run import Run
from .samples import write_samples
from .show import say
from .summary import MEASURED, summarise

TEXTS, LENGTH = 5, 100  # of generations.json
WEIGHTS = ("model.safetensors", "config.json", "tokenizer.json")


def tell(
    run: Run,
    step: int,
    corpus: Corpus,
    device: torch.device,
    metrics: MetricsLogger,
    measured: dict[str, float | None],
    val_loss: float | None = None,
) -> None:
    """Write best/, summary.json, generations.json and convergence.png into a run's folder.

    The first three are of the weights of `step`, the best ones, as they are stored. What cannot be
    written is said; the run itself is safe by now. See `summarise` for `measured` and `val_loss`;
    where no update was made, what had been measured of the same weights holds.
    """
    keep_weights(run, step)
    with _said():
        if measured["tokens_per_s"] is None:
            before = _told(run.folder / SUMMARY)
            measured = {name: before.get(name) for name in MEASURED}
        saved = load_checkpoint(run.step_folder(step))
        model = saved.model.to(device).eval()
        summary = summarise(model, saved, corpus, measured, val_loss)
        write_text(run.folder / SUMMARY, as_json(summary))
        samples = write_samples(model, corpus.name, TEXTS, LENGTH)
        write_text(run.folder / GENERATIONS, as_json({"step": step, "weights": "best"} | samples))
        draw(metrics, run.folder / CURVES)


def keep_weights(run: Run, step: int) -> None:
    """Make best/ a folder with the weights of a step, without the state of its training.

    It is as a shipped run is, so `load_run` takes it. The files are the checkpoint's own where the
    disk has hard links, else copies; they stay when that checkpoint is removed. What is told of
    other weights is removed before.
    """
    source, target = run.step_folder(step), run.folder / BEST
    with _said():
        whole = there(source / WEIGHTS[0])
        if whole:
            verify(source, WEIGHTS)  # or what is damaged would be listed as it is
        else:  # in shards
            saved = load_checkpoint(source)
            saved.training, saved.state = {}, {}
        forget_others(run, step)
        remove_checkpoint(target)
        with new_folder(target) as new:
            if whole:
                for name in WEIGHTS:
                    _link(source / name, new / name)
                write_manifest(new)
            else:
                write_checkpoint(new, saved)


def forget_others(run: Run, step: int) -> None:
    """Remove summary.json and generations.json if they tell of weights of another step."""
    for name, key in ((SUMMARY, "updates"), (GENERATIONS, "step")):
        if _told(run.folder / name).get(key) != step:
            (run.folder / name).unlink(missing_ok=True)


def _told(path: Path) -> dict[str, Any]:
    """What a file tells; nothing if it cannot be read."""
    with suppress(CheckpointError):
        return read_json(path)
    return {}


@contextmanager
def _said() -> Iterator[None]:
    try:
        yield
    except (OSError, CheckpointError) as error:
        say(f"what tells of the run is not complete: {error}")


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def draw(metrics: MetricsLogger, path: Path) -> None:
    """Draw the curves of a log, into a PNG or SVG file."""
    from ..plots import plot_convergence

    with atomic_path(path) as new:
        plot_convergence(metrics.frame()).save(new)
