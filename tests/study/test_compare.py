"""The command: python -m tinygpt compare."""

from dataclasses import replace
from typing import get_args, get_type_hints

from tinygpt import cli, study
from tinygpt.commands.compare import CompareArgs

from .conftest import SMALL


def test_it_makes_what_is_missing_and_prints_what_there_is(corpus, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(study, "STUDIES", {"notebook": replace(SMALL, factors=(1.0,))})
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
    assert cli.main(["compare", "laptop-dense", "laptop-moe"]) == 0
    said = capsys.readouterr().out
    assert "laptop-dense: laptop-dense (seed 3) 1.4250; moe=null, max_eval_tokens=8192\n" in said
    settings = "moe.n_experts=8, moe.top_k=2, moe.n_inner=172, moe.norm_topk_prob=true"
    assert f"(seed 1) 1.4299; {settings}, max_eval_tokens=null\n" in said


def test_each_study_can_be_asked_for():
    hints = get_type_hints(CompareArgs)
    assert get_args(hints["study"]) == tuple(study.STUDIES)
