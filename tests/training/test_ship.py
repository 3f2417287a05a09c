import json
import math
import os
import shutil
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from tinygpt import MetricsLogger, MoEConfig, TinyGPT, Trainer, generate, load_corpus, load_run
from tinygpt.errors import CheckpointError, ConfigError, CorpusError, NonFiniteError
from tinygpt.measure import evaluate, flops_per_token
from tinygpt.text import CharTokenizer
from tinygpt.training import (
    Run,
    export_run,
    find_run,
    load_checkpoint,
    run_names,
    samples,
    save_checkpoint,
    ship,
    summary,
    tensors,
    verify_run,
)
from tinygpt.training import folder as folder_module
from tinygpt.training.manifest import write_manifest

from ..tools import QUICK, make_best, same_state


def test_export_is_the_best_model_small_and_loads(run, tmp_path):
    make_best(run, 20)
    export_run(run, tmp_path / "shipped")
    with pytest.raises(CheckpointError, match="exists; remove it"):
        export_run(run, tmp_path / "shipped")
    with pytest.raises(CheckpointError, match="without its training state"):
        Trainer.resume(tmp_path / "shipped")
    names = {p.name for p in (tmp_path / "shipped").iterdir()}
    expected = {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "manifest.json",
        "metrics.csv",
        "summary.json",
        "samples.json",
    }
    assert names == expected
    shipped = load_run(tmp_path / "shipped")
    assert torch.equal(shipped.wte.weight, load_checkpoint(run / "step_0000020").model.wte.weight)
    weights = tmp_path / "shipped" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match="model.safetensors is damaged"):
        load_run(tmp_path / "shipped")


