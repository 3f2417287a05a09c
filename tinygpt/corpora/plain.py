"""Corpora that are one text file: a registered one, or one of the user's own."""

from collections.abc import Iterator
from pathlib import Path

from ..errors import CorpusError
from ..files import resolve
from ..places import Remote, locate, shown
from ..textfiles import checksum, guard, is_there, length, pieces
from .documents import UNDIVIDED, Document, Texts

FILES: dict[str, Remote] = {
    "tinyshakespeare": Remote(
        file="input.txt",
        url="https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/"
        "input.txt",
        sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
        size=1_115_394,
    ),
}


def registered_file(name: str) -> Texts:
    """A corpus of `FILES`, which is in the public domain."""
    path = locate(name, FILES[name])
    return one_text(name, path, FILES[name].sha256, shown(path), "public domain")


def own_file(given: str) -> Texts:
    """The user's text at a path. The whole path is the name: a run goes on from any folder."""
    path = resolve(given)
    if not is_there(path):
        what = f"{path} is a folder" if path.is_dir() else f"there is no file {path}"
        raise CorpusError(
            f"{what}; after 'file:' comes the path of a text, after 'folder:' that of a folder"
        )
    return one_text(f"file:{path}", path, checksum(path), given, "yours")


def one_text(name: str, path: Path, sha256: str, source: str, licence: str) -> Texts:
    """One running text: the first 90 % of its tokens are for training."""

    def read() -> Iterator[Document]:
        yield Document(UNDIVIDED, pieces(path))

    return Texts(name, source, licence, sha256, length(path), read, guard({path: sha256}))
