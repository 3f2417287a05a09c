"""The command: python -m tinygpt routing."""

import json
import os

import pytest
from matplotlib.image import imread

from tinygpt import cli

from .conftest import one_line, train

FILES = ["expert_memory.json", "expert_routing.json", "expert_routing_distribution.png"]


def test_a_mixture_is_reported_in_words_figures_and_a_picture(text, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    flags = ["--moe.n-experts", "4", "--moe.top-k", "2", "--moe.norm-topk-prob"]
    assert train(text, tmp_path / "run", *flags, "--max-steps", "10", "--n-layer", "2") == 0
    capsys.readouterr()
    argv = ["routing", str(tmp_path / "run"), "--out", str(out), "--batches", "1", "3"]
    assert cli.main(argv) == 0
    said = capsys.readouterr().out
    assert "no more than top_k = 2 of 4" in said
    assert "parameters are active" in said
    assert sorted(os.listdir(out)) == FILES
    layers = json.loads((out / "expert_routing.json").read_text(encoding="utf-8"))["rows"]
    assert [row["layer"] for row in layers] == [0, 1]
    for row in layers:
        assert row["computed"] == pytest.approx(2)
        assert sum(row["load"]) == pytest.approx(1)
        assert row["grad_router"] > 0
    memory = json.loads((out / "expert_memory.json").read_text(encoding="utf-8"))["rows"]
    assert [row["batch"] for row in memory] == [1, 3]
    assert imread(out / "expert_routing_distribution.png").shape[0] > 100


def test_what_cannot_be_reported_is_one_line_and_leaves_nothing(
    text, tmp_path, runs, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert train(text, runs / "dense", "--max-steps", "2") == 0
    capsys.readouterr()
    assert "dense has no experts" in one_line(["routing", "dense"], capsys)
    assert "did you mean the run dense?" in one_line(["routing", "dens"], capsys)
    for out in ("", "missing"):
        words = f"--out {out!r} must be a folder that exists"
        assert words in one_line(["routing", "dense", "--out", out], capsys)
    assert "batch_size=0" in one_line(["routing", "dense", "--batches", "0"], capsys)
    assert not [name for name in FILES if os.path.exists(name)]
