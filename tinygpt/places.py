"""Where the files of corpora lie: looked for on this machine, checked, else downloaded."""

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from . import hub
from .download import download
from .errors import CorpusError
from .files import WORKSPACE
from .textfiles import checksum, is_there


@dataclass(frozen=True)
class Remote:
    """A file of a corpus, and where it can be had."""

    file: str
    url: str
    sha256: str
    size: int  # bytes


def home(corpus: str) -> Path:
    """The folder that a corpus is fetched into."""
    return WORKSPACE / "data" / corpus


def folders(corpus: str) -> list[Path]:
    """The folders in which a corpus is looked for, in this order."""
    shared = os.environ.get("TINYGPT_DATA")
    return [home(corpus), *([WORKSPACE / os.path.expanduser(shared) / corpus] if shared else [])]


def find(corpus: str, file: str) -> Path | None:
    """A file of a corpus on this machine, as it lies there; None if it is nowhere."""
    return next((f / file for f in folders(corpus) if is_there(f / file)), None)


def shown(path: Path) -> str:
    """How a file of a corpus is named to the user: data/NAME/FILE or $TINYGPT_DATA/NAME/FILE."""
    inside = path.is_relative_to(WORKSPACE / "data")
    return f"{'data' if inside else '$TINYGPT_DATA'}/{path.parent.name}/{path.name}"


def locate(corpus: str, remote: Remote | hub.HubFile) -> Path:
    """The checked file; downloads it if it is nowhere on this machine."""
    name = PurePosixPath(remote.file).name  # without the folder that it has on the hub
    found = [folder / name for folder in folders(corpus) if is_there(folder / name)]
    for path in found:
        if checksum(path) == remote.sha256:
            return path
    if found:
        raise CorpusError(
            f"{found[0]} is not the text it should be (its sha256 does not begin with "
            f"{remote.sha256[:12]}). Delete it, and it is fetched again; for a text of your own "
            f"use file:PATH"
        )
    path = home(corpus) / name
    try:
        if isinstance(remote, Remote):
            download(remote.url, path, remote.sha256, remote.size)
        else:
            hub.fetch(remote, path)
    except CorpusError as error:
        raise CorpusError(
            f"{corpus} is not on this machine and could not be fetched ({error}). Put it at "
            f"{path}; what needs no text in particular can use the built-in one: "
            f"load_corpus('tinyplays'), --corpus tinyplays"
        ) from error
    return path