def test_names_and_paths_lead_where_the_rule_says(run, runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    export_run("run", "shipped")
    export_run("run", "a/shipped")
    export_run(str(run), tmp_path / "b" / "shipped")
    for name in ("shipped", "./shipped", "a/shipped", tmp_path / "b" / "shipped"):
        load_run(name)
    assert find_run("shipped") == runs / "shipped"
    with pytest.raises(CheckpointError, match="no run 'b'.*there is: run, shipped"):
        load_run("b")


@pytest.fixture
def with_experts(corpus, small, tmp_path):
    model = TinyGPT(replace(small, moe=MoEConfig()))
    Trainer(model, corpus, replace(QUICK, max_steps=10), tmp_path / "run").fit(progress=False)
    return tmp_path / "run"


@pytest.mark.parametrize("log", ["gone", "a folder"])
def test_an_export_needs_no_log(with_experts, tmp_path, log):
    (with_experts / "metrics.csv").unlink()
    if log == "a folder":
        (with_experts / "metrics.csv").mkdir()
    export_run(with_experts, tmp_path / "shipped")
    assert not (tmp_path / "shipped" / "metrics.csv").exists()
    load_run(tmp_path / "shipped")


@pytest.mark.filterwarnings("ignore:passing over", "ignore:taking the latest")
@pytest.mark.parametrize("damaged", ["experts.safetensors", "step_*/model.safetensors"])
def test_an_export_of_what_is_damaged_leaves_nothing(with_experts, tmp_path, damaged):
    for path in with_experts.glob(damaged):
        path.write_bytes(b"x")
    with pytest.raises(CheckpointError):
        export_run(with_experts, tmp_path / "deep" / "shipped")
    assert not (tmp_path / "deep").exists()


def test_a_disk_that_fails_at_any_moment_leaves_all_or_nothing(with_experts, tmp_path, monkeypatch):
    run, deep = with_experts, tmp_path / "deep"
    deep.mkdir()
    calls = watch_the_disk(monkeypatch)
    monkeypatch.setattr(ship, "LENGTH", 2)
    export_run(run, deep / "0" / "shipped")
    total = len(calls)
    assert total > 30
    whole = {p.name for p in (deep / "0" / "shipped").iterdir()}
    for number in range(total):
        calls.clear()
        calls.fail_at = number
        target = deep / str(number + 1) / "shipped"
        with pytest.raises(CheckpointError, match="could not write|cannot be read"):
            export_run(run, target)
        calls.fail_at = None
        if target.exists():  # it failed after the last rename
            assert {p.name for p in target.parent.iterdir()} == {"shipped"}
            assert {p.name for p in target.iterdir()} == whole
            load_run(target)
        else:
            assert not target.parent.exists()


class Calls(list):
    fail_at = None


def watch_the_disk(monkeypatch):
    """Count what changes files below; the call `fail_at` fails."""
    calls = Calls()

    def watched(name, function):
        def call(*args, **options):
            calls.append((name, args))
            if calls.fail_at == len(calls) - 1:
                raise OSError(5, "Input/output error")
            return function(*args, **options)

        return call

    for name in ("mkdir", "replace", "fsync", "chmod"):
        monkeypatch.setattr(os, name, watched(name, getattr(os, name)))
    for module, name in ((tensors, "save_model"), (folder_module, "save_file")):
        monkeypatch.setattr(module, name, watched(name, getattr(module, name)))
    monkeypatch.setattr(shutil, "copyfile", watched("copyfile", shutil.copyfile))
    return calls


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
@pytest.mark.parametrize("umask", [0o022, 0o007])
def test_all_files_of_a_run_may_be_read_by_the_same_people(corpus, small, tmp_path, umask):
    before = os.umask(umask)
    try:
        model = TinyGPT(replace(small, moe=MoEConfig()))
        trainer = Trainer(model, corpus, replace(QUICK, max_steps=10), tmp_path / "run")
        trainer.fit(progress=False)
        export_run(tmp_path / "run", tmp_path / "shipped")
    finally:
        os.umask(before)
    for path in [*(tmp_path / "run").rglob("*"), *(tmp_path / "shipped").rglob("*")]:
        wanted = (0o777 if path.is_dir() else 0o666) & ~umask
        assert path.stat().st_mode & 0o777 == wanted, path


# --- what is told of a shipped run ---


def told(folder, name="summary"):
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


def loss_by_hand(weights, config, tokens):
    """Window by window, of the tensors that a file holds, in float64."""
    model = TinyGPT(config).eval()
    model.load_state_dict(weights, strict=False)  # a tied head is there once
    model = model.double()
    T, total = config.block_size, 0.0
    for start in range(0, len(tokens) - 1, T):
        window = tokens[start : start + T + 1]
        logits = model(window[None, :-1]).logits[0]
        total += F.cross_entropy(logits, window[1:], reduction="sum").item()
    return total / (len(tokens) - 1)


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_a_summary_tells_of_the_stored_weights(run, tmp_path, corpus, dtype):
    make_best(run, 20)
    export_run(run, tmp_path / "shipped", dtype)
    stored = load_file(tmp_path / "shipped" / "model.safetensors")
    assert {t.dtype for t in stored.values()} == {ship.STORED[dtype]}
    model = load_run(tmp_path / "shipped")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    best = load_checkpoint(run / "step_0000020")
    rounded = {k: v.to(ship.STORED[dtype]).float() for k, v in best.model.state_dict().items()}
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in rounded.items())
    found, loss = told(tmp_path / "shipped"), loss_by_hand(rounded, model.config, corpus.val)
    assert found["val_lm_loss"] == pytest.approx(loss, abs=1e-6)
    assert found["val_tokens"] == len(corpus.val) - 1
    assert found["val_perplexity_per_token"] == pytest.approx(math.exp(loss), rel=1e-5)
    assert found["val_bits_per_char"] == pytest.approx(math.log2(math.e) * loss, rel=1e-5)
    assert (
        found["parameters"] == found["active_parameters"] == sum(map(torch.numel, stored.values()))
    )
    assert found["training_flops_per_token"] == flops_per_token(model)
    assert (found["updates"], found["tokens"]) == (20, 20 * 4 * 16)
    assert found["seconds"] == best.state["seconds"] > 0
    assert found["device"] == "cpu"
    assert found["processor"]
    assert found["moe"] is None


def test_a_summary_of_a_mixture_counts_its_choices(with_experts, tmp_path, corpus):
    export_run(with_experts, tmp_path / "shipped", "bf16")
    model, found = load_run(tmp_path / "shipped"), told(tmp_path / "shipped")
    expert = sum(p[0].numel() for p in model.blocks[0].ffn.experts.parameters())
    assert found["parameters"] - found["active_parameters"] == 2 * 3 * expert  # layers, idle ones
    read = (len(corpus.val) - 1) // 16 * 16  # all but the last, shorter window
    for layer in range(2):
        counts = [0] * 4
        for window in (corpus.val[:read].view(-1, 16), corpus.val[None, read:-1]):
            for expert in model(window, return_routing=True).routing[layer].experts.flatten():
                counts[expert] += 1
        mean = sum(counts) / 4
        assert sum(counts) == len(corpus.val) - 1
        assert found["moe"]["max_violation"][layer] == pytest.approx(max(counts) / mean - 1)
        assert found["moe"]["load_cv"][layer] == pytest.approx(np.std(counts) / mean)
        assert found["moe"]["dead_experts"][layer] == sum(n < 0.01 * mean for n in counts)
        assert 0 < found["moe"]["entropy"][layer] <= math.log(4) + 1e-6


