"""Texts to learn from: found, fetched or generated, turned into tokens, and served in batches."""

from .batches import Batches, check_tokens, get_batch, take
from .bpe import BPETokenizer
from .characters import CharTokenizer
from .corpus import Corpus
from .exchange import read_tokenizer, write_tokenizer
from .load import corpus_names, load_corpus
from .named import make_tokenizer, tokenizer_maker
from .tinyplays import STYLES, write_plays
from .tokenizer import Decoder, TextSize, Tokenizer
from .wordpiece import WordPieceTokenizer

__all__ = [
    "STYLES",
    "BPETokenizer",
    "Batches",
    "CharTokenizer",
    "Corpus",
    "Decoder",
    "TextSize",
    "Tokenizer",
    "WordPieceTokenizer",
    "check_tokens",
    "corpus_names",
    "get_batch",
    "load_corpus",
    "make_tokenizer",
    "read_tokenizer",
    "take",
    "tokenizer_maker",
    "write_plays",
    "write_tokenizer",
]
