"""The command: python -m tinygpt benchmark, and what it needs to be fair."""

import itertools
import json
import re
import sys
from dataclasses import replace

import pytest

from tinygpt import ModelConfig, MoEConfig, TinyGPT, cli
from tinygpt.benchmark.decoding import DENSE, MIXTURE, _rows, bytes_per_step
from tinygpt.benchmark.rivals import transformers_gpt2, transformers_mixtral

from .conftest import one_line, train


def test_benchmark(capsys):
    assert cli.main(["benchmark", "--preset", "tiny", "--rounds", "2"]) == 0
    said = capsys.readouterr().out
    ours, theirs = (float(ms) for ms in re.findall(r"(?:tinygpt|GPT-2) +([\d.]+) ", said))
    ratio = float(re.search(r"takes ([\d.]+) of transformers' time", said)[1])
    assert ratio == pytest.approx(ours / theirs, abs=0.006)  # as printed: two digits


def test_a_benchmark_is_kept_with_its_machine_and_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    argv = ["benchmark", "step", "--preset", "tiny", "--rounds", "1", "--out", "speed.json"]
    monkeypatch.setattr(sys, "argv", ["tinygpt", *argv])
    assert cli.main(argv) == 0
    kept = json.loads((tmp_path / "speed.json").read_text(encoding="utf-8"))
    assert kept["command"] == f"python -m tinygpt {' '.join(argv)}"
    assert {"processor", "torch", "threads"} <= kept["machine"].keys()
    assert [row["who"] for row in kept["rows"]] == ["tinygpt", "transformers GPT-2"]
    assert all(row["ms"] > 0 for row in kept["rows"])


def test_benchmark_of_a_preset_or_a_run_and_its_dense_twins(text, tmp_path, capsys):
    out = tmp_path / "speed.json"
    argv = ["benchmark", "model", "--rounds", "1", "--batch-size", "2", "--out", str(out)]
    assert cli.main([*argv, "--preset", "tiny-moe"]) == 0
    assert "dense, equal active" in capsys.readouterr().out
    rows = json.loads(out.read_text(encoding="utf-8"))["rows"]
    assert len(rows) == 9
    assert all(row["times"] > 0 for row in rows)
    assert train(text, tmp_path / "run", "--max-steps", "2") == 0
    assert cli.main([*argv, "--preset", str(tmp_path / "run")]) == 0
    rows = json.loads(out.read_text(encoding="utf-8"))["rows"]
    assert [row["model"] for row in rows] == ["run"] * 3  # a dense one has no twins
    capsys.readouterr()
    assert "did you mean" in one_line(["benchmark", "model", "--preset", "tiny-mo"], capsys)
    assert "batch_size=0" in one_line(["benchmark", "model", "--batch-size", "0"], capsys)


@pytest.mark.parametrize("out", ["", "missing/speed.json", "."])
@pytest.mark.parametrize("flag", ["--out", "--plot"])
def test_a_report_that_cannot_be_kept_is_refused_before_the_work(
    out, flag, capsys, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tinygpt.benchmark.token_cost", lambda *_: pytest.fail("it ran"))
    assert cli.main(["benchmark", "scale", flag, out]) == 2
    assert f"{flag} {out!r} must be a file in a folder that exists" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["scale --plot cost.txt", "moe --plot cost.png"])
def test_a_picture_that_cannot_be_drawn_is_refused_before_the_work(command, capsys, monkeypatch):
    for name in ("token_cost", "moe_speed"):
        monkeypatch.setattr(f"tinygpt.benchmark.{name}", lambda *_: pytest.fail("it ran"))
    assert "must be a .png or .svg file" in one_line(["benchmark", *command.split()], capsys)


@pytest.mark.full
def test_benchmark_of_decoding(capsys, monkeypatch):
    monkeypatch.setattr("tinygpt.benchmark.decoding.TOKENS", {1: 200, 3: 4})
    assert cli.main(["benchmark", "decoding", "--rounds", "1"]) == 0
    said, err = capsys.readouterr()
    for words in (
        "tinygpt without cache",
        "tinygpt token by token",
        "transformers, static cache",
        "of_bound",
        "2 of 4 experts, 3 rows: a step reads",
        "the last 100 tokens took",
    ):
        assert words in said
    assert "padding" not in err


