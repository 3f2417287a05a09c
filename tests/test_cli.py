"""The command line, in this process where nothing hangs on being its own (see test_console.py)."""

import itertools
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import warnings
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from tinygpt import PRESETS, ModelConfig, MoEConfig, TinyGPT, cli
from tinygpt.arguments import did_you_mean
from tinygpt.benchmark.decoding import DENSE, MIXTURE, bytes_per_step
from tinygpt.benchmark.rivals import transformers_gpt2, transformers_mixtral
from tinygpt.files import ROOT
from tinygpt.training import export_run, latest_checkpoint, load_checkpoint, save_checkpoint


@pytest.fixture
def text(tmp_path, corpus):
    path = tmp_path / "text.txt"
    path.write_text(corpus.text, encoding="utf-8", newline="\n")
    return f"file:{path}"


SMALL = "--n-embd 16 --n-head 2 --n-layer 1 --batch-size 4 --eval-interval 10 --warmup-steps 2"


def test_the_last_line_says_whose_loss_it_is(text, tmp_path, capsys, monkeypatch):
    trainer = SimpleNamespace(step=40, best_step=20, whole_val_lm_loss={20: 1.0, 40: 1e6})
    trainer.fit, trainer.run = lambda: None, SimpleNamespace(folder=tmp_path)
    monkeypatch.setattr(cli, "_new", lambda *args: trainer)
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


def train(text, out, *flags):
    return cli.main(["train", "--corpus", text, "--out", str(out), *SMALL.split(), *flags])


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


LONG = "x" * 300


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("", "there is no command ''"),
        ("trian", "did you mean train?"),
        (LONG, "there is no command"),
        ("train extra", "Unrecognized options: extra (python -m tinygpt train --help)"),
        ("train --no-such-flag 3", "Unrecognized options: --no-such-flag, 3"),
        ("train --max-step 5", "Perhaps you meant: --max-steps INT"),
        ("train --n-embd", "Missing value for argument '--n-embd'"),
        ("train --n-embd 32.0", "--n-embd: invalid literal"),
        ("train --n-embd 33", "n_embd=33 is not divisible by n_head=4"),
        ("train --optimizer sgd", "Expected one of ('adamw', 'muon')"),
        ("train --moe.top-k 9", "top_k=9 is more than n_experts=4"),
        ("train --max-steps soon", "--max-steps: "),
        ("train --epochs inf", "epochs=inf must be a finite number"),
        ("train --epochs 1e300", "epochs=1e+300"),
        ("train --lr nan", "lr=nan must be a finite number"),
        (
            "train --seed 9223372036854775808",
            "must be between -9223372036854775808 and 92233720368",
        ),
        ("train --seed -9223372036854775809", "must be between -9223372036854775808 and"),
        ("train --preset=", "there is no preset ''"),
        ("train --preset tinny", "did you mean the preset tiny?"),
        ("train --preset laptob", "did you mean the preset laptop or --resume laptop?"),
        (f"train --preset {LONG}", "there is no preset"),
        ("train --out=", "--out is empty"),
        (f"train --out {LONG}", "File name too long"),
        ("train --out README.md/x", "README.md"),
        ("train --corpus=", "unknown corpus ''"),
        (f"train --corpus file:{LONG}", "File name too long"),
        ("train --resume=", "no run ''"),
        ("train --resume ..", "no run '..'"),
        ("train --resume labtop", "did you mean the run laptop?"),
        (f"train --resume {LONG}", "File name too long"),
        ("train --resume a\0b", "NUL"),
        ("train --sample-prompt é --sample-tokens 1", "'é' at position 0"),
        ("train --n-embd 4000000000000 --n-head 1", "this machine cannot hold"),
        ("train --n-embd 99999999999999999999999 --n-head 1", "this machine cannot hold"),
        ("generate", "Missing from python -m tinygpt generate: RUN"),
        ("generate labtop", "did you mean the run laptop?"),
        ("generate tiny-moe", "tiny-moe is a preset; train it: python -m tinygpt train --preset"),
        ("generate ../../etc", "no run '../../etc'"),
        ("generate a/b", "no run 'a/b'"),
        (f"generate {LONG}", "File name too long"),
        ("generate laptop --prompt ROMÉO\udcff", "'É' at position 3, '\\udcff' at position 5"),
        ("generate laptop --prompt=", "a prompt is empty"),
        ("generate laptop --max-new-tokens -5", "max_new_tokens=-5 must be at least 0"),
        ("generate laptop --max-new-tokens 2.5", "--max-new-tokens: invalid literal"),
        ("generate laptop --temperature inf", "temperature=inf"),
        (
            "generate laptop --seed 99999999999999999999",
            "seed=99999999999999999999 must be between",
        ),
        ("generate laptop --which last", "which='last'"),
        ("generate laptop --device gpu", "device='gpu'"),
        ("data shakespear", "unknown corpus 'shakespear'"),
        ("data file:/", "/ is a folder"),
        ("info tinny", "did you mean the preset tiny?"),
        ("info labtop", "did you mean the run laptop or the preset laptop?"),
        ("info laptop extra", "Unrecognized options: extra"),
        ("compare labtop", "did you mean the run laptop?"),
        ("compare laptop --seeds 3", "leave all flags away"),
        ("compare --size huge", "Expected one of"),
        ("compare --arms dense top-3", "there is no arm top-3; there are dense, top-1"),
        ("compare --seeds 0", "seeds=0 must be between 1 and 100"),
        ("compare --out=", "--out is empty"),
        ("compare --out README.md", "README.md"),
        ("benchmark stepp", "Expected one of ('step', 'decoding', 'moe', 'scale', 'time-to-loss')"),
        ("benchmark --preset tinny", "did you mean the preset tiny?"),
        ("benchmark --threads 999999999", "threads=999999999 must be between 1 and 1024"),
        ("benchmark --rounds -1", "rounds=-1 must be between"),
    ],
    ids=lambda value: value[:40].replace("\0", "NUL"),
)
def test_every_fault_is_one_line_and_exit_code_2(command, words, capsys):
    arguments = command.split(" ")
    if arguments[0] == "train" and "--corpus" not in command and "--resume" not in command:
        arguments += ["--corpus", "tinyplays"]  # no text need be on this machine
    assert words in one_line(arguments, capsys)


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


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """An empty checkpoints/."""
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    monkeypatch.setattr("tinygpt.training.run.RUNS", folder)
    monkeypatch.setattr("tinygpt.training.RUNS", folder)
    return folder


