"""What every tokenizer can do, shown with characters and with tokens that are runs of bytes."""

import hashlib
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tinygpt import CharTokenizer, UnknownCharacterError
from tinygpt.errors import ConfigError
from tinygpt.files import ROOT
from tinygpt.text import TextSize, Tokenizer, WordPieceTokenizer
from tinygpt.text import tokenizer as module

from ..tools import ByteTokenizer, byte_tokenizer, subword_tokenizer

LETTERS = "the cat sat. é😀\n"  # what byte_tokenizer can write
CHARACTERS, BYTES = CharTokenizer.from_text(LETTERS), byte_tokenizer()
ANY_BYTES = ByteTokenizer([bytes([b]) for b in range(256)] + ["é".encode(), b"a\xf0\x9f", b""])

both = pytest.mark.parametrize("tok", [CHARACTERS, BYTES], ids=["characters", "bytes"])
every = pytest.mark.parametrize(
    "tok",
    [CHARACTERS, BYTES, subword_tokenizer(), subword_tokenizer(WordPieceTokenizer)],
    ids=["characters", "bytes", "bpe", "wordpiece"],
)
texts = st.text(alphabet=LETTERS)


def sequences(tok: Tokenizer, among: list[int] | None = None) -> st.SearchStrategy:
    """Any tokens in any order: also those that no text is encoded to."""
    return st.lists(st.sampled_from(range(tok.vocab_size) if among is None else among))


# --- text, ids and back --------------------------------------------------------------------------


@every
@given(text=texts)
def test_round_trip(tok, text):
    ids = tok.encode(text)
    array = tok.encode_array(text)
    assert tok.decode(ids) == tok.decode(array) == tok.decode(torch.from_numpy(array)) == text
    assert all(0 <= i < tok.vocab_size for i in ids)
    assert array.dtype == np.int32
    assert array.tolist() == ids


@given(st.text(min_size=1), st.data())
def test_round_trip_of_any_text_of_the_alphabet(text, data):
    tokenizer = CharTokenizer.from_text(text)
    other = data.draw(st.text(alphabet=sorted(set(text))))
    ids = tokenizer.encode(other)
    assert tokenizer.decode(ids) == other
    assert len(ids) == len(other)
    assert all(0 <= i < tokenizer.vocab_size for i in ids)


def test_ids_are_the_sorted_alphabet():
    tokenizer = CharTokenizer.from_text("banana")
    assert tokenizer.characters == "abn"
    assert tokenizer.encode("nab") == [2, 0, 1]


@given(st.text(min_size=1), st.text())
def test_unknown_characters_are_listed_with_every_position(alphabet, text):
    tokenizer = CharTokenizer.from_text(alphabet)
    expected = {c: [i for i, d in enumerate(text) if c == d] for c in set(text) - set(alphabet)}
    if expected:
        with pytest.raises(UnknownCharacterError) as error:
            tokenizer.encode(text)
        assert error.value.unknown == expected
    else:
        tokenizer.encode(text)


def test_unknown_character_message_names_character_position_and_way_out():
    with pytest.raises(UnknownCharacterError, match=r"'é' at positions 1, 3.*from_text"):
        CharTokenizer("caf").encode("cécé")


# --- the two rules for text that comes in, and texts in pieces -----------------------------------


def test_half_a_surrogate_pair_is_refused_with_its_place():
    with pytest.raises(UnknownCharacterError, match=r"'\\ud800' at position 2"):
        CharTokenizer("badok").encode("ok\ud800bad")


def test_characters_have_no_mark_of_an_end():
    tokenizer = CharTokenizer(sorted(set("<|endoftext|>")))
    assert tokenizer.end_of_text is None
    assert len(tokenizer.encode("<|endoftext|>")) == 13  # its text is text


@every
@given(data=st.data())
def test_pieces_of_a_text_give_the_ids_of_the_whole(tok, data):
    pieces = data.draw(st.lists(texts))
    found = np.concatenate(list(tok.encode_pieces(pieces)))
    assert found.dtype == np.int32
    assert found.tolist() == tok.encode("".join(pieces))


def test_a_text_of_characters_is_encoded_as_it_comes():
    assert [len(ids) for ids in CHARACTERS.encode_pieces(["the ", "cat"])] == [4, 3, 0]


@every
def test_ids_that_are_none(tok):
    for bad in (tok.vocab_size, -1):
        message = f"id {bad} is not in 0 to {tok.vocab_size - 1}"
        with pytest.raises(ValueError, match=message):
            tok.decode([0, bad])
        with pytest.raises(ValueError, match=message):
            tok.size(np.array([0, bad]))
        with pytest.raises(ValueError, match=message):
            tok.decoder().add(bad)


