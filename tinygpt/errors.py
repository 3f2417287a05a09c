"""The package's own exceptions. Each message names the value, the limit and the way out."""

from collections.abc import Collection, Iterable
from difflib import get_close_matches


class TinyGPTError(Exception):
    """Base of every error that a user of the package can cause and mend."""


class ConfigError(TinyGPTError, ValueError):
    """A setting, or a combination of settings, that cannot work."""


class UnknownCharacterError(TinyGPTError, ValueError):
    """A text holds characters that the tokenizer cannot write.

    `unknown` maps each such character to the list of its positions in the text; `what` says what
    is wrong with them.
    """

    def __init__(self, unknown: dict[str, list[int]], what: str, way_out: str):
        self.unknown = unknown
        shown = [f"{c!r} at {_positions(p)}" for c, p in list(unknown.items())[:10]]
        more = f", and {len(unknown) - 10} more characters" if len(unknown) > 10 else ""
        super().__init__(f"{what}: {', '.join(shown)}{more}. {way_out}")


class CorpusError(TinyGPTError):
    """A corpus that is unknown, cannot be had, or is not what it should be."""


class CheckpointError(TinyGPTError):
    """A checkpoint that is missing, damaged, or does not fit."""


class NonFiniteError(TinyGPTError):
    """A loss, a gradient or logits became NaN or infinite; no update or text was made of them."""


class GroupError(TinyGPTError):
    """Of several processes that train one model, another has gone."""


def some(names: Collection[str]) -> str:
    """The first few of many names, for a message."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return (", ".join(sorted(names)[:5]) or "none") + more


def nearest(name: str, names: Iterable[str], cutoff: float = 0.6) -> str:
    """What a message says of a name that is none: which one is spelt nearly alike; or nothing.

    `cutoff` is the least share of letters in common.
    """
    near = get_close_matches(name[:100], list(names), n=1, cutoff=cutoff)
    return f"; did you mean {near[0]}?" if near else ""


def _positions(positions: list[int], limit: int = 5) -> str:
    shown = ", ".join(map(str, positions[:limit]))
    more = f" and {len(positions) - limit} more" if len(positions) > limit else ""
    return f"position{'s' if len(positions) > 1 else ''} {shown}{more}"
