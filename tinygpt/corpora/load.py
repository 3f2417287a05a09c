"""The corpora by name."""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import torch

from ..errors import CorpusError, nearest
from ..text import CharTokenizer, Tokenizer
from . import tinyplays
from .corpus import Corpus, encoded
from .documents import UNDIVIDED, Document, Texts, combined_checksum
from .folder import own_folder
from .gutenberg import gutenberg
from .machado import machado
from .plain import FILES, own_file, registered_file
from .several import several
from .tinystories import tinystories, tinystories_sample
from .wikitext import wikitext, wikitext_valid

PLAYS, OWN = "tinyplays", ("file:", "folder:")
WHOLE: dict[str, Callable[[], Texts]] = {
    "tinystories-sample": tinystories_sample,
    "wikitext-2": wikitext,
    "wikitext-2-valid": wikitext_valid,
    "machado-pt": machado,
}
COUNTED: dict[str, Callable[[int | None], Texts]] = {  # of these a part can be taken: NAME:COUNT
    "tinystories": tinystories,
    "gutenberg-pt": gutenberg,
}
PART_OF = {  # corpora whose texts are, in other splits, among those of another
    "tinystories-sample": "tinystories",
    "wikitext-2-valid": "wikitext-2",
    "machado-pt": "gutenberg-pt",
}


def corpus_names() -> list[str]:
    """The names that `load_corpus` knows."""
    return [*FILES, PLAYS, *WHOLE, *COUNTED]


def load_corpus(
    name: str = "tinyshakespeare",
    tokenizer: Tokenizer | str | None = None,
    *,
    fallback: str | None = None,
) -> Corpus:
    """Load a corpus by its name, in the ids of a tokenizer; without one, its characters are taken.

    A tokenizer may be a name, see `make_tokenizer`; `"bpe:4000"` is trained on the corpus. A
    corpus's name is one of `corpus_names()`, `"tinystories:20000"` for so many of the stories (or
    `"gutenberg-pt:30"` of the books), `"file:PATH"` for a text of your own or `"folder:PATH"` for
    several. Names with a `+` between them are one corpus: `"tinyshakespeare+tinystories-sample"`;
    no two may have texts in common.
    A registered corpus is looked for in data/NAME/, then in $TINYGPT_DATA/NAME/, then
    downloaded; both start at the repository (without one, at the current folder), while a relative
    PATH always starts at the current folder. Documents are in one split each, and a mark stands
    between them; of one running text the first 90 % of the tokens are `train`, the rest `val`.
    With `fallback`, a corpus that can be had nowhere is replaced by that one, with a message.
    Raises `ConfigError` for an unknown tokenizer, `CorpusError` for an unknown corpus, a text that
    is missing or damaged, and one that the tokenizer cannot write.
    """
    if name == PLAYS:
        return _load_tinyplays(tokenizer)
    _check_known(name)
    try:
        return encoded(_find(name), tokenizer)
    except CorpusError as error:
        if fallback is None or name.startswith(OWN):
            raise
        print(f"{error}\nGoing on with {fallback} instead.")
        return load_corpus(fallback, tokenizer)


def _find(name: str) -> Texts:
    if "+" in name and not name.startswith(OWN):
        return several([_find(part) for part in name.split("+")])
    kind, _, rest = name.partition(":")
    if kind == "file":
        return own_file(rest)
    if kind == "folder":
        return own_folder(rest)
    if kind in COUNTED:
        return COUNTED[kind](_count(rest, name) if kind != name else None)
    return WHOLE[name]() if name in WHOLE else registered_file(name)


def _check_known(name: str) -> None:
    counted = tuple(f"{kind}:" for kind in COUNTED)
    if name.startswith(OWN):
        return
    parts, registered = name.split("+"), [n for n in corpus_names() if n != PLAYS]
    unknown = [part for part in parts if part not in registered and not part.startswith(counted)]
    if not unknown:
        _check_apart(name)
        return
    if len(parts) > 1:
        raise CorpusError(
            f"{unknown[0]!r} cannot be a part of {name!r}: that takes {', '.join(registered)}"
        )
    known = ", ".join(corpus_names())
    raise CorpusError(
        f"unknown corpus {name!r}; known are {known}, or file:PATH and folder:PATH for your own"
        f"{nearest(name, corpus_names())}"
    )


def _check_apart(name: str) -> None:
    """Raise `CorpusError` for parts with texts in common: what validates one may train another."""
    first: dict[str, str] = {}
    for part in name.split("+"):
        kind = part.partition(":")[0]
        texts = PART_OF.get(kind, kind)
        if texts in first:
            raise CorpusError(
                f"{name!r}: {first[texts]} and {part} have texts in common, so what one validates "
                f"on the other may train on; take one of them"
            )
        first[texts] = part


def _count(rest: str, name: str) -> int:
    if not (rest.isascii() and rest.isdecimal() and 0 < len(rest) < 12 and int(rest)):
        raise CorpusError(f"{name!r}: after the colon comes a whole number from 1 on, not {rest!r}")
    return int(rest)


def _load_tinyplays(tokenizer: Tokenizer | str | None) -> Corpus:
    plays = _plays()
    texts = Texts(
        PLAYS,
        source="the grammar in tinygpt/corpora/tinyplays.py",
        licence="MIT",
        checksum=combined_checksum(plays.text),
        size=len(plays.text),
        read=lambda: iter([Document(UNDIVIDED, [plays.text])]),
        check=lambda: None,
    )
    corpus = encoded(texts, tokenizer)
    if not isinstance(corpus.tokenizer, CharTokenizer):
        return corpus
    # per character, which is a token here
    cut = len(corpus.train)
    known = {"floor": plays.floor(cut), "val_styles": torch.from_numpy(plays.style[cut:])}
    return replace(corpus, **known)


@lru_cache(maxsize=1)
def _plays() -> "tinyplays.Plays":
    return tinyplays.write_plays()
