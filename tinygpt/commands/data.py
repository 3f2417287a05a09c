"""`data`: what a corpus holds."""

from collections.abc import Sequence
from dataclasses import dataclass

from tyro.conf import Positional

from ..text import load_corpus
from .arguments import read_arguments


@dataclass(frozen=True)
class DataArgs:
    """Fetch a text, and show what it holds."""

    corpus: Positional[str] = "tinyshakespeare"
    """tinyshakespeare, tinyplays, or file:PATH"""


def data(arguments: Sequence[str]) -> None:
    """Fetch a text, and show what it holds."""
    args = read_arguments(DataArgs, "data", arguments)
    corpus = load_corpus(args.corpus)
    print(corpus)
    print(f"alphabet: {corpus.tokenizer.characters!r}")