# --- a text that comes token by token ------------------------------------------------------------


def test_broken_bytes_become_the_replacement_character():
    half = BYTES.encode("😀")[:2]
    assert BYTES.decode(half) == "\ufffd"
    assert BYTES.decode([*half, *BYTES.encode(" cat")]) == "\ufffd cat"
    assert BYTES.decode(BYTES.encode("😀")[2:]) == "\ufffd\ufffd"  # two bytes that continue nothing


@pytest.mark.parametrize(
    "tok",
    [CHARACTERS, BYTES, ANY_BYTES, subword_tokenizer()],
    ids=["characters", "few", "any", "bpe"],
)
@given(data=st.data())
def test_what_a_decoder_says_joined_is_decode(tok, data):
    ids = data.draw(sequences(tok))
    decoder = tok.decoder()
    said = [decoder.add(i) for i in ids]
    assert "".join(said) + decoder.end() == tok.decode(ids)


def test_a_decoder_waits_for_the_rest_of_a_character():
    decoder = BYTES.decoder()
    assert [decoder.add(i) for i in BYTES.encode("😀")] == ["", "", "", "😀"]
    half = BYTES.encode("😀")[:2]
    assert [decoder.add(i) for i in half] == ["", ""]
    assert decoder.add(BYTES.encode(" cat")[0]) == "\ufffd cat"  # now it is sure that none follows
    assert decoder.end() == ""
    decoder.add(half[0])
    assert decoder.end() == "\ufffd"


# --- size ----------------------------------------------------------------------------------------


@every
@given(text=texts)
def test_size(tok, text):
    ids = tok.encode_array(text)
    expected = TextSize(len(ids), len(text), len(text.encode()))
    assert tok.size(ids) == tok.size(ids.tolist()) == tok.size(torch.from_numpy(ids)) == expected


def test_size_is_counted_piece_by_piece(monkeypatch):
    ids = torch.from_numpy(BYTES.encode_array(LETTERS * 10)).to(torch.uint16)
    monkeypatch.setattr(module, "CHUNK", 7)
    assert BYTES.size(ids) == TextSize(len(ids), 10 * len(LETTERS), 10 * len(LETTERS.encode()))


def test_a_loss_per_character():
    size = TextSize(tokens=10, characters=40, bytes=50)
    assert size.nats_per_character(2.0) == 0.5


# --- which tokens write which characters ---------------------------------------------------------


@every
@given(data=st.data())
def test_without_the_tokens_containing_characters_none_is_written(tok, data):
    characters = data.draw(st.text(alphabet=LETTERS, min_size=1, max_size=3))
    banned = tok.containing(characters)
    left = [i for i in range(tok.vocab_size) if i not in banned]
    written = tok.decode(data.draw(sequences(tok, left)))
    assert not set(written) & set(characters)


@every
@given(data=st.data())
def test_tokens_made_of_characters_write_nothing_else(tok, data):
    characters = data.draw(st.text(alphabet=LETTERS, min_size=1))
    allowed = tok.made_of(characters)
    for i in allowed:
        assert tok.decode([i])  # it writes something
    if allowed:
        assert set(tok.decode(data.draw(sequences(tok, allowed)))) <= set(characters)


def tokens(*names: bytes) -> list[int]:
    return sorted(BYTES.tokens.index(name) for name in names)


def test_containing_and_made_of_take_no_token_too_many():
    assert BYTES.containing("s") == tokens(b"s", b" sat")
    assert BYTES.containing("é") == tokens(b"\xc3", b" \xc3", "é".encode())
    # "\xf0" begins "😀"; its last byte alone does not
    assert BYTES.containing("😀") == tokens(b"\xf0")
    assert BYTES.containing("") == []
    assert BYTES.made_of("at ") == tokens(b"a", b"t", b" ", b"at")
    assert BYTES.made_of("é") == tokens("é".encode())  # and no half of it
    assert BYTES.made_of("") == []
    assert CHARACTERS.containing("é") == CHARACTERS.made_of("é") == CHARACTERS.encode("é")


@both
@pytest.mark.parametrize("ask", ["containing", "made_of"])
def test_characters_that_no_token_writes_are_an_error(tok, ask):
    with pytest.raises(ValueError):  # noqa: PT011 (the tokenizer's own words)
        getattr(tok, ask)("aX")


