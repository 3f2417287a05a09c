"""Runs of each checkpoint format that there was: see stored.py. None is ever written anew."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from tinygpt import Trainer, load_run
from tinygpt.training.checkpoint import FORMAT

from .stored import DATA, RUNS, a_window, go_on

STORED = [
    pytest.param(folder / name, id=f"{folder.name} {name}")
    for folder in sorted(DATA.glob("format_*"))
    for name in RUNS
]


def told(run) -> dict:
    return json.loads(run.with_suffix(".json").read_text(encoding="utf-8"))


def test_each_format_has_its_runs():
    assert {f.name for f in DATA.glob("format_*")} == {f"format_{n}" for n in range(1, FORMAT + 1)}


@pytest.mark.parametrize("run", STORED)
def test_it_loads_to_the_same_logits(run):
    model = load_run(run, device="cpu")
    with torch.inference_mode():
        actual = model(a_window()).logits[0]
    torch.testing.assert_close(actual, torch.tensor(told(run)["logits"]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("run", STORED)
def test_it_goes_on_as_it_would_have_then(run, corpus, tmp_path):
    """The losses within what other processors may round otherwise: see presets/test_golden.py."""
    copy = shutil.copytree(run, tmp_path / "run")
    trainer = Trainer.resume(copy, corpus, replace(RUNS[run.name][1], max_steps=20))
    assert trainer.step == 6
    assert go_on(trainer) == pytest.approx(told(run)["losses"], rel=1e-4)
