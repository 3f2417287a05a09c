"""Documents into splits, so that nothing that is learned from is measured on."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .documents import Note
from .duplicates import alike, joined, sketch


@dataclass(frozen=True)
class Profile:
    """What has to be known of a document to tell it from others."""

    letters: int
    digest: str  # of its words, so that line ends and blanks play no part
    sketch: frozenset[int]


def profile(text: str) -> Profile:
    """The profile of a text."""
    words = " ".join(text.split())
    return Profile(len(words), hashlib.sha256(words.encode()).hexdigest(), sketch(text))


def arrange(
    found: Mapping[str, Profile],
    shares: Mapping[str, float],
    related: Iterable[tuple[str, str]] = (),
) -> tuple[dict[str, str], list[Note]]:
    """The split of each document, by its name, and notes; a copy of another one is left out.

    Documents that are alike for the most part, and pairs that are `related`, are in one split.
    Those for training come first, then the splits in the order of `shares`.
    """
    first: dict[str, str] = {}
    copies = {name: first.setdefault(found[name].digest, name) for name in sorted(found)}
    kept = [name for name, original in copies.items() if name == original]
    similar = alike({name: found[name].sketch for name in kept})
    together = [(copies[a], copies[b]) for a, b in [*similar, *related]]
    group = joined(kept, together)
    sizes = Counter()
    for name in kept:
        sizes[group[name]] += found[name].letters
    split = divide(sizes, shares)
    notes = [Note(f"{a} is left out: a copy of {b}") for a, b in copies.items() if a != b]
    notes += [Note(f"{a} and {b} have most of their text in common: one split") for a, b in similar]
    order = ["train", *shares]
    kept.sort(key=lambda name: order.index(split[group[name]]))
    return {name: split[group[name]] for name in kept}, notes


def divide(sizes: Mapping[str, int], shares: Mapping[str, float]) -> dict[str, str]:
    """The split of each group of documents, given the groups' sizes in letters.

    `shares` gives the part of all letters that a split beside train should have. What goes
    together is in one group, so no work is on two sides. The names decide by their hash: the same
    groups are always divided alike, and a further one moves few others.
    """
    left = sorted(sizes, key=lambda name: hashlib.sha256(os.fsencode(name)).digest())
    found = {}
    for split, share in shares.items():
        wanted = share * sum(sizes.values())
        for name in _fitting(left, sizes, wanted) if len(left) > 1 else []:
            left.remove(name)
            found[name] = split
    return {name: found.get(name, "train") for name in sizes}


def _fitting(names: list[str], sizes: Mapping[str, int], wanted: float) -> list[str]:
    """The first groups that together come near to `wanted` letters; the smallest if none fits."""
    chosen, total = [], 0
    for name in names:
        if total < 0.8 * wanted and total + sizes[name] <= 1.5 * wanted:
            chosen.append(name)
            total += sizes[name]
    return chosen or [min(names, key=lambda name: sizes[name])]
