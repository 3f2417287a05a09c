"""Trained tokenizers of sub-words, and GPT-2's: against transformers' GPT-2 tokenizer."""

import json
import os
import re
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygpt import BPETokenizer, UnknownCharacterError, WordPieceTokenizer
from tinygpt.errors import ConfigError
from tinygpt.text import TextSize, Tokenizer, subwords

from ..tools import SAMPLE, subword_tokenizer

GPT2 = Path(os.environ.get("TINYGPT_DATA", "")) / "gpt2-bpe"
KINDS = [BPETokenizer, WordPieceTokenizer]

needs_gpt2 = pytest.mark.skipif(not GPT2.is_dir(), reason="GPT-2's files are not in $TINYGPT_DATA")
each = pytest.mark.parametrize("kind", KINDS, ids=[kind.kind for kind in KINDS])

# what the cutting into words looks at, beside letters of any script
TURNS = ["'s", "'ll", "'r", "'", " ", "  ", "\n", "\r\n", "\t", "\u3000", "\xa0", "\x1c", "##", "…"]
TURNS += ["12", "é", "e\u0301", "ção", "😀", "日本", ".", "<|endoftext|>", "the", "word"]
texts = st.lists(st.sampled_from(TURNS) | st.text(max_size=6), max_size=12).map("".join)


@lru_cache
def gpt2() -> BPETokenizer:
    return BPETokenizer.from_gpt2(GPT2)


def write_gpt2_files(folder: Path, tokenizer: BPETokenizer, header: bool) -> Path:
    ids = {token: i for i, token in enumerate(tokenizer.tokens)}
    (folder / "vocab.json").write_text(json.dumps(ids), encoding="utf-8")
    lines = [*(["#version: 0.2"] if header else []), *tokenizer.merges]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@lru_cache
def theirs(folder: Path):
    """Transformers' tokenizer of two files, told not to read marks out of texts, as ours does."""
    from transformers import GPT2Tokenizer

    files = {"vocab": str(folder / "vocab.json"), "merges": str(folder / "merges.txt")}
    return GPT2Tokenizer(**files, split_special_tokens=True)


# --- against transformers ------------------------------------------------------------------------


@needs_gpt2
@given(texts)
def test_gpt2_gives_transformers_ids_on_any_text(text):
    ids = gpt2().encode(text)
    assert ids == theirs(GPT2).encode(text)
    assert gpt2().decode(ids) == text


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_gpt2_files(tmp_path_factory.mktemp("gpt2"), subword_tokenizer(), header=True)


@given(text=texts)
def test_a_trained_tokenizer_gives_transformers_ids_on_any_text(folder, text):
    assert subword_tokenizer().encode(text) == theirs(folder).encode(text)


@needs_gpt2
def test_gpt2_on_a_novel():
    for path in [*GPT2.parent.glob("machado-pt/domCasmurro.txt"), *GPT2.parent.glob("*/input.txt")]:
        text = path.read_text(encoding="utf-8")[:100_000]
        assert gpt2().encode(text) == theirs(GPT2).encode(text)


@needs_gpt2
def test_known_ids_of_gpt2():
    assert gpt2().vocab_size == 50_257
    assert gpt2().encode("hello world") == [31373, 995]
    assert gpt2().encode(" two") == [734]  # of the first pair, "Ġ t"
    assert gpt2().encode("## ##") == [2235, 22492]  # of pairs that begin with #
    assert gpt2().encode("<|endoftext|>") == [27, 91, 437, 1659, 5239, 91, 29]
    assert gpt2().end_of_text == 50_256
    assert gpt2().decode([31373, 50_256, 995]) == "hello world"
    assert gpt2().pieces[50_256] == "<|endoftext|>"


# --- texts and back ------------------------------------------------------------------------------


@each
@given(text=texts)
def test_any_text_comes_back(kind, text):
    tokenizer = subword_tokenizer(kind)
    ids = tokenizer.encode_array(text)
    assert tokenizer.decode(ids) == text
    assert ids.dtype == np.int32
    assert tokenizer.end_of_text not in ids
    assert tokenizer.size(ids) == TextSize(len(ids), len(text), len(text.encode()))


@each
def test_long_words_come_back(kind):
    for text in ("a" * 1000, "日本語" * 100, "#" * 129, " " * 500):
        assert subword_tokenizer(kind).decode(subword_tokenizer(kind).encode(text)) == text


