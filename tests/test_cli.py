"""The command line, in this process where nothing hangs on being its own."""

import json
import subprocess
import sys

import pytest
import torch

from tinygpt import PRESETS, TinyGPT, cli
from tinygpt.files import ROOT
from tinygpt.training import latest_checkpoint, load_checkpoint


@pytest.fixture
def text(tmp_path, corpus):
    path = tmp_path / "text.txt"
    path.write_text(corpus.text, encoding="utf-8", newline="\n")
    return f"file:{path}"


SMALL = "--n-embd 16 --n-head 2 --n-layer 1 --batch-size 4 --eval-interval 10 --warmup-steps 2"


def train(text, out, *flags):
    return cli.main(["train", "--corpus", text, "--out", str(out), *SMALL.split(), *flags])


def test_train_generate_resume(text, tmp_path, capsys):
    out = tmp_path / "run"
    assert train(text, out, "--max-steps", "20", "--lr", "0.01") == 0
    assert "step 20: validation loss" in capsys.readouterr().out
    saved = load_checkpoint(latest_checkpoint(out))
    assert (saved.model.config.n_embd, saved.model.config.n_layer) == (16, 1)
    assert saved.settings["train"]["lr"] == 0.01

    assert cli.main(["generate", str(out), "--prompt", "the", "--max-new-tokens", "9"]) == 0
    assert capsys.readouterr().out.startswith("the")

    assert cli.main(["train", "--resume", str(out), "--max-steps", "30"]) == 0
    saved = load_checkpoint(latest_checkpoint(out))
    assert saved.state["step"] == 30
    assert saved.settings["train"]["lr"] == 0.01  # the run's, not the preset's

    assert cli.main(["info", str(out)]) == 0
    assert "parameters" in capsys.readouterr().out
    assert cli.main(["train", "--resume", str(out), "--n-layer", "2"]) == 2
    assert "the run's own model" in capsys.readouterr().err
    for flags in (["--out", "x"], ["--preset", "tiny"]):
        assert cli.main(["train", "--resume", str(out), *flags]) == 2
        assert "leave --out, --preset away" in capsys.readouterr().err
    assert cli.main(["train", "--resume", str(out), "--optimizer", "muon"]) == 2
    assert "was trained with adamw" in capsys.readouterr().err


def test_preset_first_then_flags(text, tmp_path):
    flags = ["--preset=modern", "--max-steps", "1", "--muon-lr", "0.01", "--block-size", "8"]
    assert train(text, tmp_path / "run", *flags) == 0
    config = json.loads((tmp_path / "run" / "step_0000001" / "config.json").read_text())
    assert config["model"]["mlp"] == "relu2"
    assert config["train"]["optimizer"] == "muon"
    assert config["train"]["muon_lr"] == 0.01
    assert config["model"]["block_size"] == 8


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fly"], "no command 'fly'"),
        (["train", "--preset", "huge"], "no preset 'huge'; there are tiny"),
        (["train", "--corpus", "nowhere"], "unknown corpus 'nowhere'"),
        (["train", "--resume", "no-such-run"], "no run 'no-such-run'"),
        (["generate", "no-such-run"], "no run 'no-such-run'"),
        (["data", "file:no-such-file"], "there is no file"),
        (["benchmark", "--rounds", "0"], "rounds=0"),
        (["train", "--corpus", "tinyplays", "--vocab-size", "7"], "follows from the corpus"),
        (["train", "--corpus", "tinyplays", "--device", "meta"], "device='meta' cannot train"),
    ],
)
def test_what_the_user_can_mend_is_one_line_and_exit_code_2(arguments, words, capsys):
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error


def exit_code(arguments):
    """What the shell sees, whether our own check or the parser's ends the command."""
    try:
        return cli.main(arguments)
    except SystemExit as stop:
        return stop.code


@pytest.mark.parametrize(
    "flags",
    [
        ["--n-embd", "30"],
        ["--n-embd", "32.0"],
        ["--lr", "fast"],
        ["--lr", "nan"],
        ["--grad-clip", "inf"],
        ["--no-such-flag"],
        ["--moe.top-k", "5"],
    ],
)
def test_bad_flags(flags, capsys):
    assert exit_code(["train", *flags]) == 2
    name = flags[0].strip("-").removeprefix("moe.").replace("-", "_")
    error = capsys.readouterr().err
    assert name in error.replace("-", "_")
    assert "Traceback" not in error


def test_experts_on_request(text, tmp_path, capsys):
    """--moe flags give experts to a dense preset; without them there are none."""
    out = tmp_path / "run"
    assert train(text, out, "--max-steps", "2", "--moe.n-experts", "3", "--moe.top-k", "2") == 0
    model = load_checkpoint(latest_checkpoint(out)).model
    assert (model.config.moe.n_experts, model.config.moe.top_k) == (3, 2)
    assert cli.main(["info", str(out)]) == 0
    assert "active" in capsys.readouterr().out
    assert cli.main(["train", "--resume", str(out), "--max-steps", "3"]) == 0
    assert cli.main(["info", "tiny"]) == 0
    assert "active" not in capsys.readouterr().out


def test_flags_are_flat(capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    said = capsys.readouterr().out
    assert "--n-layer" in said
    assert "--lr" in said
    assert "--train." not in said
    assert "--moe." not in said  # tiny is dense
    assert "--model." not in said


@pytest.mark.parametrize("name", ["tiny", "tiny-moe", "modern"])
def test_info_counts_without_making_weights(name, capsys, monkeypatch):
    describe, seen = cli._describe, []
    monkeypatch.setattr(cli, "_describe", lambda model: (seen.append(model), describe(model)))
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


def test_benchmark(capsys):
    assert cli.main(["benchmark", "--preset", "tiny", "--rounds", "2"]) == 0
    said = capsys.readouterr().out
    assert "transformers GPT-2" in said
    assert "ratio" in said


def test_benchmark_of_decoding(capsys, monkeypatch):
    monkeypatch.setattr("tinygpt.decoding.step._compiled", lambda run: run)  # to compile takes long
    assert cli.main(["benchmark", "decoding", "--rounds", "1"]) == 0
    said = capsys.readouterr().out
    assert "tinygpt compiled" in said
    assert "tinygpt without cache" in said
    assert "the last 100 tokens took" in said


def test_benchmark_of_experts(capsys):
    assert cli.main(["benchmark", "moe", "--rounds", "1"]) == 0
    said = capsys.readouterr().out
    for words in ("4 experts", "64 experts", "dense", "grouped_mm", "loop", "even load"):
        assert words in said


def test_importing_is_light():
    """No plotting, table, widget or command-line library comes with `import tinygpt`."""
    heavy = ["matplotlib", "seaborn", "pandas", "ipywidgets", "IPython", "tyro", "transformers"]
    code = f"import sys, tinygpt; print([m for m in {heavy} if m in sys.modules])"
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_without_a_seed_the_text_is_another_each_time_and_with_one_the_same(capsys):
    """As in two new processes, whose global generators start alike."""
    texts = []
    for seed in ((), (), ("--seed", "3"), ("--seed", "3")):
        torch.manual_seed(0)
        assert cli.main(["generate", "laptop", "--max-new-tokens", "40", *seed]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] != texts[1]
    assert texts[2] == texts[3]
