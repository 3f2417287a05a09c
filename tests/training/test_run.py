import os
import shutil
import threading
from dataclasses import replace

import pytest
import torch

from tinygpt import MoEConfig, TinyGPT, Trainer, generate, load_run
from tinygpt.errors import CheckpointError, ConfigError
from tinygpt.training import (
    Run,
    checkpoints,
    export_run,
    find_run,
    latest_checkpoint,
    load_checkpoint,
    save_checkpoint,
    tensors,
)
from tinygpt.training import folder as folder_module

from ..tools import QUICK


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Where names of runs lead to."""
    monkeypatch.setattr("tinygpt.training.run.RUNS", tmp_path)
    return tmp_path


def visible(folder):
    return sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))


def test_a_run_is_claimed_once_and_opened_by_name_or_path(run, runs):
    with pytest.raises(CheckpointError, match="already holds a run.*--resume.*out_dir=, --out"):
        Run.claim(run)
    assert Run.open("run").folder == Run.open(run).folder == run
    new = Run.claim("new")
    assert new.folder == runs / "new"
    assert not new.exists()
    assert visible(new.folder) == []
    with pytest.raises(CheckpointError, match="there is: run"):
        Run.open("new")


def test_a_step_is_saved_once_and_old_ones_go(run):
    folder, content = Run(run), load_checkpoint(latest_checkpoint(run))
    content.state["best_step"] = 20
    before = (latest_checkpoint(run) / "state.json").read_text()
    folder.save(30, content, keep_last=1)
    assert (latest_checkpoint(run) / "state.json").read_text() == before
    for step in (40, 50):
        folder.save(step, content, keep_last=1)
    assert [p.name for p in folder.checkpoints()] == ["step_0000020", "step_0000050"]


def test_what_is_later_than_a_step_is_forgotten(run):
    folder = Run(run)
    folder.save_tables({step: torch.full((1, 3, 2), step) for step in (10, 20, 30)})
    (run / ".tmp-step_0000040-x").mkdir()
    (run / "step_0000035").mkdir()  # a removal that was killed
    folder.forget_after(20)
    assert not list(run.glob(".tmp-*"))
    assert visible(run) == [
        "experts.safetensors",
        "metrics.csv",
        "step_0000020",
    ]
    assert {step: int(t.max()) for step, t in folder.load_tables().items()} == {10: 10, 20: 20}


def test_load_run_is_ready_to_write(run):
    model = load_run(run)
    assert not model.training
    assert len(generate(model, "the ", 10, seed=0)) == 14


def test_best_and_latest(run):
    make_best(run, 20)
    best, latest = load_run(run), load_run(run, which="latest")
    at_20 = load_checkpoint(run / "step_0000020").model
    assert torch.equal(best.wte.weight, at_20.wte.weight)
    assert not torch.equal(best.wte.weight, latest.wte.weight)
    with pytest.raises(ConfigError, match="which='last'"):
        load_run(run, which="last")


def make_best(run, step):
    """Let the newest checkpoint say that the best one is that of `step`."""
    newest = latest_checkpoint(run)
    content = load_checkpoint(newest)
    content.state["best_step"] = step
    shutil.rmtree(newest)
    save_checkpoint(newest, content)


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


def test_a_damaged_best_is_replaced_by_the_latest_with_a_warning(run):
    make_best(run, 20)
    (run / "step_0000020" / "model.safetensors").write_bytes(b"")
    with pytest.warns(match="taking the latest"):
        model = load_run(run)
    assert torch.equal(model.wte.weight, load_run(run, which="latest").wte.weight)


def test_all_damaged_or_none_there(run, tmp_path, monkeypatch):
    for folder in checkpoints(run):
        (folder / "model.safetensors").write_bytes(b"")
    with pytest.warns(match="damaged"), pytest.raises(CheckpointError, match="no checkpoint"):
        load_run(run)
    monkeypatch.setattr("tinygpt.training.run.RUNS", tmp_path)
    with pytest.raises(CheckpointError, match=r"no run 'nope'.*there is: run"):
        load_run("nope")
    assert find_run("run") == run


def test_loading_leaves_the_global_random_state(run):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    for which in ("best", "latest"):
        load_run(run, which)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_damaged_newest_is_named_and_an_older_one_taken(run):
    (run / "step_0000030" / "state.json").write_text("{}")
    with pytest.warns(match=r"passing over a damaged checkpoint: .*step_0000030.state\.json"):
        model = load_run(run, which="latest")
    assert torch.equal(model.wte.weight, load_checkpoint(run / "step_0000020").model.wte.weight)


def test_a_run_can_be_read_while_it_is_trained(corpus, small, tmp_path):
    """Checkpoints vanish under the reader, who then takes the newer ones."""
    config = replace(QUICK, max_steps=60, eval_interval=1, keep_last=1, max_eval_tokens=16)
    trainer = Trainer(TinyGPT(small), corpus, config, tmp_path / "run")
    thread = threading.Thread(target=trainer.fit, kwargs={"progress": False})
    thread.start()
    read = 0
    while thread.is_alive():
        if checkpoints(tmp_path / "run"):
            read += load_run(tmp_path / "run", which="latest") is not None
    thread.join()
    assert read > 5


# --- what is shipped ---


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
