"""Files of the Hugging Face Hub, each pinned by commit, size and SHA-256."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from .download import download
from .errors import CorpusError
from .files import atomic_path, sha256


@dataclass(frozen=True)
class HubFile:
    """A file of a repository on the hub, at one commit. `kind` is "model" or "dataset"."""

    repository: str
    commit: str
    file: str
    size: int  # bytes
    sha256: str
    kind: str = "model"


def fetch(wanted: HubFile, path: Path) -> None:
    """Put a file of the hub at `path`: from the hub's cache on this machine, else downloaded.

    HF_HOME, HF_ENDPOINT and HF_HUB_OFFLINE hold, as in all programs that use the hub. `CorpusError`
    at once without a network.
    """
    from huggingface_hub import constants, hf_hub_url, try_to_load_from_cache

    place = wanted.repository, wanted.file
    options = {"repo_type": wanted.kind, "revision": wanted.commit}
    cached = try_to_load_from_cache(*place, **options)
    if isinstance(cached, str) and sha256(Path(cached)) == wanted.sha256:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as new:
            shutil.copyfile(cached, new)
    elif constants.HF_HUB_OFFLINE:
        raise CorpusError(f"{'/'.join(place)} is not in the hub's cache, and HF_HUB_OFFLINE is set")
    else:
        download(hf_hub_url(*place, **options), path, wanted.sha256, wanted.size)