def test_a_new_run_gets_a_folder_of_its_own_and_says_which(text, runs, capsys):
    (runs / "tiny").mkdir()
    (runs / "tiny" / "notes.txt").write_text("mine")
    for name in ("tiny-2", "tiny-3"):
        flags = ["--corpus", text, *SMALL.split(), "--max-steps", "1"]
        assert cli.main(["train", *flags]) == 0
        assert capsys.readouterr().out.splitlines()[0] == f"the run is in {runs / name}"
        assert latest_checkpoint(runs / name).name == "step_0000001"
    assert os.listdir(runs / "tiny") == ["notes.txt"]


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


def test_the_usage_names_the_program_as_it_was_called(monkeypatch, capsys):
    for name, program in [
        ("/usr/bin/tinygpt", "tinygpt"),
        ("tinygpt.exe", "tinygpt"),
        ("/x/tinygpt/__main__.py", "python -m tinygpt"),
        ("/usr/bin/pytest", "python -m tinygpt"),
    ]:
        monkeypatch.setattr(sys, "argv", [name, "--help"])
        assert cli.main() == 0
        said = capsys.readouterr().out
        assert said.startswith(f"usage: {program} COMMAND")
        assert f"\n{program} COMMAND --help" in said
        with pytest.raises(SystemExit) as stop:
            cli.main(["train", "--help"])
        assert stop.value.code == 0
        said = capsys.readouterr()
        assert f"usage: {program} train [-h]" in said.out
        assert said.err == ""
        assert f"({program} train --help)" in one_line(["train", "--no-such"], capsys)


def test_a_folder_that_may_not_be_read(runs, monkeypatch, capsys):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("tinygpt.training.folder.os.listdir", refuse)
    for command in ("generate x", "info x", "train --resume x"):
        assert "Permission denied" in one_line(command.split(), capsys)
    monkeypatch.setattr(cli, "load_corpus", lambda name: refuse(f"/{LONG}"))
    error = one_line(["data"], capsys)
    assert error.startswith("cannot read or write /xxx")
    assert error.endswith("xxx: Permission denied")
    assert len(error) < 200


def run_command(monkeypatch, act):
    monkeypatch.setitem(cli.COMMANDS, "info", lambda arguments: act())
    return cli.main(["info"])


def raises(error):
    def act():
        raise error

    return act


def test_what_is_no_fault_of_the_user_keeps_its_traceback(monkeypatch, capsys):
    for error in (RuntimeError("a bug"), TypeError("a bug"), ValueError("a bug")):
        with pytest.raises(type(error), match="a bug"):
            run_command(monkeypatch, raises(error))
    assert run_command(monkeypatch, raises(MemoryError())) == 2
    assert run_command(monkeypatch, raises(RuntimeError("CUDA out of memory.\nTried"))) == 2
    assert "hold what was asked for: CUDA out of memory.\n" in capsys.readouterr().err


@pytest.fixture
def heeded():
    """Ctrl-C is heeded, also where a shell in the background has Python ignore it."""
    was = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, was)


