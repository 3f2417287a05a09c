"""The two files of GPT-2's tokenizer: found on this machine, or fetched."""

import hashlib
from pathlib import Path

from ..errors import CorpusError
from ..hub import COMMITS, HubFile, fetch
from ..places import folders, home
from ..textfiles import is_there, reading

VOCABULARY, MERGES, FOLDER = "vocab.json", "merges.txt", "gpt2-bpe"
REPOSITORY = "openai-community/gpt2"
FILES = (
    HubFile(
        REPOSITORY,
        COMMITS[REPOSITORY],
        VOCABULARY,
        size=1_042_301,
        sha256="196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    ),
    HubFile(
        REPOSITORY,
        COMMITS[REPOSITORY],
        MERGES,
        size=456_318,
        sha256="1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    ),
)
HEADER = b"#version: 0.2\n"  # copies of merges.txt are about with and without it


def gpt2_folder() -> Path:
    """A folder with GPT-2's vocab.json and merges.txt, checked: data/gpt2-bpe/ or that in
    $TINYGPT_DATA, else data/gpt2-bpe/ after they have been fetched. `CorpusError` otherwise.
    """
    for folder in folders(FOLDER):
        if all(is_there(folder / wanted.file) for wanted in FILES):
            for wanted in FILES:
                _check(folder / wanted.file, wanted)
            return folder
    try:
        for wanted in FILES:
            fetch(wanted, home(FOLDER) / wanted.file)
    except CorpusError as error:
        raise CorpusError(
            f"GPT-2's tokenizer is not on this machine and could not be fetched ({error}). Put its "
            f"{VOCABULARY} and {MERGES} in {home(FOLDER)}, or train one: --tokenizer bpe:4000"
        ) from error
    return home(FOLDER)


def _check(path: Path, wanted: HubFile) -> None:
    with reading(path):
        content = path.read_bytes()
    found = {hashlib.sha256(start + content).hexdigest() for start in (b"", HEADER)}
    if wanted.sha256 not in found:
        raise CorpusError(
            f"{path} is not GPT-2's. Delete it, and it is fetched; a tokenizer of your own is read "
            f"by BPETokenizer.from_gpt2(folder)"
        )
