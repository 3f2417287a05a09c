import numpy as np
import pytest
import torch

from tests.tools import byte_tokenizer
from tinygpt import load_corpus
from tinygpt.errors import CorpusError
from tinygpt.text import Corpus, TextSize, corpus


def put(folder, text):
    folder.mkdir(parents=True)
    (folder / "input.txt").write_text(text, encoding="utf-8", newline="\n")


def test_split_and_text(home):
    root, text = home
    put(root / "data" / "hamlet", text)
    corpus = load_corpus("hamlet")
    assert corpus.text == text
    assert len(corpus.train) == int(0.9 * len(text))
    decoded = corpus.tokenizer.decode(torch.cat([corpus.train, corpus.val]))
    assert decoded == text
    assert corpus.floor is None
    assert "hamlet" in repr(corpus)


def test_look_up_order_own_folder_then_environment(home, monkeypatch):
    root, text = home
    put(root / "elsewhere" / "hamlet", text)
    monkeypatch.setenv("TINYGPT_DATA", "elsewhere")  # relative to the repository
    assert load_corpus("hamlet").source == "$TINYGPT_DATA/hamlet/input.txt"
    put(root / "data" / "hamlet", text)
    assert load_corpus("hamlet").source == "data/hamlet/input.txt"


def test_nowhere_to_be_had(home, capsys):
    root, _ = home
    with pytest.raises(CorpusError, match=r"hamlet is not on this machine.*--corpus tinyplays"):
        load_corpus("hamlet")
    assert load_corpus("hamlet", fallback="tinyplays").name == "tinyplays"
    assert "Going on with tinyplays" in capsys.readouterr().out
    assert not (root / "data" / "hamlet" / "input.txt").exists()


def test_a_damaged_text_is_refused_unless_there_is_a_good_one(home, monkeypatch):
    root, text = home
    put(root / "data" / "hamlet", text[:-1])
    with pytest.raises(CorpusError, match="is not the text it should be.*Delete it"):
        load_corpus("hamlet")
    put(root / "elsewhere" / "hamlet", text)
    monkeypatch.setenv("TINYGPT_DATA", str(root / "elsewhere"))
    assert load_corpus("hamlet").text == text


def test_unknown_corpus_and_missing_file(home):
    with pytest.raises(CorpusError, match=r"unknown corpus 'macbeth'.*hamlet, tinyplays"):
        load_corpus("macbeth")
    with pytest.raises(CorpusError, match=r"there is no file .*nowhere.txt"):
        load_corpus("file:nowhere.txt")


def test_own_text_byte_order_mark_and_windows_line_ends(home):
    root, _ = home
    (root / "mine.txt").write_bytes("\ufeffolá\r\nmundo\r\n".encode())
    assert load_corpus("file:mine.txt").text == "olá\nmundo\n"


@pytest.mark.parametrize(
    ("content", "words"), [(b"caf\xe9 au lait", "not UTF-8.*byte 3"), (b"", "is empty")]
)
@pytest.mark.parametrize("large", [False, True])
def test_own_text_that_cannot_be_read(home, monkeypatch, content, words, large):
    root, _ = home
    if large and content:
        monkeypatch.setattr(corpus, "MEMMAP_BYTES", 1)
    (root / "mine.txt").write_bytes(content)
    with pytest.raises(CorpusError, match=words):
        load_corpus("file:mine.txt")


def test_tinyplays_is_a_corpus_with_a_floor():
    corpus = load_corpus("tinyplays")
    counts = np.bincount(corpus.val.numpy())
    share = counts[counts > 0] / counts.sum()
    unigram = -(share * np.log(share)).sum()
    assert 0 < corpus.floor < unigram / 2
    assert len(corpus.train) + len(corpus.val) == len(corpus.text)
    assert "tinygpt/text/tinyplays.py" in corpus.source


def test_the_size_of_a_validation_split_of_characters():
    corpus = load_corpus("tinyplays")
    held_out = corpus.text[len(corpus.train) :]
    assert corpus.val_size == TextSize(len(held_out), len(held_out), len(held_out.encode()))
    assert corpus.val_size is corpus.val_size  # counted once


def test_a_corpus_whose_tokens_are_not_characters():
    tokenizer, text = byte_tokenizer(), "the cat sat. é😀\n" * 20
    tokens = torch.from_numpy(tokenizer.encode_array(text))
    corpus = Corpus("cats", tokenizer, tokens[:-34], tokens[-34:], None, "here", lambda: text)
    held_out = tokenizer.decode(corpus.val)
    assert corpus.val_size == TextSize(34, len(held_out), len(held_out.encode()))
    assert corpus.val_size.tokens < corpus.val_size.characters < corpus.val_size.bytes
    assert repr(corpus) == (
        f"Corpus('cats': {len(tokens) - 34} train + 34 val tokens, "
        f"vocabulary of {tokenizer.vocab_size}, from here)"
    )
