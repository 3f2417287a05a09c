"""Tokenizers by name, as presets and the command line give them."""

from collections.abc import Callable, Iterable
from functools import partial
from itertools import chain

from ..errors import ConfigError, nearest
from ..files import resolve
from .bpe import BPETokenizer
from .characters import CharTokenizer
from .subwords import SubwordTokenizer
from .tokenizer import Tokenizer
from .wordpiece import WordPieceTokenizer

Maker = Callable[[Iterable[str]], Tokenizer]  # the texts to be encoded -> their tokenizer

TRAINED: dict[str, type[SubwordTokenizer]] = {"bpe": BPETokenizer, "wordpiece": WordPieceTokenizer}
EXAMPLES = ("char", "gpt2", *(f"{kind}:4000" for kind in TRAINED))


def make_tokenizer(name: str, texts: Iterable[str]) -> Tokenizer:
    """The tokenizer of a name for texts: `"char"`, `"gpt2"`, `"bpe:4000"`, `"wordpiece:4000"`, or
    the path of a tokenizer that was saved. Only the first and the trained ones read the texts.
    """
    return tokenizer_maker(name)(texts)


def tokenizer_maker(name: str) -> Maker:
    """What makes the tokenizer of a name, see `make_tokenizer`; `ConfigError` if it is none.

    The name, the size and the saved file are checked here, before any text is read.
    """
    kind, _, size = name.partition(":")
    if name == "char":
        return _of_characters
    if name == "gpt2":
        return lambda texts: BPETokenizer.from_gpt2()
    if _is_trained(name):
        TRAINED[kind].check_size(int(size))
        return partial(TRAINED[kind].train, vocab_size=int(size))
    if resolve(name).is_file():
        saved = Tokenizer.load(resolve(name))
        return lambda texts: saved
    raise ConfigError(
        f"unknown tokenizer {name!r}; there are {', '.join(EXAMPLES)} (with any number of tokens), "
        f"and the path of a tokenizer.json that was saved{nearest(name, EXAMPLES, 0.5)}"
    )


def whole_name(name: str) -> str:
    """The name as any folder understands it: of a tokenizer that was saved, the whole path."""
    return name if name in ("char", "gpt2") or _is_trained(name) else str(resolve(name))


def _is_trained(name: str) -> bool:
    kind, _, size = name.partition(":")
    return kind in TRAINED and size.isdecimal()


def _of_characters(texts: Iterable[str]) -> CharTokenizer:
    return CharTokenizer(set(chain.from_iterable(texts)))
