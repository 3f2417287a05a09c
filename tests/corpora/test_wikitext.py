"""WikiText-2 from text files, from a local hub's parquet files, and its small substitute."""

import hashlib
import io
import os
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import constants

from tinygpt import load_corpus
from tinygpt.corpora import wikitext
from tinygpt.errors import CorpusError

from ..server import Server, library, status

REAL = Path(os.environ.get("TINYGPT_DATA", "no folder")).absolute()


def article(title):
    return f" \n = {title} = \n \n The {title} is a <unk> of some kind . \n \n = = Use = = \n \n"


def put(home, **files):
    folder = home[0] / "data" / "wikitext-2"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")


def test_the_three_files_are_the_three_splits(home):
    texts = {name: article(name) * 3 for name in ("train", "valid", "test")}
    put(home, **texts)
    corpus = load_corpus("wikitext-2")
    for split, name in (("train", "train"), ("val", "valid"), ("test", "test")):
        decoded = corpus.tokenizer.decode(getattr(corpus, split))
        assert decoded.removesuffix("\n\n") == texts[name]
    assert corpus.contents.notes == ["tokenised form: <unk> for rare words"]


def test_the_two_forms_are_not_mixed(home):
    texts = {name: article(name) for name in ("train", "valid", "test")}
    put(home, **texts | {"train": "The whole of the words . \n"})
    with pytest.raises(CorpusError, match="two forms, with <unk> for rare words and without"):
        load_corpus("wikitext-2")


def test_a_split_that_is_missing_is_named(home):
    put(home, train=article("x"), valid=article("y"))
    with pytest.raises(CorpusError, match="no test.txt here: put it at data/wikitext-2/test.txt"):
        load_corpus("wikitext-2")


def test_the_substitute_divides_the_validation_articles(home):
    titles = [f"Number {i}" for i in range(10)]
    put(home, valid="".join(map(article, titles)), test=article("Test"))
    corpus = load_corpus("wikitext-2-valid")
    decoded = [corpus.tokenizer.decode(part) for part in (corpus.train, corpus.val, corpus.test)]
    assert [[f" {t} is" in text for t in titles] for text in decoded] == [
        [True] * 9 + [False],
        [False] * 9 + [True],
        [False] * 10,
    ]
    assert corpus.contents.notes[0].startswith("trained on 9 of 10 validation articles")
    put(home, valid="No title at all . <unk> \n")
    with pytest.raises(CorpusError, match="has no articles"):
        load_corpus("wikitext-2-valid")


@pytest.mark.skipif(not REAL.is_dir(), reason="its files are not in $TINYGPT_DATA")
def test_the_real_substitute(home, monkeypatch):
    monkeypatch.setenv("TINYGPT_DATA", str(REAL))
    corpus = load_corpus("wikitext-2-valid")
    assert corpus.contents.notes[0].startswith("trained on 54 of 60 validation articles")
    test = (REAL / "wikitext-2" / "test.txt").read_text(encoding="utf-8")
    assert corpus.tokenizer.decode(corpus.test) == test + "\n\n"


# --- from the hub --------------------------------------------------------------------------------


@pytest.fixture
def hub(home, monkeypatch):
    """A local hub with small parquet files in the place of the real ones."""
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home[0] / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("no_proxy", "*")
    contents, files = {}, {}
    for split, wanted in wikitext.PARQUET.items():
        sink = io.BytesIO()
        rows = ["", f" = {split} = \n", "", " Café @-@ bar . \n"]
        parquet.write_table(arrow.table({"text": rows}), sink)
        content = sink.getvalue()
        known = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        files[split] = replace(wanted, **known)
        place = f"datasets/{wanted.repository}/resolve/{wanted.commit}/{wanted.file}"
        contents[place] = content
    monkeypatch.setattr(wikitext, "PARQUET", files)

    def start(**odd):
        server = Server(library(contents, **odd))
        template = server.base + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        return server

    return start


def test_the_hubs_rows_are_the_lines(hub):
    with hub() as server:
        corpus = load_corpus("wikitext-2")
        load_corpus("wikitext-2")
        assert len(server.visits) == 3
    for split in ("train", "val", "test"):
        decoded = corpus.tokenizer.decode(getattr(corpus, split))
        assert decoded == f" = {split} = \n Café @-@ bar . \n\n\n"
    assert corpus.contents.notes == ["raw form"]


def test_without_the_text_for_training_it_is_said_how_to_go_on(hub, home):
    missing = hub(**{"train-00000-of-00001.parquet": status(404)})
    with missing, pytest.raises(CorpusError, match="404.*train.txt.*wikitext-2-valid"):
        load_corpus("wikitext-2")
    assert not (home[0] / "data" / "wikitext-2").exists()


def test_without_pyarrow_it_is_said_what_to_install(home, monkeypatch):
    monkeypatch.setattr(wikitext, "find_spec", lambda name: None)
    with pytest.raises(CorpusError, match="pip install pyarrow.*wikitext-2-valid"):
        load_corpus("wikitext-2")
