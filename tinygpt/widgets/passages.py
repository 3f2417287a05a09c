"""Texts for a model to read, with a label for each token where one is known."""

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

from ..corpora import STYLES, write_plays
from ..errors import ConfigError, UnknownCharacterError
from ..text import Tokenizer
from .frame import unit, unknown
from .inputs import check_text, kind

LONGEST = 600  # tokens of a text
MOST_NUMBERS = 1000  # different labels without names
PASSAGE = (
    "CLERK:\nGood morrow, sir. Was it you who called?\n\n"
    "SAILOR:\nAye! Twice, in the rain; and nobody heard.\n\n"
    "CLERK:\nThen come in, and tell us the news of the harbour.\n"
)


@dataclass(frozen=True)
class Passage:
    """A text, and if known the label of each of its tokens (-1: none)."""

    text: str
    labels: tuple[int, ...] | None = None
    label_names: tuple[str, ...] = ()

    @property
    def names(self) -> list[str] | None:
        """The label of each token, in words."""
        if self.labels is None:
            return None
        return [self.label_names[i] if i >= 0 else "–" for i in self.labels]


def passages(
    tokenizer: Tokenizer,
    text: str | None = None,
    labels: Sequence[int] | None = None,
    label_names: Sequence[str] | None = None,
) -> dict[str, Passage]:
    """The texts to choose from, those that the tokenizer can write; there is always one."""
    if text is None and (labels is not None or label_names is not None):
        raise ConfigError("labels are of the tokens of a text; give text=, too")
    found = {}
    if text is not None:
        check_text("text", text)
        found["the given text"] = _labelled(tokenizer, text, labels, label_names)
    found["a short passage"] = Passage(short_passage(tokenizer))
    scene, styles = tinyplays_scene()
    if _can_write(tokenizer, scene):
        labels = tuple(styles[i] for i in _beginnings(tokenizer, scene))
        found["a tinyplays scene, with its speaking styles"] = Passage(scene, labels, STYLES)
    return found


def _labelled(
    tokenizer: Tokenizer,
    text: str,
    labels: Sequence[int] | None,
    names: Sequence[str] | None,
) -> Passage:
    if labels is None:
        if names is not None:
            raise ConfigError("label_names are the names of labels; give labels=, too")
        return Passage(text)
    try:
        n = len(tokenizer.encode(text))
    except UnknownCharacterError as error:
        raise ConfigError(f"text: {unknown(error)}") from error
    labels = _numbers(labels)
    if len(labels) != n:
        raise ConfigError(f"{len(labels)} labels, but the text has {n} {unit(tokenizer)}s")
    return Passage(text, labels, _names(names, max(labels, default=-1)))


def _numbers(labels: Sequence[int]) -> tuple[int, ...]:
    """Labels of any sequence as plain ints, from -1 on."""
    try:
        found = tuple(map(operator.index, labels))
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"labels must be whole numbers, one for each token of the text ({error})"
        ) from error
    if min(found, default=0) < -1:
        raise ConfigError(f"label {min(found)} must be at least 0, or -1 for none")
    return found


def _names(names: Sequence[str] | None, highest: int) -> tuple[str, ...]:
    """A name for each label up to the highest one; without names their numbers."""
    if names is None and highest < MOST_NUMBERS:
        return tuple(map(str, range(highest + 1)))
    if names is None:
        raise ConfigError(
            f"label {highest} must be less than {MOST_NUMBERS}; number the labels from 0, or give "
            f"label_names="
        )
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise ConfigError(f"label_names must be a list of texts, not {kind(names)}")
    for i, name in enumerate(names):
        check_text(f"the name of label {i}", name)
    if highest >= len(names):
        raise ConfigError(f"label {highest} has no name; label_names has {len(names)}")
    return tuple(names)


def short_passage(tokenizer: Tokenizer, text: str = PASSAGE) -> str:
    """What can be written of a text; if that is not much, all tokens in their order."""
    known = {c for c in set(text) if _can_write(tokenizer, c)}
    written = "".join(c for c in text if c in known)
    if len(written) > len(text) / 2:
        return written
    return (2 * "".join(text for text in tokenizer.texts if text))[:LONGEST]


def _can_write(tokenizer: Tokenizer, text: str) -> bool:
    try:
        tokenizer.encode(text)
    except ValueError:
        return False
    return True


def _beginnings(tokenizer: Tokenizer, text: str) -> list[int]:
    """Number of the character, from 0, in which each token of a text begins."""
    character = [i for i, c in enumerate(text) for _ in c.encode()]  # of each byte
    sizes = [len(tokenizer.token_bytes(token)) for token in tokenizer.encode(text)]
    return [character[place] for place in accumulate(sizes[:-1], initial=0)]


@lru_cache(1)
def tinyplays_scene() -> tuple[str, tuple[int, ...]]:
    """The beginning of a scene, up to the end of a speech, and the style of each character."""
    plays = write_plays(4_000, seed=3)
    start = plays.text.index("SCENE I.")
    stop = plays.text.rindex("\n\n", start, start + LONGEST) + 2
    return plays.text[start:stop], tuple(plays.style[start:stop].tolist())
