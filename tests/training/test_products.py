"""What a training leaves in its folder when it ends, told of the best weights and true."""

import json
import math
import os
import warnings
from dataclasses import replace

import pandas as pd
import pytest
import torch
from matplotlib.image import imread
from safetensors.torch import load_file

from tinygpt import MetricsLogger, MoEConfig, TinyGPT, Trainer, generate, load_run
from tinygpt.errors import CheckpointError
from tinygpt.measure import evaluate
from tinygpt.training import Run, export_run, load_checkpoint, products, verify_run
from tinygpt.training.samples import PROMPTS, write_samples

from ..tools import QUICK, interrupt_after, same_state

PRODUCTS = ["best", "convergence.png", "generations.json", "summary.json"]


@pytest.fixture
def three_splits(corpus):
    """The same corpus with a test split, which is another text."""
    return replace(corpus, val=corpus.val[:250], test=corpus.val[250:])


def overfitted(corpus, small, folder, **changes) -> Trainer:
    """A run whose best weights, of step 20, are not its last, of 40."""
    trainer = Trainer(TinyGPT(small), corpus, replace(QUICK, **changes), folder)
    losses = {0: 3.0, 10: 2.5, 20: 1.0, 30: 2.0, 40: 2.2}
    measure = trainer._loss

    def made_up(model, tokens, limit):
        return measure(model, tokens, limit) if limit is None else losses[trainer.step]

    trainer._loss = made_up
    trainer.fit(progress=False)
    assert (trainer.step, trainer.best_step) == (40, 20)
    return trainer


def told(folder, name="summary"):
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


def test_a_finished_run_tells_of_its_best_weights_on_both_splits(
    three_splits, small, tmp_path, pictures
):
    run = tmp_path / "run"
    trainer = overfitted(three_splits, small, run)
    assert {name for name in os.listdir(run) if name in PRODUCTS} == set(PRODUCTS)
    best, found = load_checkpoint(run / "step_0000020").model, told(run)
    assert not same_state(best, trainer.model)
    assert (found["weights"], found["updates"]) == ("best", 20)
    for split in ("val", "test"):
        tokens = getattr(three_splits, split)
        assert found[f"{split}_lm_loss"] == pytest.approx(evaluate(best, tokens), abs=1e-9)
        assert found[f"{split}_lm_loss"] != pytest.approx(evaluate(trainer.model, tokens), abs=1e-6)
        assert found[f"{split}_tokens"] == len(tokens) - 1
    assert (found["window"], found["stride"], found["mean_context"]) == (16, 16, 8.5)
    assert 0 < found["peak_rss_gb"] < 100
    assert found["peak_gpu_gb"] is None
    assert found["training_flops_per_token"] == 3 * found["forward_flops_per_token"] > 0
    assert imread(run / "convergence.png").shape[0] > 100


def test_a_run_in_bf16_is_told_of_in_float32_on_a_cpu_too(corpus, small, tmp_path):
    trainer = overfitted(corpus, small, tmp_path / "run", precision="bf16")
    exact = evaluate(trainer.run.load("best").model, corpus.val)
    assert told(tmp_path / "run")["val_lm_loss"] == pytest.approx(exact, abs=1e-9)
    assert trainer.whole_val_lm_loss[20] != pytest.approx(exact, abs=1e-9)


def test_best_is_a_run_of_its_own_and_shares_the_disk_with_the_checkpoint(corpus, small, tmp_path):
    run = tmp_path / "run"
    overfitted(corpus, small, run)
    best = load_run(run / "best")
    assert same_state(best, load_checkpoint(run / "step_0000020").model)
    assert set(load_file(run / "best" / "model.safetensors")) <= set(best.state_dict())
    one, other = (run / name / "model.safetensors" for name in ("best", "step_0000020"))
    assert os.path.samefile(one, other)
    with pytest.raises(CheckpointError, match="without its training state"):
        Trainer.resume(run / "best")
    Run(run).keep(1, best_step=40)  # the checkpoint goes, its weights stay
    assert same_state(load_run(run / "best"), best)


