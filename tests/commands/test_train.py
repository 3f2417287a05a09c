"""The command: python -m tinygpt train, in this process."""

import json
import math
import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tinygpt import cli
from tinygpt.commands.train import _print_losses
from tinygpt.errors import CorpusError
from tinygpt.text import BPETokenizer
from tinygpt.training import export_run, latest_checkpoint, load_checkpoint

from ..tools import make_best
from .conftest import SMALL, one_line, train


def test_the_last_lines_say_whose_loss_it_is(capsys):
    trainer = SimpleNamespace(step=40, best_step=20, whole_val_lm_loss={20: 1.0, 40: 1e6})
    _print_losses(trainer)
    trainer.best_step, trainer.whole_val_lm_loss = 40, {40: 2.0}
    _print_losses(trainer)
    assert capsys.readouterr().out.splitlines() == [
        "step 20: validation loss 1.0000 nats, perplexity 2.72, on the whole split (best weights)",
        f"step 40: validation loss 1000000.0000 nats, perplexity {math.exp(700):.2f}, on the whole "
        "split (last weights)",
        "step 40: validation loss 2.0000 nats, perplexity 7.39, on the whole split (last and best "
        "weights)",
    ]


@pytest.mark.parametrize(("warmup", "told"), [(19, False), (20, True)])
def test_a_warm_up_that_the_run_never_leaves_is_told(warmup, told, text, tmp_path, capsys):
    out = tmp_path / "run"
    assert train(text, out, "--max-steps", "20", "--warmup-steps", str(warmup)) == 0
    said = capsys.readouterr().out
    assert ("the warm-up of 20 updates leaves the run of 20 nothing else" in said) == told
    assert ("take --warmup-steps 2\n" in said) == told


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


@pytest.mark.parametrize("flags", ["--vocab-size 65", "--vocab_size=65"])
def test_a_vocabulary_that_is_not_the_corpus_s_is_refused_however_it_is_written(flags, capsys):
    command = ["train", "--corpus", "tinyplays", *flags.split()]
    assert "--vocab-size 65 follows from the corpus" in one_line(command, capsys)


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
    assert "--moe.n-experts" in said  # also of a dense preset
    assert "--model." not in said


# --- settings in a file ---


def weights(run):
    return load_checkpoint(latest_checkpoint(run)).model.state_dict()


@pytest.mark.parametrize("flags", ["--lr 0.01 --dropout 0.1", "--moe.n-experts 3 --moe.noisy"])
def test_the_file_that_a_run_writes_makes_the_same_run(text, tmp_path, flags):
    assert train(text, tmp_path / "one", "--preset=modern", "--max-steps=9", *flags.split()) == 0
    file = tmp_path / "one" / "config.yaml"
    again = ["train", "--config", str(file), "--out", str(tmp_path / "two")]
    assert cli.main(again) == 0
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert file.read_text() == (tmp_path / "two" / "config.yaml").read_text()
    assert "preset: modern" in file.read_text()


def settings_of(run):
    saved = load_checkpoint(latest_checkpoint(run))
    return saved.model.config, saved.settings["train"]


def test_flags_win_over_the_file_and_the_file_over_the_preset(text, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "preset: modern\nmodel: {n_layer: 2, block-size: 8, moe: {n_experts: 3, top_k: 3}}\n"
        "train: {epochs: 9.5, muon_lr: 1e-2, muon_momentum: 0.5}\n"
    )
    flags = ["--config", str(file), "--max-steps", "1", "--moe.top_k", "1", "--muon-momentum=0.6"]
    assert train(text, tmp_path / "run", *flags) == 0
    model, settings = settings_of(tmp_path / "run")
    assert (model.n_layer, model.block_size, model.mlp) == (1, 8, "relu2")  # flag, file, preset
    assert (model.moe.n_experts, model.moe.top_k) == (3, 1)
    assert (settings["muon_lr"], settings["muon_momentum"]) == (0.01, 0.6)
    assert (settings["optimizer"], settings["max_steps"], settings["epochs"]) == ("muon", 1, None)
    assert train(text, tmp_path / "dense", *flags[:4], "--no-moe", "--preset", "tiny") == 0
    model, settings = settings_of(tmp_path / "dense")
    assert (model.moe, model.mlp, settings["optimizer"]) == (None, "gelu", "adamw")
    assert settings["muon_lr"] == 0.01


