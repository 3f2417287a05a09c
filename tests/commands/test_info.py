"""The command: python -m tinygpt info."""

import os
import shutil

import pytest

from tinygpt import PRESETS, TinyGPT, cli
from tinygpt.commands import info

from .conftest import one_line, train


def test_a_run_named_as_a_preset(text, runs, capsys, monkeypatch):
    """Both can be had, and info says so."""
    assert train(text, runs / "modern", "--max-steps", "1") == 0
    capsys.readouterr()
    monkeypatch.chdir(runs.parent)
    assert cli.main(["info", "modern"]) == 0
    *preset, note = capsys.readouterr().out.splitlines()
    assert "n_embd                     128" in preset
    command, path = note.split(": ")[1].rsplit(" ", 1)
    assert (command, path) == ("python -m tinygpt info", os.path.join("checkpoints", "modern"))
    assert cli.main(["info", path]) == 0
    assert "n_embd                     16\n" in capsys.readouterr().out
    monkeypatch.chdir(runs)
    assert cli.main(["info", "modern"]) == 0
    assert str(runs / "modern") in capsys.readouterr().out
    assert cli.main(["info", "tiny"]) == 0
    assert "There is also" not in capsys.readouterr().out
    shutil.copytree(runs / "modern", runs / "tinny")
    assert "the run tinny or the preset tiny?" in one_line(["info", "tinnyy"], capsys)


@pytest.mark.parametrize("name", ["tiny", "tiny-moe", "modern"])
def test_info_counts_without_making_weights(name, capsys, monkeypatch):
    describe, seen = info._describe, []
    monkeypatch.setattr(info, "_describe", lambda model: (seen.append(model), describe(model)))
    assert cli.main(["info", name]) == 0
    said = capsys.readouterr().out
    assert all(p.is_meta for p in (*seen[0].parameters(), *seen[0].buffers()))
    describe(TinyGPT(PRESETS[name].model))
    assert said == capsys.readouterr().out


def test_info_and_usage(capsys):
    assert cli.main([]) == 0
    assert cli.main(["info"]) == 0
    said = capsys.readouterr().out
    assert "benchmark" in said
    assert "nanogpt-cpu" in said