def test_where_there_are_no_hard_links_the_weights_are_copied(run, monkeypatch):
    def refuse(*args):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    products.keep_weights(Run(run), 30)
    assert same_state(load_run(run / "best"), load_checkpoint(run / "step_0000030").model)


def test_a_resumed_run_tells_anew(corpus, small, tmp_path):
    run = tmp_path / "run"
    Trainer(TinyGPT(small), corpus, QUICK, run).fit(progress=False)
    before = told(run)
    Trainer.resume(run, corpus, replace(QUICK, max_steps=80)).fit(progress=False)
    after = told(run)
    assert after["updates"] > before["updates"]
    assert after["val_lm_loss"] < before["val_lm_loss"]
    weights = load_checkpoint(run / f"step_{after['updates']:07d}").model
    assert same_state(load_run(run / "best"), weights)
    assert told(run, "generations")["step"] == after["updates"]


def test_an_interrupted_run_has_its_best_weights_alone(corpus, small, tmp_path):
    trainer = Trainer(TinyGPT(small), corpus, QUICK, tmp_path / "run")
    interrupt_after(trainer, 25)
    assert trainer.best_step == 20
    best = load_checkpoint(tmp_path / "run" / "step_0000020").model
    assert same_state(load_run(tmp_path / "run" / "best"), best)
    assert not (tmp_path / "run" / "summary.json").exists()
    Trainer.resume(tmp_path / "run", corpus).fit(progress=False)
    assert told(tmp_path / "run")["updates"] == 40


def test_what_is_told_is_of_the_weights_that_are_there(corpus, small, tmp_path):
    run = tmp_path / "run"
    Trainer(TinyGPT(small), corpus, replace(QUICK, max_steps=20), run).fit(progress=False)
    longer = Trainer.resume(run, corpus, replace(QUICK, max_steps=60))
    assert told(run)["updates"] == told(run, "generations")["step"] == 20
    interrupt_after(longer, 33)
    assert longer.best_step == 30
    assert same_state(load_run(run / "best"), load_checkpoint(run / "step_0000030").model)
    assert not {"summary.json", "generations.json"} & set(os.listdir(run))


def test_what_is_told_goes_before_the_weights_and_comes_after_them(run, corpus, monkeypatch):
    def lost(*args):
        raise OSError(5, "Input/output error")

    Trainer.resume(run, corpus, which="step_0000020")
    assert not {"summary.json", "generations.json"} & set(os.listdir(run))  # of step 30
    (run / "summary.json").write_text('{"updates": 30}')
    monkeypatch.setattr(products, "new_folder", lost)
    products.keep_weights(Run(run), 20)
    assert not (run / "summary.json").exists()


def test_what_cannot_be_told_stops_nothing(corpus, small, tmp_path, monkeypatch, capsys):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(products, "write_text", full)
    Trainer(TinyGPT(small), corpus, QUICK, tmp_path / "run").fit(progress=False)
    assert "what tells of the run is not complete: [Errno 28]" in capsys.readouterr().out
    assert load_run(tmp_path / "run", "latest")


def test_a_damaged_checkpoint_gives_no_weights_that_look_whole(run, capsys):
    weights = run / "step_0000030" / "model.safetensors"
    weights.unlink()  # best/ has the same file
    weights.write_bytes(b"x")
    products.keep_weights(Run(run), 30)
    assert "model.safetensors is damaged" in capsys.readouterr().out
    assert load_run(run / "best")


def test_the_weights_of_others_in_best_are_not_removed(run, capsys):
    (run / "best" / "notes.txt").write_text("mine")
    products.keep_weights(Run(run), 30)
    assert "not complete" in capsys.readouterr().out
    assert (run / "best" / "notes.txt").read_text() == "mine"


