import shutil

import pytest
import torch

from tinygpt import Trainer, generate, load_run
from tinygpt.errors import CheckpointError, ConfigError
from tinygpt.training import (
    Run,
    checkpoints,
    export_run,
    find_run,
    latest_checkpoint,
    load_checkpoint,
    save_checkpoint,
)


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