def test_a_file_takes_the_experts_away_and_a_flag_gives_them_back(text, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("preset: tiny-moe\nmodel: {moe: null}\ntrain: {max_steps: 1}\n")
    assert train(text, tmp_path / "dense", "--config", str(file)) == 0
    assert settings_of(tmp_path / "dense")[0].moe is None
    assert train(text, tmp_path / "moe", "--config", str(file), "--moe.n-experts=2") == 0
    assert settings_of(tmp_path / "moe")[0].moe.n_experts == 2


def test_a_line_end_in_the_samples_prompt_and_another_name(text, tmp_path):
    flags = ["--max-steps=1", r"--sample-prompt=a\nb", "--sample-tokens=1", "--grad_accum", "2"]
    assert train(text, tmp_path / "run", *flags) == 0
    settings = settings_of(tmp_path / "run")[1]
    assert (settings["sample_prompt"], settings["grad_accum_steps"]) == ("a\nb", 2)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("train: {lerning_rate: 1}", "mine.yaml, line 1: there is no setting train.lerning_rate"),
        ("model: {n_embd: 33}", "n_embd=33 is not divisible by n_head=4"),
        ("model: {moe: {n_experts: 2, top_k: 3}}", "top_k=3 is more than n_experts=2"),
        ("preset: tinny", "did you mean the preset tiny?"),
        ("corpus: nowhere", "unknown corpus 'nowhere'"),
        ("model: {vocab_size: 7}", "--vocab-size 7 follows from the corpus"),
        ("train: {device: tpu}", "device='tpu'"),
    ],
)
def test_a_file_that_does_not_work_leaves_nothing(content, words, tmp_path, capsys, runs):
    file = tmp_path / "mine.yaml"
    file.write_text(f"corpus: tinyplays\n{content}" if "corpus" not in content else content)
    words = words.replace("line 1", "line 2")
    assert words in one_line(["train", "--config", str(file)], capsys)
    assert os.listdir(runs) == []


# --- what goes on ---


