"""Names of presets and runs: what they stand for, and what was meant by one that is none."""

import difflib
import os
from collections.abc import Iterable
from pathlib import Path

from ..console import program
from ..errors import CheckpointError, ConfigError
from ..presets import PRESETS, Preset, find_preset


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
