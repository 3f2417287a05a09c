import pytest

from tinygpt import CharTokenizer
from tinygpt.corpora import STYLES, write_plays
from tinygpt.widgets.passages import passages, tinyplays_scene

from ..tools import ByteTokenizer, byte_tokenizer


@pytest.fixture(scope="module")
def bytes_and_words():
    """Every byte, and two common runs of them."""
    return ByteTokenizer([*(bytes([b]) for b in range(256)), b" the", b".\n\n", b"SCENE"])


def test_what_cannot_be_written_is_left_out():
    assert list(passages(CharTokenizer("xyz"))) == ["a short passage"]
    assert passages(CharTokenizer("xyz"))["a short passage"].text == "xyzxyz"
    (short,) = passages(byte_tokenizer()).values()
    byte_tokenizer().encode(short.text)
    assert "CLERK" not in short.text


def test_a_token_has_the_label_of_the_character_it_begins_in(bytes_and_words):
    scene, styles = tinyplays_scene()
    passage = passages(bytes_and_words)["a tinyplays scene, with its speaking styles"]
    tokens = bytes_and_words.encode(scene)
    assert len(tokens) == len(passage.labels) < len(scene)
    place = 0
    for token, label in zip(tokens, passage.labels, strict=True):
        assert label == styles[place]
        place += len(bytes_and_words.decode([token]))
    assert place == len(scene)
    plays = write_plays(4000, seed=3)
    start = plays.text.index(scene)
    assert list(styles) == plays.style[start : start + len(scene)].tolist()
    assert set(passage.names) <= {*STYLES, "–"}


def test_parts_of_a_character_have_its_label(bytes_and_words):
    passage = passages(bytes_and_words, "é the", [0, 0, 1], ["x", "y"])["the given text"]
    assert passage.names == ["x", "x", "y"]
