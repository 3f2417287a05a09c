"""`data`: what a corpus holds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from ..text import CharTokenizer, Corpus, load_corpus
from .arguments import read_arguments
from .names import CORPORA, TOKENIZERS, corpus_name


@dataclass(frozen=True)
class DataArgs:
    """Fetch a text, and show what it holds."""

    corpus: Annotated[Positional[str], arg(metavar="[CORPUS]", help=CORPORA)] = "tinyshakespeare"
    tokenizer: Annotated[str, arg(metavar="NAME", help=TOKENIZERS)] = "char"
    num_stories: Annotated[int | None, arg(metavar="INT", help_behavior_hint="")] = None
    """of the corpus tinystories: so many; default: all"""


def data(arguments: Sequence[str]) -> None:
    """Fetch a text, and show what it holds."""
    args = read_arguments(DataArgs, "data", arguments)
    corpus = load_corpus(corpus_name(args.corpus, args.num_stories), args.tokenizer)
    print(corpus)
    if corpus.contents is not None:
        _print_contents(corpus)
    if isinstance(corpus.tokenizer, CharTokenizer):
        print(f"alphabet: {corpus.tokenizer.characters!r}")


def _print_contents(corpus: Corpus) -> None:
    contents = corpus.contents
    for split, tokens in contents.tokens.items():
        size = f"{contents.documents[split]:,} documents, {contents.bytes[split]:,} bytes"
        print(f"{split}: {size}, {tokens:,} tokens")
    print("\n".join([f"licence: {corpus.licence}", *contents.notes]))
