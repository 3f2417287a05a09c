from pathlib import Path

import numpy as np
import pytest
import torch

from tinygpt import load_corpus, textfiles
from tinygpt.corpora import Corpus, corpus, plain
from tinygpt.errors import CorpusError
from tinygpt.text import TextSize

from ..tools import byte_tokenizer


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
    (root / "notebooks").mkdir()
    monkeypatch.chdir(root / "notebooks")
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
    Path("mine.txt").write_bytes("\ufeffolá\r\nmundo\rfim\n".encode())
    assert load_corpus("file:mine.txt").text == "olá\nmundo\nfim\n"


def test_own_text_by_a_path_from_the_current_folder(home, monkeypatch):
    """The corpus's name is the whole path, so that a run goes on from any folder."""
    root, text = home
    place = root / "some where"
    put(place, text)
    monkeypatch.setenv("HOME", str(root))
    monkeypatch.setenv("USERPROFILE", str(root))
    for given in ("~/some where/input.txt", "some where/input.txt", str(place / "input.txt")):
        corpus = load_corpus(f"file:{given}")
        assert corpus.text == text
        assert corpus.source == given
        assert corpus.name == f"file:{place / 'input.txt'}"
    monkeypatch.chdir(place)
    assert load_corpus("file:input.txt").text == load_corpus(corpus.name).text == text
    with pytest.raises(CorpusError, match="there is no file"):
        load_corpus("file:~no user/input.txt")


BAD = {
    "latin": (b"caf\xe9 au lait", "not UTF-8.*byte 3"),
    "half a surrogate pair": (b"ab" + b"\xed\xa0\x80", "not UTF-8.*byte 2"),
    "the end of a character is missing": ("abé".encode()[:-1], "not UTF-8.*byte"),
    "UTF-16 with a mark": ("to be".encode("utf-16"), "not UTF-8.*byte 0"),
    "UTF-16": ("to be".encode("utf-16-le"), "holds NUL.*UTF-16; save it as UTF-8"),
    "empty": (b"", "is empty; there is nothing"),
    "a mark alone": ("\ufeff".encode(), "is empty; there is nothing"),
    "white": (" \r\n\t\u3000".encode() * 9, "only white space; there is nothing"),
}


@pytest.mark.parametrize(("content", "words"), BAD.values(), ids=BAD)
@pytest.mark.parametrize("large", [False, True])
def test_own_text_that_cannot_be_learned_from(home, monkeypatch, content, words, large):
    root, _ = home
    if large and content:
        monkeypatch.setattr(corpus, "MEMMAP_BYTES", 1)
    Path("mine.txt").write_bytes(content)
    with pytest.raises(CorpusError, match=rf"mine\.txt .*{words}"):
        load_corpus("file:mine.txt")
    assert list(root.glob("data/cache/*")) == []


def test_the_place_of_a_wrong_byte_in_a_large_text(home, monkeypatch):
    monkeypatch.setattr(corpus, "MEMMAP_BYTES", 1)
    monkeypatch.setattr(textfiles, "PIECE", 1000)  # pieces end within characters
    Path("mine.txt").write_bytes("é日😀".encode() * 5200 + b"\xff" + "é".encode() * 5000)
    with pytest.raises(CorpusError, match="not UTF-8 text: invalid start byte at byte 46800"):
        load_corpus("file:mine.txt")


@pytest.mark.parametrize("name", ["file:", "file:folder", "file:folder/", "file:..", "file:/"])
def test_a_folder_is_no_text(home, name):
    Path("folder").mkdir()
    with pytest.raises(CorpusError, match="is a folder; after 'file:' comes the path of a text"):
        load_corpus(name)


def test_paths_that_are_none(home):
    with pytest.raises(CorpusError, match="cannot be read: File name too long"):
        load_corpus("file:" + "x" * 300)
    Path("text").write_text("a text")
    for name in ("file:\0", "file:text/more"):
        with pytest.raises(CorpusError, match="there is no file"):
            load_corpus(name)


@pytest.mark.parametrize("call", ["is_file", "open", "stat"])
def test_a_text_that_may_not_be_read(home, monkeypatch, call):
    root, text = home
    put(root / "data" / "hamlet", text)

    def refuse(path, *args, **named):
        if getattr(path, "name", path) == "input.txt" or str(path).endswith("input.txt"):
            raise PermissionError(13, "Permission denied", str(path))
        return before(path, *args, **named)

    if call == "open":
        before = open
        monkeypatch.setattr("builtins.open", refuse)
    else:
        before = getattr(Path, call)
        monkeypatch.setattr(Path, call, refuse)
    for name in ("hamlet", "file:data/hamlet/input.txt"):
        with pytest.raises(CorpusError, match=r"input.txt cannot be read: Permission denied"):
            load_corpus(name)


def test_a_text_that_is_another_by_now(home):
    Path("mine.txt").write_text("a text")
    mine = load_corpus("file:mine.txt")
    Path("mine.txt").write_text("another text")
    with pytest.raises(CorpusError, match=r"mine.txt is another text than when it was loaded"):
        _ = mine.text
    Path("mine.txt").unlink()
    with pytest.raises(CorpusError, match=r"mine.txt cannot be read: No such file"):
        _ = mine.text


def test_a_registered_text_that_changes_after_it_was_checked(home, monkeypatch):
    root, text = home
    put(root / "data" / "hamlet", text)
    locate = plain.locate

    def then_change(*args):
        path = locate(*args)
        path.write_text(text + "more")
        return path

    monkeypatch.setattr(plain, "locate", then_change)
    with pytest.raises(CorpusError, match=r"input.txt is another text"):
        load_corpus("hamlet")


def test_tinyplays_is_a_corpus_with_a_floor():
    corpus = load_corpus("tinyplays")
    counts = np.bincount(corpus.val.numpy())
    share = counts[counts > 0] / counts.sum()
    unigram = -(share * np.log(share)).sum()
    assert 0 < corpus.floor < unigram / 2
    assert len(corpus.train) + len(corpus.val) == len(corpus.text)
    assert "tinygpt/corpora/tinyplays.py" in corpus.source


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
