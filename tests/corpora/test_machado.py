"""Ten novels in three splits."""

import os
import re
from pathlib import Path

import pytest

from tinygpt import load_corpus
from tinygpt.corpora import machado
from tinygpt.errors import CorpusError

from .books import prose

REAL = Path(os.environ.get("TINYGPT_DATA", "no folder")).absolute()


def put(home):
    folder = home[0] / "data" / "machado-pt"
    folder.mkdir(parents=True)
    for i, file in enumerate(machado.NOVELS):
        (folder / file).write_text(prose(i, 3), encoding="utf-8")
    return folder


def check(corpus, folder):
    """Each novel is whole in its split and in no other."""
    parts = {split: decoded(corpus, split) for split in ("train", "val", "test")}
    for file in machado.NOVELS:
        text = (folder / file).read_text(encoding="utf-8")
        found = [split for split, part in parts.items() if text in part]
        assert found == [machado.SPLIT.get(file, "train")]


def decoded(corpus, split):
    return corpus.tokenizer.decode(getattr(corpus, split))


def test_each_novel_is_in_one_split(home):
    folder = put(home)
    corpus = load_corpus("machado-pt")
    check(corpus, folder)
    assert corpus.contents.documents == {"train": 8, "val": 1, "test": 1}
    assert "test: Memorial de Aires (1908)" in corpus.contents.notes
    assert corpus.source == "ten novels in data/machado-pt"


def test_a_missing_novel_is_named(home):
    (put(home) / "helena.txt").unlink()
    with pytest.raises(CorpusError, match=r"lacks helena.txt: put .* into data/machado-pt"):
        load_corpus("machado-pt")


@pytest.mark.skipif(not REAL.is_dir(), reason="its files are not in $TINYGPT_DATA")
def test_the_real_novels(home, monkeypatch):
    monkeypatch.setenv("TINYGPT_DATA", str(REAL))
    corpus = load_corpus("machado-pt")
    check(corpus, REAL / "machado-pt")
    train = decoded(corpus, "train")
    for split in ("val", "test"):
        lines = re.findall(".{64,}", decoded(corpus, split))[::10]
        assert len(lines) > 200
        assert not [line for line in lines if line[:64] in train]
