"""What the tests of the commands share: a text, an empty checkpoints/, a short training."""

import pytest

from tinygpt import cli


@pytest.fixture
def text(tmp_path, corpus, monkeypatch):
    monkeypatch.setattr("tinygpt.corpora.stream.WORKSPACE", tmp_path)  # where token files go
    path = tmp_path / "text.txt"
    path.write_text(corpus.text, encoding="utf-8", newline="\n")
    return f"file:{path}"


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """An empty checkpoints/."""
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    monkeypatch.setattr("tinygpt.training.run.RUNS", folder)
    monkeypatch.setattr("tinygpt.training.RUNS", folder)
    return folder


SMALL = "--n-embd 16 --n-head 2 --n-layer 1 --batch-size 4 --eval-interval 10 --warmup-steps 2"


def train(text, out, *flags):
    return cli.main(["train", "--corpus", text, "--out", str(out), *SMALL.split(), *flags])


LONG = "x" * 300


def one_line(arguments, capsys):
    """What a command says that must fail: the line on stderr, after "error: "."""
    assert cli.main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    assert "Traceback" not in said.err
    assert "─" not in said.err
    return said.err.removeprefix("error: ").rstrip()
