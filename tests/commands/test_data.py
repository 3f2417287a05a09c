"""The command: python -m tinygpt data."""

from tinygpt import cli
from tinygpt.commands.names import corpus_name

from .conftest import one_line


def test_what_a_text_holds(text, capsys):
    assert cli.main(["data", text]) == 0
    said = capsys.readouterr().out
    assert "4,500 train + 500 val tokens" in said
    assert "5,000 bytes" in said
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


def test_a_tokenizer_that_is_none(text, capsys):
    assert "did you mean 'bpe:4000'?" in one_line(["data", text, "--tokenizer=bpee:4000"], capsys)
