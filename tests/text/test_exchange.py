"""Tokenizers in folders of transformers: its own library reads what is written, and writes."""

import json

import pytest
from transformers import AutoTokenizer, GPT2Tokenizer

from tinygpt import BPETokenizer, CharTokenizer, WordPieceTokenizer
from tinygpt.errors import CheckpointError
from tinygpt.text import read_tokenizer, write_tokenizer

TEXT = "Thou art a villain.\n\nCoração e não 🙂 — two  spaces\tand\r\na tab, it's we'll 1234567.\n"
MAKERS = {
    "characters": lambda: CharTokenizer.from_text(TEXT),
    "bpe": lambda: BPETokenizer.train(TEXT * 3, vocab_size=300),
    "wordpiece": lambda: WordPieceTokenizer.train(TEXT * 3, vocab_size=600),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_what_is_written_is_read_as_it_was(tmp_path, kind):
    tokenizer = MAKERS[kind]()
    write_tokenizer(tokenizer, tmp_path)
    assert read_tokenizer(tmp_path) == tokenizer


@pytest.mark.parametrize("kind", ["characters", "bpe"])
def test_transformers_reads_it_and_gives_the_same_ids_and_texts(tmp_path, kind):
    tokenizer = MAKERS[kind]()
    write_tokenizer(tokenizer, tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    ids = tokenizer.encode(TEXT)
    assert theirs.encode(TEXT) == ids
    assert theirs.decode(ids) == TEXT
    assert theirs.eos_token_id == tokenizer.end_of_text
    assert len(theirs) == tokenizer.vocab_size


def test_what_transformers_writes_of_gpt2s_kind_is_read(tmp_path):
    ours = MAKERS["bpe"]()
    vocabulary = {token: i for i, token in enumerate(ours.tokens)}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (tmp_path / "merges.txt").write_text("\n".join(ours.merges), encoding="utf-8")
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    assert read_tokenizer(tmp_path) == ours
    GPT2Tokenizer.from_pretrained(tmp_path).save_pretrained(tmp_path / "theirs")
    assert not (tmp_path / "theirs" / "vocab.json").exists()  # all in tokenizer.json
    assert read_tokenizer(tmp_path / "theirs") == ours


OTHERS = {
    "words cut otherwise": {"pre_tokenizer": {"type": "Sequence", "pretokenizers": []}},
    "a space before": {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True}},
    "lower case": {"normalizer": {"type": "Lowercase"}},
    "another model": {"model": {"type": "Unigram", "vocab": []}},
}


@pytest.mark.parametrize("case", OTHERS)
def test_other_tokenizers_are_not_taken_for_gpt2s(tmp_path, case):
    """Qwen's files have the same names and make other ids of the same text."""
    write_tokenizer(MAKERS["bpe"](), tmp_path)
    (tmp_path / "tinygpt_tokenizer.json").unlink()
    path = tmp_path / "tokenizer.json"
    assert read_tokenizer(tmp_path) == MAKERS["bpe"]()
    path.write_text(json.dumps(json.loads(path.read_text()) | OTHERS[case]))
    assert read_tokenizer(tmp_path) is None


def test_without_files_there_is_none_and_a_broken_one_is_an_error(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert read_tokenizer(tmp_path) is None
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"tokenizer.json cannot be read"):
        read_tokenizer(tmp_path)
