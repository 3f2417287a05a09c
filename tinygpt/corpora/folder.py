"""A folder of the user's own texts."""

from collections.abc import Iterator
from pathlib import Path

from ..errors import CorpusError
from ..files import resolve
from ..textfiles import checksum, guard, length, pieces
from .documents import Document, Note, Texts, combined_checksum
from .splitting import arrange, profile

SHARES = {"val": 0.1}


def own_folder(given: str) -> Texts:
    """All .txt files in a folder and those below it, hidden ones excepted: about a tenth of them is
    for validation.

    A copy of a file is left out; files that share most of their text are in the same split. The
    whole path is the name: a run goes on from any folder.
    """
    folder = resolve(given)
    paths = {path.relative_to(folder).as_posix(): path for path in _text_files(folder)}
    if len(paths) < 2:
        raise CorpusError(
            f"{folder} has {len(paths)} .txt files, and it takes two: one to learn from, one to "
            f"validate on; a single text is file:PATH"
        )
    sums = {path: checksum(path) for path in paths.values()}
    return Texts(
        f"folder:{folder}",
        given,
        "yours",
        combined_checksum("folder", list(zip(paths, sums.values(), strict=True))),
        sum(map(length, paths.values())),
        lambda: _documents(paths),
        guard(sums),
    )


def _text_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise CorpusError(f"there is no folder {folder}; after 'folder:' comes the path of one")
    found = [path for path in folder.rglob("*.txt") if path.is_file()]
    return sorted(p for p in found if not any(n[0] == "." for n in p.relative_to(folder).parts))


def _documents(paths: dict[str, Path]) -> Iterator[Document | Note]:
    found = {name: profile("".join(pieces(path))) for name, path in paths.items()}
    split, notes = arrange(found, SHARES)
    if len(set(split.values())) < 2:
        raise CorpusError(
            f"all these files are one text: {'; '.join(notes)}. It takes two to have one for "
            f"validation; a single text is file:PATH"
        )
    yield from (Document(where, pieces(paths[name])) for name, where in split.items())
    yield from notes
