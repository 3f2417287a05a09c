"""One loss in its units."""

import math

import pytest
import torch

from tinygpt import CharTokenizer
from tinygpt.measure import count_words, in_units, perplexity, units
from tinygpt.text import TextSize

from ..tools import byte_tokenizer


def test_units_come_from_one_total():
    """100 nats over 20 tokens and 12 words: 148.4 per token, 4160 per word."""
    found = in_units(5.0, TextSize(tokens=20, characters=40, bytes=50), words=12)
    assert found["perplexity_per_token"] == pytest.approx(148.41, abs=0.01)
    assert found["perplexity_per_word"] == pytest.approx(4160, abs=1)
    assert found["bits_per_char"] == pytest.approx(100 / 40 / math.log(2))
    assert found["bits_per_byte"] == pytest.approx(100 / 50 / math.log(2))
    assert in_units(5.0, TextSize(1, 1, 1), words=0)["perplexity_per_word"] is None


def test_characters_and_bytes_are_not_the_same():
    text = "coração"  # 7 letters, 9 bytes
    tokenizer = CharTokenizer.from_text(text)
    size = tokenizer.size(torch.tensor(tokenizer.encode(text)))
    found = in_units(1.0, size, 1)
    assert found["bits_per_char"] / found["bits_per_byte"] == pytest.approx(9 / 7)
    assert found["perplexity_per_word"] == pytest.approx(math.exp(7))


def test_two_tokenizers_of_one_text_agree_per_character_where_their_totals_do():
    one, other = TextSize(100, 300, 310), TextSize(200, 300, 310)
    a, b = in_units(2.0, one, 60), in_units(1.0, other, 60)
    assert a["perplexity_per_token"] != b["perplexity_per_token"]
    for unit in ("perplexity_per_word", "bits_per_char", "bits_per_byte"):
        assert a[unit] == pytest.approx(b[unit])


def test_a_hopeless_loss_has_a_perplexity():
    assert 1e300 < perplexity(1e9) < math.inf
    assert perplexity(0.0) == 1.0


@pytest.mark.parametrize("part", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(
    "text", ["the cat sat.\n\nthe cat é😀  at ", "", " ", "a", " the", "é é😀"]
)
def test_words_are_counted_as_split_does_wherever_parts_are_cut(monkeypatch, part, text):
    monkeypatch.setattr(units, "PART", part)
    tokenizer = byte_tokenizer()
    tokens = torch.tensor(tokenizer.encode(text), dtype=torch.long)
    assert count_words(tokenizer, tokens) == len(text.split())
