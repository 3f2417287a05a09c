import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygpt import CharTokenizer, UnknownCharacterError
from tinygpt.errors import ConfigError


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


def test_save_and_load(tmp_path):
    tokenizer = CharTokenizer('aé\n\t€😀\\"')
    tokenizer.save(tmp_path / "tokenizer.json")
    assert CharTokenizer.load(tmp_path / "tokenizer.json") == tokenizer
    assert CharTokenizer.load(tmp_path / "tokenizer.json").fingerprint == tokenizer.fingerprint
    assert tokenizer.fingerprint != CharTokenizer("ab").fingerprint


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"characters": 5}', "not json"])
def test_a_damaged_file_is_refused(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match="tokenizer.json"):
        CharTokenizer.load(path)


def test_bad_ids_and_empty_alphabet():
    with pytest.raises(ValueError, match="id 2 is not in 0 to 1"):
        CharTokenizer("ab").decode([0, 2])
    with pytest.raises(ValueError, match="id -1"):
        CharTokenizer("ab").decode([-1])
    with pytest.raises(ConfigError, match="empty alphabet"):
        CharTokenizer("")
