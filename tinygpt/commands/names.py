"""Names of presets and runs: what they stand for, and what was meant by one that is none."""

import difflib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..console import program, waiting
from ..corpora import corpus_names
from ..errors import CheckpointError, ConfigError
from ..files import resolve
from ..presets import PRESETS, Preset, find_preset
from .settings import read_settings_file

if TYPE_CHECKING:
    from ..model import TinyGPT

STORIES, BOOKS = "tinystories", "gutenberg-pt"
CORPORA = f"{', '.join(corpus_names())} (several: NAME+NAME), file:PATH or folder:PATH"
TOKENIZERS = "char, gpt2, bpe:4000, wordpiece:4000 (any number), or the path of a tokenizer.json"


def did_you_mean(name: str, names: dict[str, Iterable[str]]) -> str:
    """The end of a message: what is spelt nearly alike, of each kind of names; or nothing.

    >>> did_you_mean("tinny", {"the preset": ["tiny"], "the run": ["mine"]})
    '; did you mean the preset tiny?'
    """
    near = [
        f"{kind} {match}".lstrip()
        for kind, known in names.items()
        for match in difflib.get_close_matches(name[:100], list(known), n=1)
    ]
    return f"; did you mean {' or '.join(near)}?" if near else ""


def preset_named(name: str) -> Preset:
    """The preset of this name; the error names what is near, also among the runs."""
    try:
        return find_preset(name)
    except ConfigError as error:
        near = did_you_mean(name, {"the preset": PRESETS, "--resume": run_list()})
        raise ConfigError(f"{error}{near}") from None


def run_named(name: str, others: dict[str, Iterable[str]] | None = None) -> Path:
    """The folder of this run; the error names what is near, also among the presets."""
    from ..training import find_run

    try:
        return find_run(name)
    except CheckpointError as error:
        if name in PRESETS:
            hint = f". {name} is a preset; train it: {program()} train --preset {name}"
        else:
            hint = did_you_mean(name, {"the run": run_list()} | (others or {}))
        raise CheckpointError(f"{error}{hint}") from None


def corpus_name(name: str, count: int | None = None, kind: str = STORIES) -> str:
    """The corpus that is meant: of one of stories, or of books, so many of them."""
    if count is None:
        return name
    if name != kind:
        flag = "--num-stories" if kind == STORIES else "--books"
        raise ConfigError(f"{flag} is for the corpus {kind}, not for {name:.100}")
    return f"{name}:{count}"


def model_named(source: str, which: str = "best") -> "TinyGPT":
    """The model of a run, of a folder of transformers, or of the hub; on the CPU, in eval mode."""
    from ..training import load_pretrained, load_run, pretrained_place

    place = pretrained_place(source)
    with waiting(f"loading {source}"):
        if place is not None:
            return load_pretrained(place)
        return load_run(run_named(source), which, device="cpu")


def whole_source(source: str) -> str:
    """What `model_named` takes, as any folder understands it."""
    from ..training import Run, pretrained_place

    return str(pretrained_place(source) or Run.place(source))


def with_tokenizer(source: str) -> "TinyGPT":
    """What `model_named` gives; `ConfigError` if it has no tokenizer to train on with."""
    model = model_named(source)
    if model.tokenizer is None:
        raise ConfigError(f"{source}: there is no tokenizer that is read here with the model")
    return model


def run_to_resume(name: str, out: str | None, preset: str | None) -> tuple[Path, str]:
    """The run that goes on, and from which checkpoint: its latest, if a run is named.

    `latest` and `best` mean those of the run in `out`; without one, of that run under checkpoints/
    which was at work last, of all or of those of a preset. A path may be that of a checkpoint.
    """
    from ..training import checkpoints

    if name in ("latest", "best"):
        return run_named(out) if out is not None else _last_run(preset), name
    if out is not None or preset is not None:
        raise ConfigError("--resume goes on in the run's own folder: leave --out, --preset away")
    path = resolve(name)
    there_are = checkpoints(path.parent)
    if path in there_are:
        return path.parent, path.name
    meant = Path(name).name != name or name.startswith("step_")  # else it is a run's bare name
    if there_are and meant and not path.exists():
        found = ", ".join(folder.name for folder in there_are)
        raise CheckpointError(f"{path.parent} has no checkpoint {path.name!r:.99}, but {found}")
    return run_named(name, {"--resume": ("latest", "best")}), "latest"


def _last_run(preset: str | None) -> Path:
    """The run under checkpoints/ with the newest checkpoint; `preset`: of those that name it."""
    from ..training import RUNS, Run, run_names

    runs = [Run(RUNS / name) for name in run_names()]
    trained = [
        run
        for run in runs
        if not run.shipped() and preset in (None, settings_of(run.folder).get("preset"))
    ]
    if not trained:
        of = "" if preset is None else f" of the preset {preset}"
        raise CheckpointError(f"there is no run{of} under {RUNS} to go on with; name one")
    return max(trained, key=lambda run: run.checkpoints()[-1].stat().st_mtime_ns).folder


def settings_of(folder: Path) -> dict[str, Any]:
    """What a run says that it was started with; empty if it says nothing."""
    from ..training import Run

    try:
        return read_settings_file(Run(folder).settings)
    except (ConfigError, OSError):
        return {}


def run_list() -> list[str]:
    """The names by which runs under checkpoints/ can be had, as far as one may look."""
    from ..training import FORMER, run_names

    try:
        found = run_names()
    except CheckpointError:  # nobody may look
        return []
    return found + [old for old, new in FORMER.items() if new in found and old not in found]


def path_of_run(name: str) -> str:
    """A path, where the mere name would be that of a preset."""
    folder = run_named(name)
    path = os.path.relpath(folder)
    return path if os.sep in path else str(folder)
