import html
import re

import pytest

from tinygpt import CharTokenizer
from tinygpt.widgets import frame

from ..tools import byte_tokenizer

TEXT = "the cat é\n\n😀 sat. é"


def plain(page: str) -> str:
    """The text in a card, prompt and all, as a reader sees it."""
    text = page[page.index("<pre ") : page.index("</pre>")]
    return html.unescape(re.sub(r"<.*?>", "", text))


def test_signs_for_what_cannot_be_seen():
    assert frame.label(" a\n\tb ") == "␣a⏎⇥b␣"
    assert frame.label("") == "∅"
    assert frame.shown(" <") == "␣&lt;"


def test_what_a_token_is_called():
    assert frame.unit(CharTokenizer("aé\n")) == "character"
    assert frame.unit(byte_tokenizer()) == "token"


@pytest.mark.parametrize("end", [0, 1, 2, 3])
def test_tokens_are_spelled_as_the_text_they_decode_to(end):
    """Whole, and cut within a character; with tokens that have no text in between."""
    tokenizer = byte_tokenizer()
    tokens = tokenizer.encode(TEXT)[: -end or None]
    assert len(tokens) < len(TEXT.encode())
    found = frame.spelled(tokenizer, tokens)
    assert len(found) == len(tokens)
    assert "".join(found) == tokenizer.decode(tokens)
    mark = tokenizer.tokens.index(b"")
    between = [t for token in tokens for t in (token, mark)]
    assert "".join(frame.spelled(tokenizer, between)) == tokenizer.decode(tokens)


def test_a_part_of_a_character_that_is_looked_at_stands_apart():
    tokenizer = byte_tokenizer()
    tokens = tokenizer.encode("t😀t é")
    assert frame.spelled(tokenizer, tokens) == ["t", "😀", "", "", "", "t", " é", ""]
    apart = ["<F0>", "<9F>", "<98>", "<80>"]
    assert frame.spelled(tokenizer, tokens, [3]) == ["t", *apart, "t", " é", ""]
    assert frame.spelled(tokenizer, tokens, [0, 7])[-3:] == ["t", "<20><C3>", "<A9>"]


def test_a_card_has_its_prompt_and_text():
    tokenizer = byte_tokenizer()
    tokens = tokenizer.encode(TEXT)
    assert plain(frame.card(tokenizer, "name", "<b>", tokens, {})) == "<b>" + TEXT
    shown = frame.card(tokenizer, "name", "", tokens, {1: "here", 4: "pin"})
    assert "the<mark class='here'>␣cat</mark> é<mark class='pin'>⏎⏎</mark>\n\n😀 sat" in shown


def test_where_texts_part_is_a_token():
    tokenizer = byte_tokenizer()
    one, other = (tokenizer.encode(text) for text in ("the cat.\n", "the cat\nt"))
    shown = frame.compared(tokenizer, "name", "", other, one)
    assert "parts after 2 tokens" in shown
    assert "the cat<mark class='parts'>⏎</mark>\nt</pre>" in shown
    shown = frame.compared(tokenizer, "name", "", one, other)
    assert "the cat<mark class='parts'>.⏎</mark>\n" in shown
    assert "the same text" in frame.compared(tokenizer, "name", "", one, one)
