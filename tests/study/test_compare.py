"""The command: python -m tinygpt compare."""

from dataclasses import replace

from tinygpt import cli, study

from .conftest import SMALL


def test_it_makes_what_is_missing_and_prints_what_there_is(corpus, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(study, "SIZES", {"notebook": replace(SMALL, factors=(1.0,))})
    command = ["compare", "--arms", "dense", "top-1", "--corpus", corpus.name, "--device", "cpu"]
    command += ["--out", str(tmp_path / "tables")]
    assert cli.main([*command, "--until", "report"]) == 0
    assert "no run of 4 has been made yet" in capsys.readouterr().out
    assert cli.main(command) == 0
    said = capsys.readouterr().out
    assert "1 left, about" in said
    assert "4 of 4 runs; commit" in said
    assert "differences between arms" in said
    assert cli.main(command) == 0
    assert said.endswith(capsys.readouterr().out)


def test_shipped_runs(capsys):
    assert cli.main(["compare", "laptop"]) == 0
    assert "laptop (seed 1) 1.4" in capsys.readouterr().out