def test_latest_is_the_run_that_was_at_work_last(text, runs, capsys):
    for name, preset in (("a", "tiny"), ("b", "modern"), ("c", "tiny")):
        assert train(text, runs / name, "--preset", preset, "--max-steps", "1") == 0
    os.utime(latest_checkpoint(runs / "c"), ns=(0, 0))
    for more, name in (([], "b"), (["--preset", "tiny"], "a"), (["--out", "c"], "c")):
        capsys.readouterr()
        flags = ["--resume", "latest", "--max-steps", "2", *more]
        assert cli.main(["train", *flags]) == 0
        assert f"the run is in {runs / name}\n" in capsys.readouterr().out
        assert latest_checkpoint(runs / name).name == "step_0000002"
        assert "max_steps: 2" in (runs / name / "config.yaml").read_text()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("latest", "there is no run under"),
        ("best --preset tiny", "there is no run of the preset tiny under"),
        ("latest --out nowhere", "no run 'nowhere'"),
        ("mine --out other", "leave --out, --preset away"),
        ("mine --corpus tinyplays", "does not go with this tokenizer"),
        ("mine --num-stories 7", "the run's own text; leave --num-stories away"),
        ("mine --moe.n-experts 2", "the run's own model"),
        ("mine --config other.yaml", "the run's own model"),
        ("notes", "no run 'notes'"),
        ("shipped", "holds a model without its training state"),
        ("mine/step_0000009", "no checkpoint"),
    ],
)
def test_mixed_up_runs_are_refused_and_stay_as_they_are(
    flags, words, text, runs, tmp_path, capsys, monkeypatch
):
    (runs / "notes").mkdir()
    (runs / "notes" / "diary.txt").write_text("mine")
    monkeypatch.chdir(runs)
    (runs / "other.yaml").write_text("model: {n_layer: 3}")
    if "latest" not in flags and "best" not in flags:
        assert train(text, runs / "mine", "--max-steps", "1") == 0
        export_run("mine", "shipped")
    before = {path: path.stat().st_mtime_ns for path in runs.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert words in one_line(["train", "--resume", *flags.split()], capsys)
    assert before == {path: path.stat().st_mtime_ns for path in runs.rglob("*") if path.is_file()}


def test_best_goes_back_to_the_best_checkpoint(text, runs):
    """And from there makes what a run makes that never went further."""
    flags = ["--lr", "0.02", "--max-steps", "30", "--keep-last", "5"]
    assert train(text, runs / "mine", *flags) == 0
    make_best(runs / "mine", 10)
    assert cli.main(["train", "--resume", "best", "--out", "mine"]) == 0
    other = runs / "other"
    assert train(text, other, *flags) == 0
    ours, theirs = weights(runs / "mine"), weights(other)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    make_best(runs / "mine", 10)
    assert cli.main(["train", "--resume", "best", "--out", "mine", "--max-steps", "12"]) == 0
    assert latest_checkpoint(runs / "mine").name == "step_0000012"


def test_a_checkpoint_is_gone_on_from_by_its_path(text, runs, capsys):
    assert train(text, runs / "mine", "--max-steps", "30", "--keep-last", "5") == 0
    folder = str(runs / "mine" / "step_0000010")
    assert cli.main(["train", "--resume", folder, "--max-steps", "15", "--lr", "0.5"]) == 0
    assert latest_checkpoint(runs / "mine").name == "step_0000015"
    steps = [row.split(",")[0] for row in (runs / "mine" / "metrics.csv").read_text().split()[1:]]
    assert steps == ["0", "10", "15"]


@pytest.mark.parametrize("best", [True, False])
def test_an_older_checkpoint_goes_on_by_its_own_settings(best, text, runs, capsys):
    flags = ["--max-steps", "20", "--keep-last", "9"]
    assert train(text, runs / "mine", *flags, "--lr", "0.25") == 0
    assert cli.main(["train", "--resume", "mine", "--max-steps", "30", "--lr", "0.5"]) == 0
    make_best(runs / "mine", 10)
    capsys.readouterr()
    named = ["best", "--out", "mine"] if best else [str(runs / "mine" / "step_0000010")]
    assert cli.main(["train", "--resume", *named]) == 0
    assert "lr 0.25 ->" not in capsys.readouterr().out
    settings = settings_of(runs / "mine")[1]
    assert (settings["lr"], settings["max_steps"]) == (0.25, 20)


def test_a_name_is_that_of_a_run_also_within_another(text, runs, monkeypatch, capsys):
    for name in ("a", "b"):
        assert train(text, runs / name, "--max-steps", "1") == 0
    monkeypatch.chdir(runs / "a")
    assert cli.main(["train", "--resume", "b", "--max-steps", "2"]) == 0
    assert latest_checkpoint(runs / "b").name == "step_0000002"
    assert cli.main(["train", "--resume", "step_0000001", "--max-steps", "2"]) == 0
    assert latest_checkpoint(runs / "a").name == "step_0000002"
    capsys.readouterr()
    assert "a has no checkpoint 'step_09'" in one_line(["train", "--resume", "step_09"], capsys)


# --- tokenizers ---


def test_a_checkpoint_that_is_not_there(text, runs, capsys):
    """The others of the run are named, since that is what is wrong."""
    assert train(text, runs / "mine", "--max-steps", "1") == 0
    capsys.readouterr()
    error = one_line(["train", "--resume", str(runs / "mine" / "step_0000009")], capsys)
    assert error.endswith("mine has no checkpoint 'step_0000009', but step_0000000, step_0000001")


def test_another_text_is_told_from_the_run_s_without_their_whole_sums(
    text, runs, tmp_path, corpus, capsys
):
    assert train(text, runs / "mine", "--max-steps", "1") == 0
    other = tmp_path / "other.txt"
    other.write_text(corpus.text * 2, encoding="utf-8")
    capsys.readouterr()
    error = one_line(["train", "--resume", "mine", "--corpus", f"file:{other}"], capsys)
    assert f"{len(corpus.text) * 9 // 5:,} training tokens" in error
    assert "leave that away" in error
    assert "{" not in error


@pytest.mark.parametrize("tokenizer", ["bpe:270", "wordpiece:530", "saved"])
def test_a_run_in_sub_words_is_made_anew_and_goes_on(tokenizer, text, tmp_path, capsys):
    if tokenizer == "saved":
        tokenizer = str(tmp_path / "mine.json")
        BPETokenizer.train(["the cat sat on the mat"], vocab_size=260).save(tokenizer)
    flags = ["--tokenizer", tokenizer, "--max-steps=20"]
    assert train(text, tmp_path / "one", *flags, "--block-size=8") == 0
    model = load_checkpoint(latest_checkpoint(tmp_path / "one")).model
    assert model.config.vocab_size == model.tokenizer.vocab_size > 40
    file = tmp_path / "one" / "config.yaml"
    assert cli.main(["train", "--config", str(file), "--out", str(tmp_path / "two")]) == 0
    assert cli.main(["train", "--resume", str(tmp_path / "one"), "--max-steps=30"]) == 0
    more = ["--config", str(file), "--out", str(tmp_path / "two"), "--resume=latest"]
    assert cli.main(["train", *more, "--max-steps=30"]) == 0
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert f"tokenizer: {tokenizer}" in file.read_text()
    capsys.readouterr()
    again = ["train", "--resume", str(tmp_path / "one"), "--tokenizer=char"]
    assert "leave --tokenizer away" in one_line(again, capsys)


@pytest.mark.parametrize("typed", ["mine.json", "here/../mine.json"])
def test_a_run_is_made_anew_from_another_folder(typed, text, runs, tmp_path, monkeypatch):
    """What the file names by a path is found from there, too: a tokenizer, a run to start from."""
    (tmp_path / "here").mkdir()
    BPETokenizer.train(["the cat sat on the mat"], vocab_size=260).save(tmp_path / "mine.json")
    monkeypatch.chdir(tmp_path)
    assert train(text, "one", "--tokenizer", typed, "--max-steps=1", "--block-size=8") == 0
    short = ["--corpus", text, "--max-steps=1", "--block-size=8", "--eval-interval=10"]
    assert cli.main(["train", "--init", "checkpoints/one", *short, "--out", "two"]) == 0
    monkeypatch.chdir(tmp_path / "here")
    for name in ("one", "two"):
        file, again = str(runs / name / "config.yaml"), f"{name}-again"
        assert cli.main(["train", "--config", file, "--out", again]) == 0
        assert (runs / again / "config.yaml").read_text() == Path(file).read_text()


def test_a_tokenizer_s_name_stays_one_whatever_lies_there(text, runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "char").write_text("a file of mine")
    for number, typed in enumerate(("char", "None")):
        assert train(text, f"run-{number}", "--tokenizer", typed, "--max-steps=1") == 0
        assert "tokenizer: char\n" in (runs / f"run-{number}" / "config.yaml").read_text()


def test_a_number_of_stories_asks_for_the_stories(monkeypatch, capsys):
    asked = []

    def load(*arguments):
        asked.append(arguments)
        raise CorpusError("asked")

    monkeypatch.setattr("tinygpt.commands.train.load_corpus", load)
    cli.main(["train", "--max_steps", "5", "--batch_size", "4", "--num_stories", "20000"])
    cli.main(["train", "--preset", "sparse-158m", "--num-stories=7"])
    cli.main(["train", "--preset", "sparse-158m"])
    stories = [("tinystories:20000", "char"), ("tinystories:7", "gpt2"), ("tinystories", "gpt2")]
    assert asked == stories
    assert cli.main(["train", "--corpus", "tinyplays", "--num_stories", "5"]) == 2
    assert "--num-stories is for the corpus tinystories" in capsys.readouterr().err


def test_a_text_that_is_nowhere_and_no_network(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("TINYGPT_DATA", raising=False)
    monkeypatch.setattr("tinygpt.places.WORKSPACE", tmp_path)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    error = one_line(["train"], capsys)
    assert "tinyshakespeare is not on this machine and could not be fetched" in error
    assert "--corpus tinyplays" in error
    assert os.listdir(runs) == []