@each
def test_the_end_of_a_text_is_an_id_without_text(kind):
    tokenizer = subword_tokenizer(kind)
    end = tokenizer.end_of_text
    assert end == tokenizer.vocab_size - 1
    assert tokenizer.token_bytes(end) == b""
    assert tokenizer.decode([end, *tokenizer.encode("the word"), end]) == "the word"
    assert tokenizer.pieces[end] == "<|endoftext|>"
    assert end not in tokenizer.containing("<|endoftext|>")
    assert end not in tokenizer.made_of("<|endoftext|>")


@each
def test_half_a_surrogate_pair_is_refused_everywhere(kind):
    tokenizer = subword_tokenizer(kind)
    for use in (tokenizer.encode, tokenizer.encode_array, tokenizer.made_of, kind.train):
        with pytest.raises(UnknownCharacterError, match=r"'\\ud800' at positions 2, 4") as error:
            use("ok\ud800b\ud800d")
        assert error.value.unknown == {"\ud800": [2, 4]}
    with pytest.raises(UnknownCharacterError, match="surrogate"):
        list(tokenizer.encode_pieces(["good and ", "\udfff"]))
    with pytest.raises(UnknownCharacterError, match="surrogate"):
        kind.train(iter(["good", "\udfff"]))


@each
@given(many=st.lists(texts, max_size=4))
def test_several_texts_at_once(kind, many):
    tokenizer = subword_tokenizer(kind)
    assert [a.tolist() for a in tokenizer.encode_many(many)] == [tokenizer.encode(t) for t in many]
    with pytest.raises(UnknownCharacterError, match="surrogate"):
        tokenizer.encode_many([*many, "\ud800"])


# --- a text in pieces ----------------------------------------------------------------------------


@each
@given(text=texts, size=st.integers(1, 9))
def test_a_text_in_pieces_of_any_size_has_the_ids_of_the_whole(kind, text, size):
    tokenizer = subword_tokenizer(kind)
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    assert np.concatenate(list(tokenizer.encode_pieces(pieces))).tolist() == tokenizer.encode(text)


@each
@given(text=texts, rest=texts)
def test_a_cut_is_sure_however_the_text_goes_on(kind, text, rest):
    tokenizer = subword_tokenizer(kind)
    place = tokenizer.cut(text)
    parts = tokenizer.encode(text[:place]) + tokenizer.encode(text[place:] + rest)
    assert parts == tokenizer.encode(text + rest)


def test_a_cut_is_late():
    tokenizer = subword_tokenizer()
    assert tokenizer.cut("hello wor") == tokenizer.cut("hello \n  \n") == 5
    assert [tokenizer.cut(text) for text in ("hello", "  hello", "")] == [0, 0, 0]
    text = SAMPLE[: SAMPLE.rindex(" ")]
    assert len(text) - tokenizer.cut(text) < 20


def test_a_long_text_is_encoded_in_parts(monkeypatch):
    whole = subword_tokenizer().encode(SAMPLE)
    for part, parts in ((1, 1), (7, 3), (100, 10_000)):
        monkeypatch.setattr(subwords, "PART", part)
        monkeypatch.setattr(subwords, "PARTS", parts)
        assert subword_tokenizer().encode(SAMPLE) == whole


# --- training ------------------------------------------------------------------------------------


@each
def test_training_is_repeatable(kind):
    for _ in range(3):  # each with hash tables of its own
        assert kind.train(SAMPLE, vocab_size=900) == subword_tokenizer(kind)


@each
def test_training_takes_one_text_or_several_in_any_parts(kind):
    lines = re.findall(r".*\n", SAMPLE)
    assert kind.train(iter(lines), vocab_size=600).vocab_size == 600
    texts = [SAMPLE[:20_000], SAMPLE[20_000:]]
    assert kind.train(tuple(texts), vocab_size=600) == kind.train(iter(texts), vocab_size=600)
    assert kind.train([SAMPLE], 900) == kind.train(SAMPLE, 900) == subword_tokenizer(kind)


@each
def test_a_small_text_gives_fewer_tokens(kind):
    least = 256 * len(kind.prefixes) + 1
    assert kind.train("", vocab_size=4000).vocab_size == least
    few = kind.train("low lower lowest " * 9, vocab_size=4000)
    assert least + 4 < few.vocab_size < least + 20
    assert len(few.encode(" lowest")) == 1
    assert kind.train("once", vocab_size=4000).vocab_size == least


