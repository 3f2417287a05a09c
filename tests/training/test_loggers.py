"""Loggers of other makers, here by stand-ins that keep what they are told; TensorBoard itself."""

import math
import sys
import warnings
from dataclasses import replace

import pytest

from tinygpt import MetricsLogger, TinyGPT, Trainer
from tinygpt.config import TrainConfig, from_dict
from tinygpt.errors import ConfigError
from tinygpt.files import WORKSPACE

from ..tools import QUICK, interrupt_after


class FakeWandb:
    """Drops, as the real one does, what is given with a step before its own."""

    def __init__(self):
        self.starts, self.rows, self.axes, self.finished = [], [], [], 0

    def init(self, **options):
        self.starts.append(options)
        return self

    def define_metric(self, name, step_metric=None):
        self.axes.append((name, step_metric))

    def log(self, row, step=None):
        assert step is None, "a step that goes back would be dropped"
        self.rows.append(row)

    def finish(self):
        self.finished += 1


@pytest.fixture
def wandb(monkeypatch):
    for name in ("WANDB_MODE", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


@pytest.fixture
def trackio(monkeypatch):
    monkeypatch.delenv("TRACKIO_DIR", raising=False)
    fake = FakeWandb()
    fake.log = lambda row, step: fake.rows.append({"step": step, **row})
    monkeypatch.setitem(sys.modules, "trackio", fake)
    return fake


@pytest.mark.parametrize(
    ("name", "module"),
    [("tensorboard", "torch.utils.tensorboard"), ("wandb", "wandb"), ("trackio", "trackio")],
)
def test_a_missing_package_is_named_before_anything_is_done(
    name, module, monkeypatch, corpus, small, tmp_path
):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=f"log='{name}'.*pip install {name}"):
        Trainer(TinyGPT(small), corpus, replace(QUICK, log=name), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_without_a_folder_none_writes_anywhere(wandb, corpus, small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"log='wandb' .*folder.*out_dir"):
        Trainer(TinyGPT(small), corpus, replace(QUICK, log="wandb"))


def test_a_name_that_is_none_is_refused():
    with pytest.raises(ConfigError, match="log='mlflow' must be one of tensorboard, wandb, track"):
        TrainConfig(log="mlflow")


def test_weights_and_biases_stays_offline_and_has_the_step_as_its_axis(wandb, tmp_path):
    log = MetricsLogger(tmp_path / "metrics.csv", "wandb", {"lr": 0.1})
    assert wandb.starts == []  # with the first row
    for step in (20, 40):
        log.log(step=step, train_lm_loss=2.0, val_lm_loss=2.5, lr=math.nan)
    log.amend(20, whole_val_lm_loss=1.5)  # known late
    log.finish()
    (start,) = wandb.starts
    assert start["mode"] == "offline"
    assert start["dir"] == tmp_path
    assert start["project"] == "tinygpt"
    assert start["config"] == {"lr": 0.1}
    assert start["name"] == start["group"] == tmp_path.name
    assert wandb.axes == [("step", None), ("*", "step")]
    assert [row["step"] for row in wandb.rows] == [20, 40, 20]
    assert wandb.rows[0]["val_lm_loss"] == 2.5
    assert wandb.rows[-1] == {"step": 20, "whole_val_lm_loss": 1.5}
    assert all(math.isfinite(value) for row in wandb.rows for value in row.values())
    assert wandb.finished == 1


def test_weights_and_biases_goes_online_when_told(wandb, monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    log = MetricsLogger(tmp_path / "metrics.csv", "wandb")
    log.log(step=0, train_lm_loss=2.0, val_lm_loss=2.5)
    assert (wandb.starts[0]["mode"], wandb.starts[0]["project"]) == ("online", "mine")


def test_trackio_keeps_all_runs_in_one_place(trackio, monkeypatch, tmp_path):
    monkeypatch.setenv("TRACKIO_DIR", "")  # so that it is put back
    monkeypatch.delenv("TRACKIO_DIR")
    log = MetricsLogger(tmp_path / "metrics.csv", "trackio")
    from os import environ

    assert environ["TRACKIO_DIR"] == str(WORKSPACE / "checkpoints" / "trackio")
    log.log(step=3, train_lm_loss=2.0, val_lm_loss=2.5)
    assert trackio.starts[0]["project"] == "tinygpt"
    assert (trackio.rows[0]["step"], trackio.rows[0]["val_lm_loss"]) == (3, 2.5)


def test_a_resumed_run_loses_no_row(wandb, corpus, small, tmp_path):
    config = replace(QUICK, log="wandb")
    stopped = Trainer(TinyGPT(small), corpus, config, tmp_path / "run")
    interrupt_after(stopped, 27)
    assert wandb.finished == 1
    Trainer.resume(tmp_path / "run", corpus).fit(progress=False)
    first, second = wandb.starts
    assert first["group"] == second["group"] == "run"
    assert (first["name"], second["name"]) == ("run", "run from 27")
    evaluations = [row["step"] for row in wandb.rows if "val_lm_loss" in row]
    assert evaluations == [0, 10, 20, 30, 40]
    assert wandb.finished == 2


@pytest.mark.parametrize("broken", ["init", "log", "finish"])
def test_a_logger_that_fails_is_said_once_and_the_run_goes_on(
    broken, wandb, corpus, small, tmp_path
):
    def fail(*args, **options):
        raise RuntimeError("no space on their disk")

    setattr(wandb, broken, fail)
    trainer = Trainer(TinyGPT(small), corpus, replace(QUICK, log="wandb"), tmp_path / "run")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        trainer.fit(progress=False)
    (one,) = [str(each.message) for each in said]
    assert one.startswith("wandb gets no more of this run")
    assert "no space on their disk" in one
    assert [row["step"] for row in MetricsLogger(tmp_path / "run" / "metrics.csv").rows][-1] == 40


def test_what_a_killed_start_left_of_a_logger_hinders_no_new_one(wandb, corpus, small, tmp_path):
    Trainer(TinyGPT(small), corpus, QUICK, tmp_path / "run")
    (tmp_path / "run" / "wandb").mkdir()
    Trainer(TinyGPT(small), corpus, QUICK, tmp_path / "run")


def test_tensorboard_hides_what_is_made_again(corpus, small, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = replace(QUICK, log="tensorboard")
    Trainer(TinyGPT(small), corpus, config, tmp_path / "run").fit(progress=False)
    log = MetricsLogger(tmp_path / "run" / "metrics.csv", "tensorboard")
    log.truncate(20)  # as a resume at 20 does
    log.log(step=30, train_lm_loss=2.0, val_lm_loss=9.0)
    log.finish()
    events = EventAccumulator(str(tmp_path / "run"))
    events.Reload()
    found = {event.step: event.value for event in events.Scalars("val_lm_loss")}
    assert list(found) == [0, 10, 20, 30]  # 40 was of what is gone
    assert found[30] == 9.0
    assert found[20] == pytest.approx(log.rows[-2]["val_lm_loss"])


@pytest.mark.parametrize(
    ("older", "log"),
    [
        ({"tensorboard": False, "wandb": None}, None),
        ({"tensorboard": True, "wandb": None}, "tensorboard"),
        ({"tensorboard": False, "wandb": "project"}, "wandb"),
        ({}, None),
        ({"log": "trackio"}, "trackio"),
    ],
)
def test_settings_of_older_runs_name_their_logger(older, log):
    assert from_dict(TrainConfig, {"lr": 0.5, **older}) == TrainConfig(lr=0.5, log=log)
