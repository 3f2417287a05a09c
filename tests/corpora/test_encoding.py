"""Documents in the ids of tokenizers, in memory and in token files."""

import io
import json
import os
import weakref
from itertools import chain
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from tinygpt import BPETokenizer, CharTokenizer, load_corpus, textfiles
from tinygpt.corpora import encoding
from tinygpt.corpora.documents import Document, Note
from tinygpt.corpora.encoding import alphabet, encode, id_type
from tinygpt.errors import ConfigError, CorpusError
from tinygpt.text import make_tokenizer

from ..tools import byte_tokenizer, marked_tokenizer
from .books import prose

REAL = Path(os.environ.get("TINYGPT_DATA", "no folder")).absolute()
DOCUMENTS = [
    Document("train", ["the cat"]),
    Document("train", ["", " sat", " at", " tea.\n"]),
    Note("a note"),
    Document("train", iter(["the t", "ea é", "😀"])),
    Document("val", [""]),
    Document("val", ["that hat."]),
]


def documents():
    return [d if isinstance(d, Note) else Document(d.split, list(d.pieces)) for d in DOCUMENTS]


DOCUMENTS = documents()


@pytest.mark.parametrize("short", [0, 5, 1 << 16])
@pytest.mark.parametrize("together", [1, 12, 1 << 20])
def test_documents_one_by_one_or_many_at_a_time_are_the_same(monkeypatch, short, together):
    monkeypatch.setattr(encoding, "SHORT", short)
    monkeypatch.setattr(encoding, "TOGETHER", together)
    tok, sink = marked_tokenizer(), io.BytesIO()
    contents = encode(documents(), tok, sink)
    texts = ["".join(d.pieces) for d in DOCUMENTS if not isinstance(d, Note)]
    expected = list(chain(*([*tok.encode(text), tok.end_of_text] for text in texts)))
    assert np.frombuffer(sink.getvalue(), "<u2").tolist() == expected
    assert contents.documents == {"train": 3, "val": 2}
    assert contents.tokens["val"] == len(tok.encode("that hat.")) + 2
    assert contents.bytes == {
        "train": sum(len(t.encode()) for t in texts[:3]),
        "val": len("that hat."),
    }
    assert contents.notes == ["a note"]


def test_a_tokenizer_without_a_mark_has_a_blank_line():
    tok, sink = byte_tokenizer(), io.BytesIO()
    encode(documents(), tok, sink)
    texts = ["".join(d.pieces) for d in DOCUMENTS if not isinstance(d, Note)]
    ids = np.frombuffer(sink.getvalue(), "<u2")
    assert tok.decode(ids) == "".join(f"{text}\n\n" for text in texts)


class Odd(CharTokenizer):
    """One that gives an id that it has not."""

    def encode_array(self, text):
        return super().encode_array(text) + 70_000


class Piece(str):
    """A text that says how many of its kind there are in memory."""

    alive: ClassVar = []

    def __new__(cls, text):
        piece = super().__new__(cls, text)
        cls.alive.append(weakref.ref(piece))
        return piece


@pytest.mark.parametrize(
    "letters",
    [
        lambda pieces: alphabet([Document("all", pieces)]),
        lambda pieces: make_tokenizer("char", pieces),
    ],
)
def test_the_characters_of_a_text_are_found_piece_by_piece(letters):
    def pieces():
        for letter in "abcdef":
            yield Piece(letter)
            assert sum(piece() is not None for piece in Piece.alive) <= 2

    assert letters(pieces()).vocab_size == 6


def test_ids_that_do_not_fit_are_refused_not_wrapped_round():
    with pytest.raises(CorpusError, match="id 700.*though its ids end at 2"):
        encode([Document("all", ["abc"])], Odd("abc"), io.BytesIO())


def test_the_type_follows_from_the_vocabulary():
    def sized(size):
        return CharTokenizer(map(chr, chain(range(0xD800), range(0xE000, 0xE000 + size - 0xD800))))

    assert id_type(sized(65_536)) == np.uint16
    assert id_type(sized(65_537)) == np.int32


def test_nothing_is_no_corpus():
    with pytest.raises(CorpusError, match="nothing to learn from: it is empty"):
        encode([Note("it is empty")], marked_tokenizer(), io.BytesIO())


# --- corpora in the ids of a tokenizer -----------------------------------------------------------


@pytest.fixture
def text(home):
    text = "the cat sat at tea.\n" * 300
    Path("mine.txt").write_text(text, encoding="utf-8")
    return text


def decoded(corpus):
    return corpus.tokenizer.decode(torch.cat([corpus.train, corpus.val]))


@pytest.mark.parametrize("tokenizer", [byte_tokenizer(), "bpe:300", "wordpiece:600", "char", None])
def test_any_tokenizer_writes_the_same_text(text, tokenizer):
    for _ in range(2):  # made, and taken from the cache
        corpus = load_corpus("file:mine.txt", tokenizer)
        assert decoded(corpus) == corpus.text == text
    whole = corpus.tokenizer.encode(text)
    assert torch.cat([corpus.train, corpus.val]).tolist() == whole
    assert len(corpus.train) == int(0.9 * len(whole))