def test_what_is_told_is_checked(run, tmp_path):
    export_run(run, tmp_path / "shipped")
    for name in ("summary", "samples"):
        path = tmp_path / "shipped" / f"{name}.json"
        content = path.read_bytes()
        path.write_bytes(content.replace(b"1", b"2"))
        with pytest.raises(CheckpointError, match=f"{name}.json is damaged"):
            verify_run(tmp_path / "shipped")
        path.write_bytes(content)


def test_samples_can_be_written_again(run, tmp_path):
    export_run(run, tmp_path / "shipped", "bf16")
    model, found = (
        load_run(tmp_path / "shipped", device="cpu"),
        told(tmp_path / "shipped", "samples"),
    )
    assert [sample["seed"] for sample in found["samples"]] == list(range(10))
    assert {sample["prompt"] for sample in found["samples"]} == {"\n"}  # it knows no capitals
    for sample in found["samples"][::4]:
        again = generate(model, "\n", 300, temperature=found["temperature"], seed=sample["seed"])
        assert sample["text"] == again
    model.tokenizer = CharTokenizer("".join(chr(200 + i) for i in range(9)))
    assert samples.write_samples(model, "", 10, 300)["samples"] == []


def test_a_run_shipped_before_and_stored_smaller_keeps_its_history(run, tmp_path):
    export_run(run, tmp_path / "first")
    export_run(tmp_path / "first", tmp_path / "second", "fp16")
    first, second = told(tmp_path / "first"), told(tmp_path / "second")
    assert all(first[name] == second[name] for name in summary.HISTORY)
    assert first["updates"] == 30
    assert first["val_lm_loss"] != second["val_lm_loss"]
    without_about(tmp_path / "first")
    export_run(tmp_path / "first", tmp_path / "third")
    assert told(tmp_path / "third")["updates"] is None
    assert told(tmp_path / "third")["val_lm_loss"] == first["val_lm_loss"]


def without_about(folder):
    """Make it an export of an earlier version."""
    for name in ("summary.json", "samples.json", "manifest.json"):
        (folder / name).unlink()
    kept = folder.rename(folder.with_name("kept"))
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (kept / name).rename(folder / name)
    write_manifest(folder)
    (kept / "metrics.csv").rename(folder / "metrics.csv")


@pytest.mark.parametrize("dtype", ["float32", "int8", "", None])
def test_other_types_are_refused(run, tmp_path, dtype):
    with pytest.raises(ConfigError, match="must be one of fp32, bf16, fp16"):
        export_run(run, tmp_path / "shipped", dtype)


def test_weights_that_fp16_cannot_hold_are_not_shipped(run, tmp_path):
    content = load_checkpoint(run / "step_0000030")
    content.model.wte.weight.data[0, 0] = 1e6
    shutil.rmtree(run / "step_0000030")
    save_checkpoint(run / "step_0000030", content)
    make_best(run, 30)
    with pytest.raises(NonFiniteError, match="fp16 cannot hold the weights in wte.weight"):
        export_run(run, tmp_path / "shipped", "fp16")
    assert not (tmp_path / "shipped").exists()
    export_run(run, tmp_path / "shipped", "bf16")


@pytest.fixture
def of_a_text(corpus, small, tmp_path):
    """A run, and the file that it was trained on."""
    path = tmp_path / "text.txt"
    path.write_text(corpus.text, encoding="utf-8", newline="\n")
    own = load_corpus(f"file:{path}")
    Trainer(TinyGPT(small), own, QUICK, tmp_path / "run").fit(progress=False)
    return tmp_path / "run", path


@pytest.mark.parametrize("how", ["gone", "another"])
def test_without_its_text_a_run_is_shipped_without_a_loss(of_a_text, tmp_path, corpus, how):
    run, path = of_a_text
    path.unlink() if how == "gone" else path.write_text(corpus.text[::-1], encoding="utf-8")
    with pytest.warns(match=r"summary\.json will hold no loss: .*(there is no file|another text)"):
        export_run(run, tmp_path / "shipped")
    found = told(tmp_path / "shipped")
    assert [found[name] for name in summary.LOSSES] == [None] * 12
    assert found["parameters"] > 0
    with pytest.raises(CheckpointError, match="no loss of the whole validation split on record"):
        verify_run(tmp_path / "shipped")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        export_run(run, tmp_path / "again", corpus=corpus)  # the same text from another place
    assert told(tmp_path / "again")["val_lm_loss"] > 0
    with pytest.raises(CorpusError, match="there is no file|another text"):
        verify_run(tmp_path / "again")


