"""Corpora by names with a + between them."""

import re

import pytest

from tinygpt import load_corpus
from tinygpt.errors import CorpusError

from .test_corpus import put
from .test_wikitext import article
from .test_wikitext import put as put_wikitext

NAME = "hamlet+wikitext-2-valid"


@pytest.fixture
def both(home):
    root, text = home
    put(root / "data" / "hamlet", text)
    put_wikitext(home, valid="".join(article(f"Number {i}") for i in range(10)), test=article("T"))
    return home


def test_each_text_keeps_its_splits(both):
    text = both[1]
    corpus, wiki = load_corpus(NAME), load_corpus("wikitext-2-valid")
    cut, decode = int(0.9 * len(text)), corpus.tokenizer.decode
    articles = {split: wiki.tokenizer.decode(getattr(wiki, split)) for split in ("train", "val")}
    assert decode(corpus.train) == f"{text[:cut]}\n\n{articles['train']}"
    assert decode(corpus.val) == f"{text[cut:]}\n\n{articles['val']}"
    assert decode(corpus.test) == wiki.tokenizer.decode(wiki.test)
    assert corpus.name == NAME
    assert "data/hamlet/input.txt; data/wikitext-2" in corpus.source
    assert corpus.licence == "public domain; CC BY-SA 3.0"
    assert corpus.contents.notes[0].startswith("wikitext-2-valid: trained on 9 of 10")


def test_a_tokenizer_learns_from_all_that_is_for_training(both):
    tokenizer = load_corpus(NAME, "bpe:300").tokenizer
    texts = [tokenizer.decode([i]) for i in range(tokenizer.vocab_size)]
    assert " be" in texts  # of the play
    assert " kind" in texts  # of the articles


@pytest.mark.parametrize(
    ("name", "part"),
    [("hamlet+nope", "nope"), ("hamlet+", ""), ("tinyplays+hamlet", "tinyplays")],
)
def test_what_is_no_part_is_named(both, name, part):
    with pytest.raises(CorpusError, match=re.escape(f"{part!r} cannot be a part of {name!r}")):
        load_corpus(name)


@pytest.mark.parametrize(
    "name",
    [
        "hamlet+hamlet",
        "tinystories+hamlet+tinystories-sample",
        "tinystories:20+tinystories:30",
        "wikitext-2+wikitext-2-valid",
        "machado-pt+gutenberg-pt:30",
    ],
)
def test_what_one_part_is_validated_on_is_in_no_other(both, name):
    one, *_, other = name.split("+")
    with pytest.raises(CorpusError, match=f"{one} and {other} have texts in common.*take one"):
        load_corpus(name, fallback="tinyplays")


def test_a_plus_in_a_path_is_a_plus(home):
    (home[0] / "a+b.txt").write_text("to be or not to be\n" * 9, encoding="utf-8")
    assert load_corpus("file:a+b.txt").text.startswith("to be")