def test_the_same_text_has_a_token_file_for_each_tokenizer(text):
    first, second = byte_tokenizer(), marked_tokenizer()
    for tokenizer in (first, second, first, "bpe:300", "bpe:301"):
        load_corpus("file:mine.txt", tokenizer)
    folders = sorted(path for path in Path("data/cache").iterdir() if path.is_dir())
    assert len(folders) == 4
    records = [json.loads((folder / "record.json").read_text()) for folder in folders]
    assert {first.fingerprint, second.fingerprint} < {r["tokenizer"] for r in records}
    assert all(r["dtype"] == "<u2" and r["vocab_size"] > 20 for r in records)


def test_a_token_file_of_another_tokenizer_is_not_opened(text, capsys):
    load_corpus("file:mine.txt", byte_tokenizer())
    (folder,) = (path for path in Path("data/cache").iterdir() if path.is_dir())
    load_corpus("file:mine.txt", marked_tokenizer())
    (other,) = {path for path in Path("data/cache").iterdir() if path.is_dir()} - {folder}
    for path in folder.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    corpus = load_corpus("file:mine.txt", marked_tokenizer())
    assert corpus.tokenizer == marked_tokenizer()
    assert "encoding it again" in capsys.readouterr().out


def test_a_tokenizer_that_cannot_write_the_text(text):
    for tokenizer in (CharTokenizer("theca .\n"), CharTokenizer("x")):
        with pytest.raises(
            CorpusError, match=r"mine.txt does not go with this tokenizer.*'s' at position"
        ):
            load_corpus("file:mine.txt", tokenizer)
    assert not Path("data/cache").exists()
    with pytest.raises(ConfigError, match="unknown tokenizer 'bpf:300'; .*; did you mean"):
        load_corpus("file:mine.txt", "bpf:300")


def test_a_tokenizer_learns_from_the_text_for_training_only(home):
    Path("texts").mkdir()
    words = ["alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india"]
    for word in words:
        Path(f"texts/{word}.txt").write_text(f"{word} " * 200, encoding="utf-8")
    corpus = load_corpus("folder:texts", "bpe:500")
    held_out = corpus.tokenizer.decode(corpus.val).split()[0]
    assert [word for word in words if word not in corpus.tokenizer.texts] == [held_out]


@pytest.mark.parametrize(("word", "last", "end"), [("中文", "尾声", "\n"), ("ab", "zq", "\r\n")])
def test_so_it_does_from_a_running_text_whatever_bytes_that_has(home, word, last, end):
    lines = f"{word}\n" * 1000 + f"{last}\n" * 90
    Path("mine.txt").write_text(lines, encoding="utf-8", newline=end)
    corpus = load_corpus("file:mine.txt", "bpe:270")
    assert {last[0], last[1]} <= set(corpus.tokenizer.decode(corpus.val))
    assert word in corpus.tokenizer.texts
    assert not any(last in text for text in corpus.tokenizer.texts if text)


def test_a_tokenizer_that_was_saved(text):
    BPETokenizer.train(prose(1), 300).save("tokenizer.json")
    corpus = load_corpus("file:mine.txt", "tokenizer.json")
    assert corpus.tokenizer == BPETokenizer.load("tokenizer.json")
    assert decoded(corpus) == text


def test_tinyplays_in_other_ids_has_no_floor(home):
    corpus = load_corpus("tinyplays", "bpe:300")
    assert corpus.floor is None
    assert corpus.val_styles is None
    assert load_corpus("tinyplays", "char").floor > 0


@pytest.mark.skipif(not REAL.is_dir(), reason="its files are not in $TINYGPT_DATA")
def test_a_real_text_read_in_pieces_has_the_ids_of_the_whole(home, monkeypatch):
    monkeypatch.setenv("TINYGPT_DATA", str(REAL))
    monkeypatch.setattr(textfiles, "PIECE", 1000)
    path = REAL / "machado-pt" / "casaVelha.txt"
    corpus = load_corpus(f"file:{path}", "gpt2")
    ids = corpus.tokenizer.encode(path.read_text(encoding="utf-8"))
    assert torch.cat([corpus.train, corpus.val]).tolist() == ids
    assert len(ids) == 51_881


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tinystorys", "did you mean tinystories"),
        ("wikitext", "did you mean wikitext-2"),
        ("", "known are tinyshakespeare"),
        ("tinystories:", "a whole number from 1 on, not ''"),
        ("tinyshakespeare:3", "unknown corpus"),
        ("machado-pt:3", "unknown corpus"),
        ("folder", "file:PATH and folder:PATH"),
        ("x" * 10_000, "unknown corpus"),
    ],
)
def test_a_name_that_is_none(home, name, words):
    with pytest.raises(CorpusError, match=words):
        load_corpus(name, fallback=None)
