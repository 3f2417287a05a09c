"""The losses of the first updates are those that were stored: see golden.py.

The tolerance is relative. On the machine that stored them they moved by up to 2.2e-7 with torch's,
MKL's and oneDNN's kernels for plain SSE, for AVX2 and for AVX-512, with two threads, and with
starting weights that were off in the last digits. A rate that is one percent higher moves them by
6e-4 and more, so 1e-4 leaves other processors room, and no other settings.
"""

from dataclasses import replace

import pytest

from tinygpt.presets import PRESETS

from .golden import NAMES, UPDATES, first_losses, stored

TOLERANCE = 1e-4


def test_all_character_presets_have_stored_losses():
    assert list(stored()) == NAMES
    assert {len(losses) for losses in stored().values()} == {UPDATES}


@pytest.mark.parametrize("name", NAMES)
def test_the_first_updates_give_the_stored_losses(name, plays):
    assert first_losses(name, plays) == pytest.approx(stored()[name], rel=TOLERANCE)


def test_a_slightly_other_rate_gives_other_losses(plays, monkeypatch):
    tiny = PRESETS["tiny"]
    other = replace(tiny, train=replace(tiny.train, lr=1.01 * tiny.train.lr))
    monkeypatch.setitem(PRESETS, "tiny", other)
    assert first_losses("tiny", plays) != pytest.approx(stored()["tiny"], rel=2 * TOLERANCE)
