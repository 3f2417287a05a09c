"""The command: python -m tinygpt data."""

import pytest

from tinygpt import cli
from tinygpt.commands.names import corpus_name

from .conftest import one_line


def test_what_a_text_holds(text, capsys):
    assert cli.main(["data", text]) == 0
    said = capsys.readouterr().out
    assert "4,500 train + 500 val tokens" in said
    assert "whole text: 1 document, 5,000 bytes, 5,000 tokens, 1.00 bytes per token" in said
    assert "licence: yours" in said
    assert "it begins: " in said
    assert "alphabet: '\\n abc" in said


def test_a_text_in_sub_words(text, capsys):
    assert cli.main(["data", text, "--tokenizer", "bpe:265"]) == 0
    said = capsys.readouterr().out
    assert "vocabulary of 265" in said
    assert "alphabet" not in said


def test_the_number_of_stories_is_a_part_of_the_name(capsys):
    assert corpus_name("tinystories", 20) == "tinystories:20"
    assert corpus_name("tinyplays") == "tinyplays"
    words = "--num-stories is for the corpus tinystories, not for tinyplays"
    assert words in one_line(["data", "tinyplays", "--num_stories", "5"], capsys)
    for number in ("0", "-1"):
        assert "whole number from 1 on" in one_line(
            ["data", "tinystories", "--num-stories", number], capsys
        )


def test_a_folder_has_its_files_in_splits_and_tells_of_copies(tmp_path, capsys):
    for i, word in enumerate(("alpha", "bravo", "charlie", "delta", "delta")):
        (tmp_path / f"{i}.txt").write_text(f"{word} " * 100, encoding="utf-8")
    assert cli.main(["data", f"folder:{tmp_path}", "--tokenizer", "char"]) == 0
    said = capsys.readouterr().out
    assert "train: 3 documents" in said
    assert "val: 1 document," in said
    assert "4.txt is left out: a copy of 3.txt" in said


def test_the_number_of_books_is_a_part_of_the_name(capsys, monkeypatch):
    asked = []
    monkeypatch.setattr("tinygpt.commands.data.load_corpus", lambda *args: asked.append(args))
    with pytest.raises(AttributeError):
        cli.main(["data", "gutenberg-pt", "--books", "30"])
    assert asked == [("gutenberg-pt:30", "char")]
    capsys.readouterr()
    words = "--books is for the corpus gutenberg-pt, not for tinystories"
    assert words in one_line(["data", "tinystories", "--books", "5"], capsys)


def test_a_tokenizer_that_is_none(text, capsys):
    said = one_line(["data", text, "--tokenizer=bpee:4000"], capsys)
    assert said.endswith("that was saved; did you mean bpe:4000?")
