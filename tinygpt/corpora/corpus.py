"""A text as tokens, in splits: what is trained on and measured."""

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ..errors import CorpusError
from ..text import CharTokenizer, TextSize, Tokenizer
from .documents import UNDIVIDED, Document, Note, Texts
from .encoding import BLANK_LINE, Contents, encode, id_type
from .recipes import TRAIN_SHARE, Recipe, recipe
from .stream import memory_mapped, unchanged

MEMMAP_BYTES = 64 << 20  # texts larger than this stay on disk


@dataclass(frozen=True, eq=False)
class Corpus:
    """A text as token ids. `train`, `val` and `test` are 1-D tensors; a large one is memory-mapped.

    `test` is None where a corpus has none. `floor` is the lowest mean loss on `val` that any model
    can expect, in nats per token, and `val_styles` the speaking style of each of its tokens, an
    index in `STYLES` or -1, where these are known (tinyplays, whose tokens are characters), else
    None. `source` says where the text came from, and `contents` how much there is of each split and
    what was found in the text or done to it.
    """

    name: str
    tokenizer: Tokenizer
    train: Tensor
    val: Tensor
    test: Tensor | None
    source: str
    read: Callable[[], str]
    floor: float | None = None
    val_styles: Tensor | None = None
    licence: str = ""
    contents: Contents | None = None

    @property
    def text(self) -> str:
        """The whole text, read on demand; `CorpusError` if its file is another by now."""
        return self.read()

    @cached_property
    def val_size(self) -> TextSize:
        """How long `val` is, in tokens, characters and bytes; counted when first asked for."""
        return self.tokenizer.size(self.val)

    def __repr__(self) -> str:
        test = "" if self.test is None else f" + {len(self.test):,} test"
        return (
            f"Corpus({self.name!r}: {len(self.train):,} train + {len(self.val):,} val{test} "
            f"tokens, vocabulary of {self.tokenizer.vocab_size}, from {self.source})"
        )


def encoded(texts: Texts, tokenizer: Tokenizer | str | None = None) -> Corpus:
    """Texts as a corpus in a tokenizer's ids; without one, in those of all their characters.

    Characters of a small text are encoded in memory, all else once, into data/cache.
    """
    plain = tokenizer in (None, "char") or isinstance(tokenizer, CharTokenizer)
    in_memory = plain and not texts.slow and texts.size <= MEMMAP_BYTES
    build = _in_memory if in_memory else memory_mapped
    return corpus_of(texts, *build(texts, recipe(tokenizer)))


def corpus_of(texts: Texts, tokenizer: Tokenizer, tokens: Tensor, contents: Contents) -> Corpus:
    """The splits of tokens; of a text that is not divided, the last tenth is `val`.

    `CorpusError` if there is nothing to learn from, or nothing to validate on.
    """
    sizes = dict(contents.tokens)
    if UNDIVIDED in sizes:
        cut = int(TRAIN_SHARE * len(tokens))
        sizes = {"train": cut, "val": len(tokens) - cut}
    parts = dict(zip(sizes, tokens.split(list(sizes.values())), strict=True))
    if lacking := [split for split in ("train", "val") if split not in parts]:
        count = sum(contents.documents.values())
        raise CorpusError(
            f"{texts.name} has {count} document{'s' * (count > 1)} and nothing for {lacking[0]!r}; "
            f"it takes one to learn from and one to validate on: add some to {texts.source}"
        )
    return Corpus(
        texts.name,
        tokenizer,
        parts["train"],
        parts["val"],
        parts.get("test"),
        texts.source,
        lambda: read_all(texts),
        licence=texts.licence,
        contents=contents,
    )


def read_all(texts: Texts) -> str:
    """All documents, a blank line after each."""
    texts.check()
    return "".join(
        "".join(item.pieces) + ("" if item.split == UNDIVIDED else BLANK_LINE)
        for item in texts.read()
        if not isinstance(item, Note)
    )


def _in_memory(texts: Texts, recipe: Recipe) -> tuple[Tokenizer, Tensor, Contents]:
    sink = io.BytesIO()
    with unchanged(texts):
        documents = [
            item if isinstance(item, Note) else Document(item.split, list(item.pieces))
            for item in texts.read()
        ]
        tokenizer = recipe.make(replace(texts, read=lambda: iter(documents)))
        contents = encode(documents, tokenizer, sink)
    tokens = np.frombuffer(sink.getvalue(), dtype=id_type(tokenizer)).astype(np.int64)
    return tokenizer, torch.from_numpy(tokens), contents