def test_pieces():
    assert CHARACTERS.pieces == CHARACTERS.texts == list(CHARACTERS.characters)
    shown = dict(zip(BYTES.tokens, BYTES.pieces, strict=True))
    assert shown[b" cat"] == " cat"
    assert shown[b"\xc3"] == "<C3>"
    assert shown[b" \xc3"] == "<20><C3>"
    assert BYTES.texts[BYTES.tokens.index(b"\xc3")] is None


# --- files ---------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("through", [Tokenizer, None], ids=["any kind", "its own kind"])
def test_save_and_load(tmp_path, tok, through):
    path = tmp_path / "tokenizer.json"
    tok.save(path)
    loaded = (through or type(tok)).load(path)
    assert loaded == tok
    assert loaded.fingerprint == tok.fingerprint
    assert loaded.encode(LETTERS) == tok.encode(LETTERS)


def test_characters_that_json_has_to_escape(tmp_path):
    tokenizer = CharTokenizer('aé\n\t€😀\\"')
    tokenizer.save(tmp_path / "tokenizer.json")
    assert CharTokenizer.load(tmp_path / "tokenizer.json") == tokenizer


def test_the_tokenizer_of_the_shipped_run():
    shipped = Tokenizer.load(ROOT / "checkpoints" / "laptop-dense" / "tokenizer.json")
    assert isinstance(shipped, CharTokenizer)
    assert shipped.vocab_size == 65
    assert shipped.decode(shipped.encode("To be, or not to be?")) == "To be, or not to be?"


@pytest.mark.parametrize(
    "content", ["", "{}", "[1]", '{"type": "char", "characters": 5}', "not json", "[" * 100_000]
)
def test_a_damaged_file_is_refused(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"tokenizer\.json is not a tokenizer"):
        CharTokenizer.load(path)


def test_a_kind_that_is_unknown_or_another_is_refused(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text('{"type": "syllables"}', encoding="utf-8")
    with pytest.raises(
        ConfigError, match="kind 'syllables'; read here are: bpe, char.*later version"
    ):
        Tokenizer.load(path)
    BYTES.save(path)
    with pytest.raises(ConfigError, match="kind 'bytes, for tests'; read here are: char[.]"):
        CharTokenizer.load(path)
    path.write_text('{"type": ["char"]}', encoding="utf-8")
    with pytest.raises(ConfigError, match="is not a tokenizer"):
        Tokenizer.load(path)


def test_a_subclass_without_a_kind_of_its_own_changes_nothing(tmp_path):
    class Learners(CharTokenizer):
        pass

    CHARACTERS.save(tmp_path / "tokenizer.json")
    assert type(Tokenizer.load(tmp_path / "tokenizer.json")) is CharTokenizer
    assert Learners("ab") != CharTokenizer("ab")


@pytest.mark.parametrize(
    ("symbols", "words"),
    [
        ([], "empty alphabet"),
        (["a", "bc"], "'bc' is not one character"),
        (["a", ""], "'' is not one character"),
        (["a", "\ud800"], r"'\\ud800' is not one character"),
        (["a", "b", "a"], "'a' stands twice.*from_text"),
    ],
)
def test_symbols_that_are_no_alphabet(tmp_path, symbols, words):
    with pytest.raises(ConfigError, match=words):
        CharTokenizer(symbols)
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({"type": "char", "characters": symbols}), encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"tokenizer\.json is not .*{words}"):
        Tokenizer.load(path)


# --- equality ------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [lambda: CharTokenizer(reversed("ab")), byte_tokenizer])
def test_equal_tokenizers_are_one_key(make):
    assert make() == make()
    assert hash(make()) == hash(make())
    assert make().fingerprint == make().fingerprint
    assert len({make(), make(), CharTokenizer("abc")}) == 2


def test_unequal_tokenizers():
    other = ByteTokenizer(BYTES.tokens[::-1])
    assert other != BYTES
    assert BYTES.fingerprint != other.fingerprint
    assert CharTokenizer("ab") != CharTokenizer("abc")
    assert CharTokenizer("ab").fingerprint != CharTokenizer("abc").fingerprint
    assert CharTokenizer("ab") != ByteTokenizer([b"a", b"b"])
    assert CharTokenizer("ab") != "ab"


def test_fingerprints_stay_what_checkpoints_hold():
    assert CharTokenizer("ba").fingerprint == hashlib.sha256(b"ab").hexdigest()
    assert BYTES.fingerprint.startswith("ba0973b9c63270cf")