def test_without_a_folder_nothing_is_written(corpus, small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Trainer(TinyGPT(small), corpus, QUICK).fit(progress=False)
    assert os.listdir(tmp_path) == []


def test_the_curves_are_drawn_again_from_the_log_alone(run, tmp_path, pictures):
    log = MetricsLogger(run / "metrics.csv")
    products.draw(log, tmp_path / "again.png")
    assert imread(tmp_path / "again.png").shape[0] > 100
    assert not list(tmp_path.glob(".tmp-*"))


def test_a_mixture_says_how_its_experts_share_the_work(corpus, small, tmp_path):
    model = TinyGPT(replace(small, moe=MoEConfig()))
    Trainer(model, corpus, QUICK, tmp_path / "run").fit(progress=False)
    found = told(tmp_path / "run")
    assert found["active_parameters"] < found["parameters"]
    assert found["moe"]["tokens"] == len(corpus.val) - 1
    assert all(len(found["moe"][name]) == 2 for name in ("load_cv", "entropy", "dead_experts"))


def test_the_speed_is_that_of_the_updates(corpus, small, tmp_path):
    trainer = Trainer(TinyGPT(small), corpus, QUICK, tmp_path / "run")
    trainer.pace.seconds = lambda: 0.25
    trainer.fit(progress=False)
    assert told(tmp_path / "run")["tokens_per_s"] == 4 * 16 / 0.25


def test_a_finished_run_that_is_resumed_keeps_what_its_training_measured(
    corpus, small, tmp_path, monkeypatch
):
    Trainer(TinyGPT(small), corpus, QUICK, tmp_path / "run").fit(progress=False)
    before = told(tmp_path / "run")
    memory = {"peak_gpu_gb": None, "peak_rss_gb": 77.0}
    monkeypatch.setattr("tinygpt.training.trainer.peak_memory", lambda device: memory)
    Trainer.resume(tmp_path / "run", corpus).fit(progress=False)
    assert told(tmp_path / "run") == before
    (tmp_path / "run" / "summary.json").unlink()
    Trainer.resume(tmp_path / "run", corpus).fit(progress=False)  # what is not known is null
    assert told(tmp_path / "run") == before | {"tokens_per_s": None, "peak_rss_gb": None}


def test_an_export_keeps_what_only_the_training_could_measure(run, tmp_path):
    export_run(run, tmp_path / "shipped")
    export_run(tmp_path / "shipped", tmp_path / "again")
    first, shipped, again = (told(f) for f in (run, tmp_path / "shipped", tmp_path / "again"))
    assert first["tokens_per_s"] > 0
    assert first == shipped == again
    assert verify_run(tmp_path / "shipped").holds


# --- texts from fixed prompts ---


def test_generations_can_be_written_again(run):
    found, model = told(run, "generations"), load_run(run)
    assert (found["weights"], found["step"]) == ("best", 30)
    assert len(found["samples"]) == products.TEXTS
    for sample in found["samples"]:
        settings = {"temperature": found["temperature"], "seed": sample["seed"]}
        again = generate(model, sample["prompt"], found["max_new_tokens"], **settings)
        assert sample["text"] == again


def test_each_corpus_has_its_prompts_as_far_as_they_can_be_encoded(run):
    model = load_run(run)  # it knows no capitals
    assert write_samples(model, "tinystories", 2, 3)["samples"] == []
    (only,) = {s["prompt"] for s in write_samples(model, "file:/somewhere", 3, 2)["samples"]}
    assert only == "\n"
    assert all(len(set(prompts)) == 5 for prompts in PROMPTS.values())


# --- the picture ---


def test_a_log_of_one_row_is_drawn_without_a_warning(tmp_path, pictures):
    log = MetricsLogger()
    log.log(step=0, train_lm_loss=4.0, val_lm_loss=math.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        products.draw(log, tmp_path / "curves.png")
    assert isinstance(log.frame(), pd.DataFrame)
    assert torch.tensor(imread(tmp_path / "curves.png")).ndim == 3
