"""Pictures that a learner keeps: files that never take the place of others."""

import re
from itertools import count
from pathlib import Path

from ..files import WORKSPACE, atomic_path
from ..plots import Picture
from .frame import safe

PICTURES = WORKSPACE / "my_work" / "pictures"


def save_picture(figure: Picture, name: str, kind: str) -> Path:
    """Write a figure as a new file, "png" or "svg": `name.png`, or if it exists `name-2.png`, …"""
    stem = re.sub(r"\W+", "-", name)
    numbered = (f"{stem}-{number}" if number > 1 else stem for number in count(1))
    path = next(p for p in (PICTURES / f"{name}.{kind}" for name in numbered) if not p.exists())
    with atomic_path(path) as new:
        figure.save(new)
    return path


def where(path: Path) -> str:
    """Where it is, for a learner to read, as HTML."""
    path = path.relative_to(WORKSPACE) if path.is_relative_to(WORKSPACE) else path
    return f"<div role='status'>Saved: <b>{safe(path.as_posix())}</b></div>"