@each
@pytest.mark.parametrize("size", [0, -1, 256, 1 << 30, 4000.0, True, "4000"])
def test_a_vocabulary_that_cannot_be(kind, size):
    with pytest.raises(ConfigError, match=rf"vocab_size={size!r} must be a whole number from"):
        kind.train("text", vocab_size=size)


# --- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", [True, False])
def test_the_two_files_with_and_without_the_version_line(tmp_path, header):
    assert (
        BPETokenizer.from_gpt2(write_gpt2_files(tmp_path, subword_tokenizer(), header))
        == subword_tokenizer()
    )


def test_a_pair_may_begin_as_a_comment_does(tmp_path):
    tokenizer = BPETokenizer.train("## ### #### ## " * 20, vocab_size=300)
    assert any(merge.startswith("#") for merge in tokenizer.merges)
    assert BPETokenizer.from_gpt2(write_gpt2_files(tmp_path, tokenizer, False)) == tokenizer


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("vocab.json", "", "Expecting value"),
        ("vocab.json", "[1]", ""),
        ("vocab.json", '{"a": 0}', "lacks 255 of the 256 bytes"),
        ("vocab.json", '{"a": 0, "b": 2}', "not 0 to 1, each once"),
        ("vocab.json", '{"a": 0, "b": "x"}', ""),
        ("vocab.json", "[" * 100_000, ""),
        ("merges.txt", "a b c\n", "pair 'a b c' must be two tokens"),
        ("merges.txt", "ab\n", "pair 'ab' must be"),
        ("merges.txt", "q Ġq\n", "pair 'q Ġq' must be"),
        ("merges.txt", b"\xff", "utf-8"),
        ("merges.txt", None, "No such file"),
    ],
)
def test_damaged_files_are_one_error(tmp_path, file, content, words):
    path = write_gpt2_files(tmp_path, subword_tokenizer(), header=False) / file
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=f"does not hold GPT-2's two files.*{words}"):
        BPETokenizer.from_gpt2(tmp_path)


def stored(kind=BPETokenizer, **changes) -> dict:
    return {"type": kind.kind, **subword_tokenizer(kind).to_json(), **changes}


TOKENS, MERGES = list(subword_tokenizer().tokens), list(subword_tokenizer().merges)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"type": "bpe"}, "'tokens'"),
        (stored(tokens="abc"), "'tokens' must be a list of texts"),
        (stored(tokens=[*TOKENS, 5]), "'tokens' must be a list of texts"),
        (stored(tokens=[*TOKENS, ["a"]]), "'tokens' must be a list of texts"),
        (stored(tokens=[*TOKENS, ""]), "the token '' stands for no byte"),
        (stored(tokens=[*TOKENS, TOKENS[3]]), "stands twice"),
        (stored(tokens=[*TOKENS, "a b"]), "the token 'a b' has ' ', which stands for no byte"),
        (stored(tokens=[*TOKENS, "\ud800"]), "stands for no byte"),
        (stored(tokens=TOKENS[1:]), "lacks 1 of the 256 bytes, such as '!'"),
        (stored(merges=5), "'merges' must be a list of texts"),
        (stored(merges=[None]), "'merges' must be a list of texts"),
        (stored(merges=["zz zz"]), "the pair 'zz zz' must be two tokens"),
        (stored(WordPieceTokenizer, tokens=TOKENS), "lacks 256 of the 256 bytes, such as '…"),
        (
            stored(
                WordPieceTokenizer, tokens=[*subword_tokenizer(WordPieceTokenizer).tokens, "……a"]
            ),
            "'……a' has '…', which stands for no byte",
        ),
    ],
)
def test_a_saved_tokenizer_that_cannot_be_is_one_error(tmp_path, content, words):
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ConfigError, match=f"tokenizer.json is not a tokenizer.*{re.escape(words)}"):
        Tokenizer.load(path)


def test_kinds_are_not_mixed_up(tmp_path):
    subword_tokenizer().save(tmp_path / "tokenizer.json")
    with pytest.raises(ConfigError, match="kind 'bpe'; read here are: wordpiece[.]"):
        WordPieceTokenizer.load(tmp_path / "tokenizer.json")
    assert subword_tokenizer() != subword_tokenizer(WordPieceTokenizer)
