"""`data`: what a corpus holds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from ..console import waiting
from ..corpora import Corpus, load_corpus
from ..text import CharTokenizer
from .arguments import read_arguments
from .names import BOOKS, CORPORA, STORIES, TOKENIZERS, corpus_name

SAMPLE = 60  # tokens
UNDIVIDED = {"all": "whole text"}


@dataclass(frozen=True)
class DataArgs:
    """Fetch a text, and show what it holds."""

    corpus: Annotated[Positional[str], arg(metavar="[CORPUS]", help=CORPORA)] = "tinyshakespeare"
    tokenizer: Annotated[str, arg(metavar="NAME", help=TOKENIZERS)] = "char"
    num_stories: Annotated[int | None, arg(metavar="INT", help_behavior_hint="")] = None
    """of the corpus tinystories: so many; default: all"""
    books: Annotated[int | None, arg(metavar="INT", help_behavior_hint="")] = None
    """of the corpus gutenberg-pt: so many; default: 100"""


def data(arguments: Sequence[str]) -> None:
    """Fetch a text, and show what it holds."""
    args = read_arguments(DataArgs, "data", arguments)
    name = corpus_name(args.corpus, args.num_stories, STORIES)
    with waiting(f"reading {name}"):
        corpus = load_corpus(corpus_name(name, args.books, BOOKS), args.tokenizer)
    print(corpus)
    if corpus.contents is not None:
        _print_contents(corpus)
    print(f"licence: {corpus.licence}")
    if isinstance(corpus.tokenizer, CharTokenizer):
        print(f"alphabet: {corpus.tokenizer.characters!r}")
    print(f"it begins: {corpus.tokenizer.decode(corpus.train[:SAMPLE])!r}")


def _print_contents(corpus: Corpus) -> None:
    """A line for each split, then the notes."""
    contents = corpus.contents
    for split, tokens in contents.tokens.items():
        count = contents.documents[split]
        print(
            f"{UNDIVIDED.get(split, split)}: {count:,} document{'s' * (count > 1)}, "
            f"{contents.bytes[split]:,} bytes, {tokens:,} tokens, "
            f"{contents.bytes[split] / tokens:.2f} bytes per token"
        )
    for note in contents.notes:
        print(note)
