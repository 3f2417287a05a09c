"""A folder of one's own texts."""

import os
import sys
from pathlib import Path

import pytest

from tinygpt import load_corpus
from tinygpt.errors import CorpusError

from .books import prose


@pytest.fixture
def texts(home):
    """A folder with ten texts."""
    folder = home[0] / "texts"
    folder.mkdir()
    for i in range(10):
        (folder / f"{i}.txt").write_text(prose(i, 10), encoding="utf-8")
    return folder


def sides(corpus, text):
    parts = [corpus.tokenizer.decode(part) for part in (corpus.train, corpus.val)]
    return [text in part for part in parts]


def test_each_file_is_in_one_split(texts):
    corpus = load_corpus(f"folder:{texts}")
    found = [sides(corpus, prose(i, 10)) for i in range(10)]
    assert sorted(found) == [[False, True]] + [[True, False]] * 9
    assert corpus.contents.documents == {"train": 9, "val": 1}
    assert corpus.test is None
    assert corpus.name == f"folder:{texts}"
    assert load_corpus("folder:texts").name == corpus.name  # from here


def test_another_file_moves_few_others(texts):
    before = load_corpus("folder:texts")
    (texts / "new.txt").write_text(prose(99, 10), encoding="utf-8")
    after = load_corpus("folder:texts")
    same = [sides(before, prose(i, 10)) == sides(after, prose(i, 10)) for i in range(10)]
    assert sum(same) >= 8


def test_copies_are_left_out_and_told(texts):
    (texts / "below").mkdir()
    copy = prose(3, 10).replace("\n", "\r\n").encode()
    (texts / "below" / "copy.txt").write_bytes(b"\xef\xbb\xbf" + copy)
    (texts / ".hidden.txt").write_text(prose(77, 10), encoding="utf-8")
    (texts / "notes.md").write_text(prose(78, 10), encoding="utf-8")
    corpus = load_corpus("folder:texts")
    assert corpus.contents.notes == ["below/copy.txt is left out: a copy of 3.txt"] or (
        corpus.contents.notes == ["3.txt is left out: a copy of below/copy.txt"]
    )
    assert corpus.text.count(prose(3, 10)) == 1
    assert prose(77, 10) not in corpus.text
    assert prose(78, 10) not in corpus.text


def test_files_that_share_most_of_their_text_are_on_one_side(texts):
    for i in range(10):
        mixed = f"{prose(100 + i, 2)}\n\n{prose(i, 10)}"
        (texts / f"again-{i}.txt").write_text(mixed, encoding="utf-8")
    corpus = load_corpus("folder:texts")
    for i in range(10):
        assert sides(corpus, prose(100 + i, 2)) == sides(corpus, prose(i, 10))
    assert "3.txt and again-3.txt have most of their text in common: one split" in (
        corpus.contents.notes
    )


@pytest.mark.skipif(sys.platform != "linux", reason="file names are text there")
def test_names_that_are_not_utf_8(texts):
    for name, text in ((b"caf\xe9.txt", prose(11, 10)), (b"na\xefve.txt", prose(3, 10))):
        (texts / os.fsdecode(name)).write_text(text, encoding="utf-8")
    corpus = load_corpus("folder:texts", "bpe:300")
    assert sorted(sides(corpus, prose(11, 10))) == [False, True]
    assert any("a copy of" in note for note in corpus.contents.notes)
    assert load_corpus("folder:texts", "bpe:300").contents == corpus.contents


def test_what_cannot_be_divided_is_refused(home):
    with pytest.raises(CorpusError, match=r"there is no folder .*nowhere"):
        load_corpus("folder:nowhere")
    Path("one").mkdir()
    Path("one/a.txt").write_text(prose(1, 2), encoding="utf-8")
    with pytest.raises(CorpusError, match=r"has 1 .txt files, and it takes two.*file:PATH"):
        load_corpus("folder:one")
    Path("one/b.txt").write_text(prose(1, 2), encoding="utf-8")
    with pytest.raises(CorpusError, match=r"all these files are one text.*b.txt is left out"):
        load_corpus("folder:one")
    Path("one/c.txt").write_text(" \n", encoding="utf-8")
    with pytest.raises(CorpusError, match=r"c.txt holds only white space"):
        load_corpus("folder:one")
    Path("one/c.txt").write_bytes(b"caf\xe9")
    with pytest.raises(CorpusError, match=r"c.txt is not UTF-8"):
        load_corpus("folder:one")


def test_a_file_that_changes_is_noticed(texts):
    corpus = load_corpus("folder:texts")
    (texts / "5.txt").write_text("another", encoding="utf-8")
    with pytest.raises(CorpusError, match=r"5.txt is another text than when it was loaded"):
        _ = corpus.text
