"""Files of the Hugging Face Hub, each pinned by commit, size and SHA-256; and whole models."""

import shutil
import socket
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from .download import download
from .errors import CheckpointError, CorpusError
from .files import atomic_path, sha256

COMMITS = {  # models are read as they were then; others as they are now
    "openai-community/gpt2": "607a30d783dfa663caf39e06633721c8d4cfcd7e",
    "openai-community/gpt2-medium": "6dcaa7a952f72f9298047fd5137cd6e4f05f41da",
    "openai-community/gpt2-large": "32b71b12589c2f8d625668d2335a01cac3249519",
    "openai-community/gpt2-xl": "15ea56dee5df4983c59b2538573817e1667135e2",
}
# of a model's files: not the same weights in other forms, some of which can hold programs
NEEDED = ["config.json", "model*.safetensors", "model.safetensors.index.json"]
NEEDED += ["tokenizer.json", "vocab.json", "merges.txt", "tinygpt_tokenizer.json"]


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
        _copy(Path(cached), path)
    elif constants.HF_HUB_OFFLINE:
        raise CorpusError(f"{'/'.join(place)} is not in the hub's cache, and HF_HUB_OFFLINE is set")
    else:
        download(hf_hub_url(*place, **options), path, wanted.sha256, wanted.size)


def _copy(source: Path, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as new:
            shutil.copyfile(source, new)
    except OSError as error:
        raise CorpusError(f"could not copy {source} to {path}: {error!r}") from error


def snapshot(model: str, endpoint: str | None = None) -> Path:
    """The folder of a model of the hub, `owner/name`, in the hub's cache on this machine.

    What is missing there is downloaded, and nothing but what a model needs. `endpoint` is another
    server than the hub (else HF_ENDPOINT). `CheckpointError` if the model cannot be had, without a
    network at once.
    """
    from huggingface_hub import constants, snapshot_download

    lost = _lost(endpoint or constants.ENDPOINT)  # the client would try again for half a minute
    where = {"revision": COMMITS.get(model), "endpoint": endpoint, "local_files_only": bool(lost)}
    try:
        return Path(snapshot_download(model, allow_patterns=NEEDED, **where))
    except Exception as error:  # of the hub's client, whose errors have no name in common
        reason = lost or " ".join(str(error).split())
        raise CheckpointError(
            f"{model} is not on this machine, and the hub does not give it ({reason:.300}). On a "
            f"machine with a network, hf download {model} --local-dir FOLDER makes a folder to give"
        ) from error


def _lost(url: str) -> str:
    """Why a server cannot be looked up, or nothing; a proxy does that itself."""
    try:
        host = urlsplit(url).hostname
        if not host:
            raise ValueError(url)
        if not getproxies().keys() - {"no"}:
            socket.getaddrinfo(host, None)
    except OSError:
        return f"no network: {host} has no address"
    except ValueError:
        return f"the endpoint {url!r} (HF_ENDPOINT) must be https:// and the name of a server"
    return ""
