import shutil
import threading
from dataclasses import replace

import pytest
import torch

from tinygpt import TinyGPT, Trainer, generate, load_run
from tinygpt.errors import CheckpointError, ConfigError
from tinygpt.training import Run, checkpoints, find_run, latest_checkpoint, load_checkpoint
from tinygpt.training.manifest import there

from ..tools import QUICK, make_best


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
    for half in ("step_0000035", "step_0000015"):  # removals that were killed
        (run / half).mkdir()
        (run / half / "model.safetensors").write_text("")
    folder.forget_after(20)
    assert not list(run.glob(".tmp-*"))
    products = ["convergence.png", "generations.json", "summary.json"]
    assert [name for name in visible(run) if name not in products] == [
        "best",
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


def test_a_checkpoint_that_takes_anothers_place_while_they_are_listed_is_found(run, monkeypatch):
    for old in checkpoints(run)[:-1]:
        shutil.rmtree(old)
    new = run / "step_0000099"

    def moved_meanwhile(path):
        if not new.exists():
            path.parent.rename(new)
        return there(path)

    monkeypatch.setattr("tinygpt.training.folder.there", moved_meanwhile)
    assert checkpoints(run) == [new]


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
