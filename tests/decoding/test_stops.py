import codecs
import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygpt import generate, stream
from tinygpt.decoding import generate_details, stops
from tinygpt.decoding.stops import Written, find_stop, unfinished
from tinygpt.text import Tokenizer

from ..tools import ByteTokenizer, byte_model, byte_tokenizer, gpt2, scripted, subword_tokenizer

BYTES = ByteTokenizer([*byte_tokenizer().tokens, "\ufffd".encode()])
WORDS = st.lists(st.text("ab", min_size=1, max_size=4), max_size=4).map(tuple)


@pytest.mark.parametrize(
    ("text", "stop", "expected"),
    [
        ("aab", ("ab",), "a"),  # a counter that starts anew after a mismatch misses these
        ("aaab", ("aab",), "a"),
        ("XXXQ", ("XXQ",), "X"),
        ("abcd", ("d", "bcd"), "a"),  # both end here: the longer one is cut off
        ("abcd", ("b", "abc"), "a"),  # the first to end wins
        ("abcd", ("Q",), "abcd"),
    ],
)
def test_stop_sequences(monkeypatch, text, stop, expected):
    model = gpt2()
    scripted(monkeypatch, model.tokenizer.encode(text))
    assert generate(model, "ZZ", len(text), stop=stop) == "ZZ" + expected
    scripted(monkeypatch, model.tokenizer.encode(text))
    pieces = list(stream(model, "ZZ", len(text), stop=stop))
    assert "".join(pieces) == expected


def test_a_stop_sequence_does_not_count_the_prompt(monkeypatch):
    model = gpt2()
    scripted(monkeypatch, model.tokenizer.encode("bcab"))
    assert generate(model, "Xa", 4, stop=("ab",)) == "Xabc"


@given(st.text("ab", max_size=12), WORDS, st.data())
def test_the_first_stop_text_by_its_definition(text, stop, data):
    seen = data.draw(st.integers(0, len(text)))
    cut = None
    for end in range(len(text), seen, -1):
        lengths = [len(s) for s in stop if text[:end].endswith(s)]
        cut = end - max(lengths) if lengths else cut
    assert find_stop(text, stop, seen) == cut
    begun = [n for n in range(len(text) + 1) for s in stop if n < len(s) and text.endswith(s[:n])]
    assert unfinished(text, stop) == max(begun, default=0)


def characters_of(tokenizer: Tokenizer, tokens: list[int]) -> list[int]:
    """The character, from 0, in which each token that has bytes begins."""
    broken = []

    def note(error):
        broken.append((error.start, error.end))
        return "\ufffd", error.end

    codecs.register_error("note", note)
    pieces = [tokenizer.token_bytes(token) for token in tokens]
    whole = b"".join(pieces)
    whole.decode(errors="note")
    owner, number = [], -1  # of each byte
    for i, byte in enumerate(whole):
        inside = any(start < i < end for start, end in broken)
        alone = any(start == i for start, _ in broken)
        number += alone or not (inside or byte & 0xC0 == 0x80)
        owner.append(number)
    starts = [sum(map(len, pieces[:i])) for i in range(len(pieces))]
    return [[*owner, number + 1][start] for start in starts]


@pytest.mark.parametrize("tok", [BYTES, subword_tokenizer()], ids=["bytes", "bpe"])
@given(data=st.data())
def test_a_row_ends_before_a_stop_text_wherever_its_tokens_begin_and_end(tok, data):
    with_text = [token for token in range(tok.vocab_size) if token != tok.end_of_text]
    tokens = data.draw(st.lists(st.sampled_from(with_text), max_size=16))
    whole = tok.decode(tokens)
    places = st.integers(0, len(whole))
    ends = data.draw(st.lists(st.tuples(places, places), max_size=3))
    stop = tuple(whole[a:b] for a, b in ends if a < b)
    cut = find_stop(whole, stop)
    row, settled, sure = Written(tok, stop), "", []
    for token in tokens:
        row.add(token)
        assert row.text[: row.settled].startswith(settled)
        assert row.tokens()[: len(sure)] == sure
        settled, sure = row.text[: row.settled], row.tokens()
    row.end()
    assert row.text == whole[:cut]
    assert row.text.startswith(settled)
    assert row.settled == len(row.text)
    assert row.stopped == (cut is not None)
    assert row.tokens()[: len(sure)] == sure
    begin = characters_of(tok, tokens)
    expected = [t for t, place in zip(tokens, begin, strict=True) if cut is None or place < cut]
    assert row.tokens() == expected


@pytest.mark.parametrize(
    ("pieces", "stop", "text", "count"),
    [
        ([b"the", b" cat", b" sat"], "e c", "th", 1),  # begins and ends inside a token
        ([b"the", b" cat", b" sat"], "t s", "the ca", 2),
        ([b"the", b" cat", b" sat"], " cat", "the", 1),
        ([b"the", b" cat", b" sat"], "he", "t", 1),  # all of it inside
        ([b"t", b" \xc3", b"\xa9", b"t"], "\u00e9", "t ", 2),  # a token goes as far as it is used
        ([b"t", b"\xc3", b"\xa9", b"t"], "\u00e9", "t", 1),
        ([b"t", b"\xc3", b"t", b"the"], "th", "t\ufffdt", 3),
        ([b"t", b"\xc3"], "\ufffd", "t", 1),  # left unfinished at the end
    ],
)
def test_stop_texts_in_the_midst_of_tokens(monkeypatch, pieces, stop, text, count):
    model, tokens = byte_model(BYTES), [BYTES.tokens.index(piece) for piece in pieces]
    scripted(monkeypatch, tokens)
    (row,) = generate_details(model, ["cat"], len(tokens), stop=(stop,))
    assert (row.text, row.tokens, row.stopped) == ("cat" + text, tokens[:count], True)
    assert len(row.logprobs) == count
    scripted(monkeypatch, tokens)
    assert "".join(stream(model, "cat", len(tokens), stop=(stop,))) == text


def test_the_worked_examples_in_the_docstrings_are_true():
    assert doctest.testmod(stops).attempted >= 2
    assert doctest.testmod(stops).failed == 0
