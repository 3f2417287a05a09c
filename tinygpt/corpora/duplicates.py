"""Texts that are the same, or in good part."""

import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from itertools import combinations

import numpy as np

WORDS = 5  # in a row, which two texts share or not
KEPT = 16  # one in so many of these is looked at
ALIKE = 0.5  # the share of a text that is in another, from which on they are one work
COMMON = 50  # texts; what stands in more of them is a phrase


def sketch(text: str) -> frozenset[int]:
    """A sixteenth of the text's runs of five words, as hashes: always the same ones of them.

    Case, punctuation and line breaks are as good as not there (Broder 1997, shingling).
    """
    words = [zlib.crc32(w.encode()) for w in re.findall(r"\w+", text.lower())]
    codes = np.array(words, dtype=np.uint64)
    runs = np.zeros(max(len(codes) - WORDS + 1, 0), dtype=np.uint64)
    for i in range(WORDS if len(runs) else 0):
        runs = runs * np.uint64(0x9E3779B97F4A7C15) + codes[i : len(runs) + i]
    mixed = runs ^ (runs >> np.uint64(29))
    return frozenset(mixed[mixed % np.uint64(KEPT) == 0].tolist())


def alike(sketches: Mapping[str, frozenset[int]]) -> list[tuple[str, str]]:
    """The pairs of names whose texts are the same for the most part of the shorter one."""
    where = defaultdict(list)
    for name, found in sketches.items():
        for run in found:
            where[run].append(name)
    shared = Counter(
        pair
        for names in where.values()
        if 1 < len(names) <= COMMON
        for pair in combinations(sorted(names), 2)
    )
    return sorted(
        (a, b)
        for (a, b), count in shared.items()
        if count > ALIKE * min(len(sketches[a]), len(sketches[b]))
    )


def joined(names: Iterable[str], pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The group of each name, called after its first member, where a pair is in the same group."""
    group = {name: name for name in names}
    for pair in pairs:
        kept, gone = sorted(group[name] for name in pair)
        group = {name: kept if g == gone else g for name, g in group.items()}
    return group
