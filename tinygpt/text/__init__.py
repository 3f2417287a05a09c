"""Texts to learn from: found, fetched or generated, turned into tokens, and served in batches."""

from .batches import Batches, check_tokens, get_batch, take
from .characters import CharTokenizer
from .corpus import REGISTRY, Corpus, load_corpus, locate
from .tinyplays import STYLES, write_plays
from .tokenizer import Decoder, TextSize, Tokenizer

__all__ = [
    "REGISTRY",
    "STYLES",
    "Batches",
    "CharTokenizer",
    "Corpus",
    "Decoder",
    "TextSize",
    "Tokenizer",
    "check_tokens",
    "get_batch",
    "load_corpus",
    "locate",
    "take",
    "write_plays",
]
