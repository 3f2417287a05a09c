"""The figure of one token's way shows the numbers that it was given."""

from dataclasses import replace

import numpy as np
import pytest

from tinygpt import plots
from tinygpt.measure import token_way

from ..tools import ALPHABET, VARIANTS, random_ids, shaken


@pytest.fixture(scope="module")
def way():
    model = shaken(replace(VARIANTS["gpt2"], vocab_size=65))
    return token_way(model, random_ids(1, 15), 14, 1, 2)


def draw(way, pieces):
    figure = plots.plot_way(way, pieces, ALPHABET)
    (axes,) = figure.axes
    return figure, axes, [text.get_text() for text in axes.texts]


def test_a_strip_for_each_station_in_order(way):
    _, axes, words = draw(way, "αβγδεζηθικλμνξο")
    strips = [image.get_array()[0] for image in axes.images]
    names = list(way.stream)
    at = names.index("+ attention 1")  # its head stands before it
    expected = [*way.stream.values()]
    expected[at:at] = [way.query, way.key, way.value]
    for strip, numbers in zip(strips, expected, strict=True):
        np.testing.assert_array_equal(strip, numbers)
    told = [word for word in words if word in names or word.endswith(" 1.2")]
    head = ["query 1.2", "key 1.2", "value 1.2", "score, weight 1.2"]
    assert told == [*names[:at], *head, *names[at:]]


def test_tiles_are_the_last_readable_tokens_and_the_most_probable_next(way):
    figure, _, words = draw(way, "αβγδεζηθικλμν\nο")
    i = words.index("δ")
    assert words[i + 1 : i + 3] == [f"{way.scores[3]:.1f}", f"{way.weights[3]:.2f}"]
    assert "γ" not in words  # of 15 tokens 12 have room
    best = way.logits.argmax()
    p = np.exp(way.logits) / np.exp(way.logits).sum()
    i = words.index(ALPHABET[best], words.index("next: logit, p") - 36)
    assert words[i + 1 : i + 3] == [f"{way.logits[best]:.1f}", f"{p[best]:.2f}"]
    assert f"Most probable next: “{ALPHABET[best]}”, {p[best]:.2f}." in figure.alt
    assert "“ο” at place 14" in figure.alt
    assert figure.get_figheight() <= 5.6