@pytest.mark.parametrize("said", [None, {"name": 5}, ["tinyplays"]])
def test_a_run_that_names_no_text_is_shipped_without_a_loss(run, tmp_path, said):
    content = load_checkpoint(run / "step_0000030")
    content.settings["corpus"] = said
    save_checkpoint(tmp_path / "other", content)
    with pytest.warns(match=r"will hold no loss: .* does not say what text it was trained on"):
        export_run(tmp_path / "other", tmp_path / "shipped")
    assert told(tmp_path / "shipped")["val_lm_loss"] is None
    assert len(told(tmp_path / "shipped", "samples")["samples"]) == 10


# --- whether it is true ---


def test_a_run_that_tells_the_truth(run, tmp_path, corpus):
    export_run(run, tmp_path / "shipped", "bf16")
    it = verify_run(tmp_path / "shipped")
    assert it.holds
    assert it.source == "summary.json"
    assert it.found == pytest.approx(it.recorded, abs=1e-9)
    assert it.found == evaluate(load_run(tmp_path / "shipped"), corpus.val)


def test_other_weights_do_not_hold(run, tmp_path):
    export_run(run, tmp_path / "shipped")
    content = load_checkpoint(tmp_path / "shipped")
    with torch.no_grad():
        content.model.blocks[0].attn.c_proj.weight.mul_(-3)
    save_checkpoint(tmp_path / "other", content)
    it = verify_run(tmp_path / "other")
    assert not it.holds
    assert it.recorded == told(tmp_path / "shipped")["val_lm_loss"]
    assert abs(it.found - it.recorded) > ship.TOLERANCE


@pytest.mark.parametrize(
    ("found", "holds"), [(1.0009, True), (0.9991, True), (1.0011, False), (math.nan, False)]
)
def test_how_far_is_too_far(found, holds):
    assert ship.Verified(1.0, found, "summary.json").holds == holds


def test_an_earlier_export_and_a_run_in_training_are_compared_with_their_log(run, tmp_path):
    logged = [row for row in MetricsLogger(run / "metrics.csv").rows if row["step"] == 30]
    it = verify_run(run)
    assert it.holds
    assert (it.source, it.recorded) == ("metrics.csv", logged[0]["whole_val_lm_loss"])
    export_run(run, tmp_path / "shipped")
    without_about(tmp_path / "shipped")
    assert verify_run(tmp_path / "shipped") == it
    (tmp_path / "shipped" / "metrics.csv").unlink()
    with pytest.raises(CheckpointError, match=r"on record, in its metrics\.csv"):
        verify_run(tmp_path / "shipped")


def test_the_log_of_the_best_weights_counts_not_that_of_the_last(run):
    path = run / "metrics.csv"
    log = MetricsLogger(path)
    log.amend(20, val_lm_loss=0.5, whole_val_lm_loss=0.25)
    make_best(run, 20)
    assert verify_run(run).recorded == 0.25


# --- former names ---


def test_a_former_name_leads_to_the_shipped_run(run, runs):
    assert ship.Run.place("laptop") == runs / "laptop"  # nothing was renamed yet
    export_run("run", "laptop-dense")
    assert find_run("laptop") == find_run("laptop-dense") == runs / "laptop-dense"
    assert same_state(load_run("laptop"), load_run("laptop-dense"))
    assert run_names() == ["laptop-dense", "run"]
    assert run_names(shipped=True) == ["laptop-dense"]


def test_a_former_name_is_never_written_into(run, runs, corpus, small):
    export_run("run", "laptop-dense")
    before = sorted(p.name for p in runs.rglob("*"))
    with pytest.raises(CheckpointError, match="laptop-dense holds a model that was shipped"):
        Trainer(TinyGPT(small), corpus, QUICK, "laptop")
    with pytest.raises(CheckpointError, match="without its training state"):
        Trainer.resume("laptop")
    with pytest.raises(CheckpointError, match="laptop-dense exists"):
        export_run("run", "laptop")
    assert sorted(p.name for p in runs.rglob("*")) == before
    assert Run.fresh("laptop") == runs / "laptop-2"


def test_a_renamed_run_that_is_not_there_takes_no_name_away(run, runs):
    assert Run.fresh("laptop") == runs / "laptop"
    shutil.copytree(run, runs / "laptop-dense")  # somebody's own
    assert Run.fresh("laptop") == runs / "laptop"
    with pytest.raises(CheckpointError, match="no run 'laptop'"):
        load_run("laptop")
