"""Broken encodings, against Python's own codecs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygpt.corpora.repair import decode, repair, repair_if_hurt

LETTERS = "ãõçáéíóúâêôàÃÇÁÉÀ"
QUOTES = "“‘’–—…•"


def hurt(text: str, encoding: str) -> str:
    """The text as a program shows it that takes its UTF-8 for something else."""
    shown = bytes.decode if encoding == "latin-1" else _cp1252
    return shown(text.encode(), "latin-1") if encoding == "latin-1" else shown(text.encode())


def _cp1252(content: bytes) -> str:
    return "".join(bytes([b]).decode("cp1252", "ignore") or chr(b) for b in content)


@given(st.text(f"ab c\n{QUOTES}{LETTERS}\u201d"), st.sampled_from(["latin-1", "cp1252"]))
def test_what_was_broken_is_whole_again(text, encoding):
    found, places = repair(hurt(text, encoding))
    assert found == text
    assert places == sum(not c.isascii() for c in text)


def test_a_quotation_mark_without_its_last_byte():
    assert repair("â€œHi!â€ she said. Itâ€™s â€”") == ("“Hi!” she said. It’s —", 4)


def test_sound_text_stays():
    for text in ("“Olá”, disse a irmã – coração, água… £5 © á", "plain", "", "a â b", "€5"):
        assert repair(text) == (text, 0)
        assert repair_if_hurt(text) == (text, 0)


def test_only_a_book_that_is_hurt_is_repaired():
    for text in ("«A MANHû, disse a irmã, coração", "ALEMÃ” e não"):
        assert repair_if_hurt(text) == (text, 0)
    assert repair_if_hurt(hurt("A irmã não vem à casa; é só amanhã.", "latin-1"))[1] == 6


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        ("coração".encode(), "utf-8-sig"),
        ("\ufeffcoração".encode(), "utf-8-sig"),
        ("coração”".encode("cp1252"), "cp1252"),
        ("coração\x81".encode("latin-1"), "iso-8859-1"),
    ],
)
def test_bytes_of_an_unknown_kind(content, encoding):
    text, found = decode(content)
    assert text.startswith("coração")
    assert found == encoding


def test_line_ends():
    assert decode(b"a\r\nb\rc\nd")[0] == "a\nb\nc\nd"