def test_ratios_are_those_of_the_speeds_beside_them():
    """Also where the median of the rounds' ratios is another one: here it is 4."""
    seconds = {"tinygpt": [1.0, 2.0, 6.0], "theirs": [3.0, 8.0, 1.0], "reading alone": [1.0] * 3}
    ours, theirs, bound = _rows(seconds, 12)
    assert (ours["tokens_per_s"], theirs["tokens_per_s"]) == (6, 4)
    assert theirs["times_ours"] == pytest.approx(4 / 6)
    assert ours["of_bound"] == pytest.approx(0.5)
    assert bound["of_bound"] == 1


def test_the_bytes_of_a_step_by_hand():
    shape = ModelConfig(vocab_size=10, block_size=32, n_layer=2, n_head=2, n_embd=8)
    norms, block = 5 * 16, (8 * 24 + 24) + (8 * 8 + 8) + (8 * 32 + 32) + (32 * 8 + 8)
    expected = norms + 2 * block + 10 * 8 + 3 * 2 * 2 * 8 * 20 / 2  # a tied head; 3 rows' keys
    assert bytes_per_step(TinyGPT(shape), batch=3, new=20) == 4 * expected
    experts = replace(shape, moe=MoEConfig(n_experts=4, top_k=2), tie_embeddings=False)
    one = (8 * 32 + 32) + (32 * 8 + 8)  # an expert
    more = bytes_per_step(TinyGPT(experts), 2, 20) - bytes_per_step(TinyGPT(experts), 1, 20)
    # one row takes 2 of 4 experts, two rows 3 of them on average
    assert more == 4 * (2 * one * (3 - 2) + 2 * 2 * 8 * 20 / 2)


@pytest.mark.parametrize("config", [DENSE, MIXTURE])
def test_the_rivals_have_as_many_weights_as_ours(config):
    theirs = transformers_mixtral(config) if config.moe else transformers_gpt2(config)
    ours = sum(p.numel() for p in TinyGPT(config).parameters())
    assert sum(p.numel() for p in theirs.parameters()) == ours


def test_benchmark_of_experts(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("tinygpt.benchmark.moe.TOKENS", (32, 512))
    out = tmp_path / "moe.json"
    assert cli.main(["benchmark", "moe", "--rounds", "2", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    for words in ("experts", "64", "512", "dense_ms", "grouped_mm", "loop", "even_load"):
        assert words in said
    rows = json.loads(out.read_text(encoding="utf-8"))["rows"]
    cases = [(row["experts"], row["tokens"], row["pass"]) for row in rows]
    passes = ("training", "forward")
    assert cases == list(itertools.product((4, 16, 64), (32, 512), passes))
    parts = ("router", "gather", "products", "combine", "optimizer", "rest")
    for row in rows:
        assert ("optimizer" in row) == (row["pass"] == "training")
        added = sum(row.get(part, 0) for part in parts)
        assert added == pytest.approx(row["auto"] - 1)
        assert min(row[part] for part in ("dense_ms", "loop", "router", "gather", "combine")) > 0


def test_benchmark_of_scale_and_its_picture(tmp_path, capsys, monkeypatch):
    sizes = {"TOKENS": 128, "CONTEXTS": (64, 128), "EXPERTS": (2, 4), "BATCHES": (1, 2)}
    for name, value in sizes.items():
        monkeypatch.setattr(f"tinygpt.benchmark.scale.{name}", value)
    plot = tmp_path / "cost.SVG"
    assert cli.main(["benchmark", "scale", "--rounds", "1", "--plot", str(plot)]) == 0
    said = capsys.readouterr().out
    for words in ("context", "experts", "batch", "decoding", "1 rounds", "slope"):
        assert words in said
    assert "Against experts from 2 to 4: training step" in plot.read_text(encoding="utf-8")
