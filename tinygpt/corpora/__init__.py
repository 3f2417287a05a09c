"""Texts to learn from: found, fetched or generated, encoded, and served in batches."""

from .batches import Batches, check_tokens, get_batch, take
from .corpus import Corpus
from .load import corpus_names, load_corpus
from .tinyplays import STYLES, write_plays

__all__ = [
    "STYLES",
    "Batches",
    "Corpus",
    "check_tokens",
    "corpus_names",
    "get_batch",
    "load_corpus",
    "take",
    "write_plays",
]
