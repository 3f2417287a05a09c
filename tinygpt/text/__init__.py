"""Texts to learn from: found, fetched or generated, turned into tokens, and served in batches."""

from .batches import Batches, check_tokens, get_batch, take
from .characters import CharTokenizer
from .corpus import Corpus
from .load import corpus_names, load_corpus
from .places import Remote, locate
from .tinyplays import STYLES, write_plays
from .tokenizer import Decoder, TextSize, Tokenizer

__all__ = [
    "STYLES",
    "Batches",
    "CharTokenizer",
    "Corpus",
    "Decoder",
    "Remote",
    "TextSize",
    "Tokenizer",
    "check_tokens",
    "corpus_names",
    "get_batch",
    "load_corpus",
    "locate",
    "take",
    "write_plays",
]
