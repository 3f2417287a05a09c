"""The command: python -m tinygpt train, in this process."""

import json
import math
import os
import re
from types import SimpleNamespace

import pytest

from tinygpt import cli
from tinygpt.training import latest_checkpoint, load_checkpoint

from .conftest import SMALL, one_line, train


def test_the_last_line_says_whose_loss_it_is(text, tmp_path, capsys, monkeypatch):
    trainer = SimpleNamespace(step=40, best_step=20, whole_val_lm_loss={20: 1.0, 40: 1e6})
    trainer.fit, trainer.run = lambda: None, SimpleNamespace(folder=tmp_path)
    monkeypatch.setattr("tinygpt.commands.train._new", lambda *args: trainer)
    assert cli.main(["train"]) == 0
    trainer.best_step, trainer.whole_val_lm_loss = 40, {40: 2.0}
    assert cli.main(["train"]) == 0
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("step")] == [
        "step 20: validation loss 1.0000 nats, perplexity 2.72, on the whole split (best weights)",
        f"step 40: validation loss 1000000.0000 nats, perplexity {math.exp(700):.2f}, on the whole "
        "split (last weights)",
        "step 40: validation loss 2.0000 nats, perplexity 7.39, on the whole split (last and best "
        "weights)",
    ]


def test_train_generate_resume(text, tmp_path, capsys):
    out = tmp_path / "run"
    assert train(text, out, "--max-steps", "20", "--lr", "0.01") == 0
    said = capsys.readouterr().out
    assert re.search(r"step 20: validation loss .* on the whole split \(last.* weights\)\n", said)
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
    "flags",
    [
        ["--max_steps", "30"],
        ["--max_steps=30"],
        ["--max-steps=30"],
        ["--max-steps", "25", "--max_steps", "30"],
    ],
)
def test_a_run_of_epochs_goes_on_by_steps(text, tmp_path, flags):
    """However the flag is written; and `--epochs` beside it counts, as in a new run."""
    out = tmp_path / "run"
    assert train(text, out, "--epochs", "0.2") == 0  # 8 updates
    assert cli.main(["train", "--resume", str(out), *flags]) == 0
    saved = load_checkpoint(latest_checkpoint(out))
    assert saved.state["step"] == 30
    assert saved.settings["train"]["epochs"] is None


@pytest.mark.parametrize("flag", ["--vocab-size", "--vocab_size"])
@pytest.mark.parametrize("start", [["--corpus", "tinyplays"], ["--resume", "laptop"]])
def test_the_vocabulary_is_no_flag_however_it_is_written(flag, start, capsys):
    for flags in ([flag, "65"], [f"{flag}=65"]):
        assert "follows from the corpus" in one_line(["train", *start, *flags], capsys)


def test_of_repeated_flags_the_last_counts(text, tmp_path):
    flags = ["--preset", "tiny", "--max-steps", "9", "--preset=modern", "--max_steps", "1"]
    assert train(text, tmp_path / "run", *flags) == 0
    saved = load_checkpoint(latest_checkpoint(tmp_path / "run"))
    assert saved.state["step"] == 1
    assert saved.model.config.mlp == "relu2"
    flags = ["--resume", "no-such-run", "--resume", str(tmp_path / "run"), "--max-steps", "2"]
    assert cli.main(["train", *flags]) == 0


def test_experts_by_flags_with_underscores(text, tmp_path):
    assert train(text, tmp_path / "run", "--max-steps", "1", "--moe.n_experts=3") == 0
    assert load_checkpoint(latest_checkpoint(tmp_path / "run")).model.config.moe.n_experts == 3
    assert train(text, tmp_path / "dense", "--max-steps", "1") == 0
    assert cli.main(["train", "--resume", str(tmp_path / "dense"), "--moe.n-experts=3"]) == 2


def test_what_a_resumed_run_changes_is_said_once(text, tmp_path, capsys):
    out = tmp_path / "run"
    assert train(text, out, "--max-steps", "20", "--lr", "0.01") == 0
    capsys.readouterr()
    assert cli.main(["train", "--resume", str(out), "--lr", "0.02", "--max-steps", "30"]) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if "lr" in line]
    assert len(said) == 1
    assert "max_steps 20 -> 30" in said[0]
    assert "lr 0.01 -> 0.02" in said[0]
    assert cli.main(["train", "--resume", str(out), "--max-steps", "30"]) == 0
    assert "->" not in capsys.readouterr().out


def test_a_new_run_gets_a_folder_of_its_own_and_says_which(text, runs, capsys):
    (runs / "tiny").mkdir()
    (runs / "tiny" / "notes.txt").write_text("mine")
    for name in ("tiny-2", "tiny-3"):
        flags = ["--corpus", text, *SMALL.split(), "--max-steps", "1"]
        assert cli.main(["train", *flags]) == 0
        assert capsys.readouterr().out.splitlines()[0] == f"the run is in {runs / name}"
        assert latest_checkpoint(runs / name).name == "step_0000001"
    assert os.listdir(runs / "tiny") == ["notes.txt"]


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
    assert cli.main(["train", *flags]) == 2
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
