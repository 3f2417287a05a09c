"""Tokenizers by name."""

import pytest

from tinygpt import BPETokenizer, CharTokenizer, WordPieceTokenizer
from tinygpt.errors import ConfigError, CorpusError
from tinygpt.text import make_tokenizer, named, tokenizer_maker

from ..tools import subword_tokenizer

TEXTS = ["the word ", "the words\n"]


def unread():
    raise AssertionError("this tokenizer needs no text")
    yield


def test_characters_are_those_of_all_texts():
    assert make_tokenizer("char", iter(TEXTS)) == CharTokenizer.from_text("".join(TEXTS))


def test_trained_ones():
    assert make_tokenizer("bpe:262", iter(TEXTS)) == BPETokenizer.train(TEXTS, 262)
    assert make_tokenizer("wordpiece:520", TEXTS) == WordPieceTokenizer.train(TEXTS, 520)


def test_a_saved_one_of_any_kind_is_checked_before_a_text_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for tokenizer in (subword_tokenizer(), CharTokenizer("ab")):
        tokenizer.save("mine.json")
        assert make_tokenizer("mine.json", unread()) == tokenizer
        assert make_tokenizer(str(tmp_path / "mine.json"), unread()) == tokenizer
    (tmp_path / "mine.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"mine\.json is not a tokenizer"):
        tokenizer_maker("mine.json")


def test_gpt2_is_found_when_it_is_made(monkeypatch):
    def nowhere():
        raise CorpusError("nowhere")

    monkeypatch.setattr(named.BPETokenizer, "from_gpt2", nowhere)
    make = tokenizer_maker("gpt2")
    with pytest.raises(CorpusError, match="nowhere"):
        make(unread())


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "gpt-2",
            "unknown tokenizer 'gpt-2'; there are char, gpt2, bpe:4000",
        ),
        ("bpe", "did you mean bpe:4000?"),
        ("bpe:", "did you mean bpe:4000?"),
        ("bpe:4k", "did you mean bpe:4000?"),
        ("bpe:-4000", "did you mean bpe:4000?"),
        ("wordpeice:4000", "did you mean wordpiece:4000?"),
        ("chars", "did you mean char?"),
        ("", "unknown tokenizer ''; there are"),
        ("no/such/file.json", "unknown tokenizer 'no/such/file.json'; there are"),
        ("bpe:256", "vocab_size=256 must be a whole number from 257"),
        ("wordpiece:512", "vocab_size=512 must be a whole number from 513"),
        ("bpe:99999999999", "vocab_size=99999999999 must be"),
    ],
)
def test_names_that_are_none(name, words):
    with pytest.raises(ConfigError) as error:
        tokenizer_maker(name)
    assert words in str(error.value)
