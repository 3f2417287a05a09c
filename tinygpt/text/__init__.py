"""Tokenizers: text to ids and back."""

from .bpe import BPETokenizer
from .characters import CharTokenizer
from .exchange import read_tokenizer, write_tokenizer
from .named import TRAINED, make_tokenizer, tokenizer_maker, whole_name
from .tokenizer import END_OF_TEXT, Decoder, TextSize, Tokenizer
from .wordpiece import WordPieceTokenizer

__all__ = [
    "END_OF_TEXT",
    "TRAINED",
    "BPETokenizer",
    "CharTokenizer",
    "Decoder",
    "TextSize",
    "Tokenizer",
    "WordPieceTokenizer",
    "make_tokenizer",
    "read_tokenizer",
    "tokenizer_maker",
    "whole_name",
    "write_tokenizer",
]