def test_signals_end_a_command_and_are_as_before_afterwards(monkeypatch, heeded):
    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    assert run_command(monkeypatch, lambda: signal.raise_signal(signal.SIGINT)) == 130
    with pytest.raises(SystemExit) as stop:
        run_command(monkeypatch, lambda: signal.raise_signal(signal.SIGTERM))
    assert stop.value.code == 143
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_warning_is_one_line_and_said_once(monkeypatch, capsys):
    def warn():
        for _ in range(2):
            warnings.warn("first\nand second", stacklevel=1)
        warnings.warn("third", stacklevel=1)

    assert not run_command(monkeypatch, warn)
    assert capsys.readouterr().err == "warning: first and second\nwarning: third\n"


def test_did_you_mean():
    assert did_you_mean("zzz", {"": ["train"]}) == ""
    assert did_you_mean("tarin", {"": ["train", "data"]}) == "; did you mean train?"
    names = {"the preset": ["tiny"], "the run": ["mine", "tinny"]}
    assert did_you_mean("tinyy", names) == "; did you mean the preset tiny or the run tinny?"
    assert did_you_mean("x" * 10**6, names) == ""


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


def test_runs_that_hold_differ_are_damaged_or_lack_their_text(text, runs, capsys):
    assert one_line(["verify"], capsys).startswith("there is no shipped run here")
    assert train(text, runs / "own", "--max-steps", "10") == 0
    for name in ("holds", "differs", "damaged"):
        export_run("own", name)
    content = load_checkpoint(runs / "differs")
    loss = content.about["summary.json"]["val_lm_loss"]
    content.about["summary.json"]["val_lm_loss"] = loss + 0.01
    shutil.rmtree(runs / "differs")
    save_checkpoint(runs / "differs", content)
    (runs / "damaged" / "tokenizer.json").write_text("{}")
    capsys.readouterr()
    figures = f"validation loss {loss:.4f} nats on the whole split"
    assert cli.main(["verify", "holds", str(runs / "own")]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"holds: holds: {figures}, {loss:.4f} in its summary.json"
    assert second == f"{runs / 'own'}: holds: {figures}, {loss:.4f} in its metrics.csv"
    assert cli.main(["verify", "differs", "holds"]) == 1
    line, _ = capsys.readouterr().out.splitlines()
    assert line == f"differs: DIFFERS by 0.0100: {figures}, {loss + 0.01:.4f} in its summary.json"
    assert cli.main(["verify"]) == 2  # all that are shipped
    said = capsys.readouterr()
    assert [each.split(":")[0] for each in said.out.splitlines()] == ["differs", "holds"]
    assert "damaged: " in said.err
    assert "tokenizer.json is damaged" in said.err
    assert len(said.err.splitlines()) == 1
    os.remove(text.removeprefix("file:"))
    assert cli.main(["verify", "holds", "differs"]) == 3
    said = capsys.readouterr()
    assert said.out.startswith("holds: not verified, its text is not here: there is no file")
    assert said.err == ""
    assert cli.main(["verify", "holds", "damaged"]) == 2
    capsys.readouterr()
    assert "no run 'nope'" in one_line(["verify", "nope"], capsys)


def test_a_former_name_of_a_shipped_run_is_known(text, runs, capsys, monkeypatch):
    assert train(text, runs / "own", "--max-steps", "1") == 0
    export_run("own", "laptop-dense")
    capsys.readouterr()
    monkeypatch.chdir(runs.parent)
    assert cli.main(["info", "laptop"]) == 0
    assert capsys.readouterr().out.endswith(os.path.join("checkpoints", "laptop-dense") + "\n")
    assert "did you mean the run laptop?" in one_line(["generate", "labtop"], capsys)
    assert cli.main(["generate", "laptop", "--max-new-tokens", "3"]) == 0


def test_benchmark(capsys):
    assert cli.main(["benchmark", "--preset", "tiny", "--rounds", "2"]) == 0
    said = capsys.readouterr().out
    assert "transformers GPT-2" in said
    assert "ratio" in said


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


def heavy_modules(code):
    """The plotting, table, widget, command-line and compiler libraries that come with some code."""
    heavy = "matplotlib seaborn pandas ipywidgets IPython tyro transformers torch._dynamo sympy"
    code = (
        f"import sys, torch; before = set(sys.modules); {code}; "
        f"print(*(m for m in {heavy.split()} if m in sys.modules.keys() - before))"
    )
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1].split()


def test_importing_is_light():
    assert heavy_modules("import tinygpt") == []
    assert heavy_modules("import tinygpt; tinygpt.load_run('laptop')") == []


@pytest.mark.parametrize("command", ["info", "info tiny-moe", "generate laptop --max-new-tokens 1"])
def test_commands_start_light(command):
    code = f"from tinygpt import cli; assert cli.main({command.split()}) == 0"
    assert heavy_modules(code) == ["tyro"]


def test_without_a_seed_the_text_is_another_each_time_and_with_one_the_same(capsys):
    """As in two new processes, whose global generators start alike."""
    texts = []
    for seed in ((), (), ("--seed", "3"), ("--seed", "3")):
        torch.manual_seed(0)
        assert cli.main(["generate", "laptop", "--max-new-tokens", "40", *seed]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] != texts[1]
    assert texts[2] == texts[3]
