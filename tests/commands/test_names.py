"""Names of presets and runs."""

import os

from tinygpt import cli
from tinygpt.commands import did_you_mean
from tinygpt.training import export_run

from .conftest import one_line, train


def test_did_you_mean():
    assert did_you_mean("zzz", {"": ["train"]}) == ""
    assert did_you_mean("tarin", {"": ["train", "data"]}) == "; did you mean train?"
    names = {"the preset": ["tiny"], "the run": ["mine", "tinny"]}
    assert did_you_mean("tinyy", names) == "; did you mean the preset tiny or the run tinny?"
    assert did_you_mean("x" * 10**6, names) == ""


def test_a_former_name_of_a_shipped_run_is_known(text, runs, capsys, monkeypatch):
    assert train(text, runs / "own", "--max-steps", "1") == 0
    export_run("own", "laptop-dense")
    capsys.readouterr()
    monkeypatch.chdir(runs.parent)
    assert cli.main(["info", "laptop"]) == 0
    assert capsys.readouterr().out.endswith(os.path.join("checkpoints", "laptop-dense") + "\n")
    assert "did you mean the run laptop?" in one_line(["generate", "labtop"], capsys)
    assert cli.main(["generate", "laptop", "--max-new-tokens", "3"]) == 0
