"""A whole study on a small text: resumed, shared, and refused where it must be."""

import math
import os
import subprocess
import sys
import textwrap
from dataclasses import replace

import pandas as pd
import pytest
import torch

from tinygpt import Trainer, runtime
from tinygpt.errors import ConfigError
from tinygpt.files import ROOT
from tinygpt.measure import evaluate, flops_per_token
from tinygpt.study import ARMS, STUDIES, Records, Trial, carry_out, missing, report, work
from tinygpt.study.records import fingerprint
from tinygpt.study.trial import make_trainer, run_row, train
from tinygpt.tables import Table

from .conftest import SMALL


def made(said: str) -> list[str]:
    """The trials that were made, as they were said."""
    return [line.split(", learning")[0] for line in said.splitlines() if ", seed" in line]


TRIALS = 2 * 2 * SMALL.sweep_seeds  # of two arms with two learning rates


def the_arms(study):
    """The table of its arms."""
    return next(each for each in report(study) if each.question.startswith("the arms"))


def test_a_study_from_nothing_to_its_report(make_study, capsys):
    study = make_study(arms=("dense", "top-1", "dense-seconds-1"))
    carry_out(study)
    said = made(capsys.readouterr().out)
    assert said[:4] == ["dense, seed 101", "dense, seed 101", "top-1, seed 101", "top-1, seed 101"]
    assert said[TRIALS:] == [
        f"{arm}, seed {seed}" for seed in (1, 2) for arm in ("dense", "top-1", "dense-seconds-1")
    ]
    runs, evaluations = study.runs(), study.details("evaluations")
    assert len(runs) == 6
    assert (evaluations.groupby(["arm", "seed"])["step"].nunique() == 1 + SMALL.looks).all()
    last = evaluations.groupby(["arm", "seed"])["val_loss"].last()
    assert (runs.set_index(["arm", "seed"])["val_loss"].sort_index() == last).all()
    heads, experts = study.details("heads"), study.details("experts")
    assert len(heads) == 6 * 2 * 2
    assert set(experts["arm"]) == {"top-1"}
    assert (experts.groupby(["seed", "layer"])["saturation"].last() == 1).all()
    costs, rates, arms, differences = report(study)
    assert [row["arm"] for row in costs.rows] == ["dense", "top-1"]
    assert list(rates.rows[0]) == ["arm", "x 1", "x 2"]
    assert [row["arm"] for row in arms.rows] == ["dense", "top-1", "dense-seconds-1"]
    assert [row["second"] for row in differences.rows] == ["dense", "dense-seconds-1"]
    assert "6 of 6 runs" in str(arms)
    assert str(differences).count("seeds)") == 2
    carry_out(study)
    assert capsys.readouterr().out == ""  # all there


def test_losses_are_those_of_the_whole_split_by_the_models_that_were_trained(make_study, plain):
    study, trial = make_study(plain), Trial(ARMS["top-1"], 2, 2.0, 4, 2)
    trainer = train(study, trial, progress=False)
    row = run_row(study, trial, trainer)
    assert row["val_loss"] == pytest.approx(evaluate(trainer.model, study.corpus.val), abs=1e-5)
    assert row["flops"] == 4 * 2 * 16 * flops_per_token(trainer.model)
    assert trainer.config.lr == 2 * SMALL.train.lr
    assert trainer.config.muon_lr == 2 * SMALL.train.muon_lr


def test_arms_with_a_seed_see_the_same_batches_and_others_do_not(make_study):
    study = make_study()
    drawn = [
        make_trainer(study, Trial(ARMS[name], seed, 1.0, 4, 2)).batches.draw()[0]
        for name, seed in (("dense", 1), ("top-1", 1), ("dense", 2))
    ]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_it_goes_on_after_an_interruption_without_what_is_finished(
    make_study, plain, capsys, monkeypatch
):
    study, calls, add = make_study(plain), [], Table.add

    def interrupted(table, rows):
        calls.append(table.path.name)
        if calls[-1] == "runs.csv" and calls.count("runs.csv") == 3:
            raise KeyboardInterrupt
        add(table, rows)

    monkeypatch.setattr(Table, "add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        carry_out(study)
    rows = study.runs()
    assert len(rows) == 2  # the third had evaluations, but no row of its own
    assert len(made(capsys.readouterr().out)) == 2
    assert len(study.records.evaluations.read()) == 3 * (1 + SMALL.looks)
    assert len(study.details("evaluations")) == 2 * (1 + SMALL.looks)
    carry_out(study)
    assert made(capsys.readouterr().out) == ["dense, seed 2", "top-1, seed 2"]
    assert study.runs().query("seed == 1").equals(rows)
    assert not study.records.evaluations.read().duplicated(["arm", "seed", "step"]).any()
    assert [path.name for path in study.folder.iterdir() if path.name.startswith(".")] == []


def test_the_same_run_has_the_same_losses_again(make_study, plain):
    study = make_study(plain)
    carry_out(study)
    before, path = study.runs(), study.records.runs.path
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:2] + lines[3:]))  # the second is lost
    carry_out(study)
    columns = ["arm", "seed", "val_loss", "best_val_loss", "train_loss"]
    again, once = (runs[columns].sort_values(columns[:2]) for runs in (study.runs(), before))
    assert again.values.tolist() == once.values.tolist()


@pytest.mark.skipif(os.name == "nt", reason="the pipes of two processes are read one by one")
def test_two_processes_share_the_work(make_study, corpus):
    study = make_study(seeds=3)
    code = f"""
        from pathlib import Path
        from tests.study.conftest import SMALL
        from tinygpt.study import carry_out, open_study
        options = ("dense", "top-1"), 3, {corpus.name!r}, "cpu"
        carry_out(open_study(SMALL, Path({str(study.folder)!r}), *options))
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT}
    started = [subprocess.Popen(command, **pipes) for _ in range(2)]
    outputs = [process.communicate() for process in started]
    assert [process.returncode for process in started] == [0, 0], outputs
    assert sum(len(made(out)) for out, _ in outputs) == TRIALS + 6  # nothing twice
    assert len(study.runs()) == 6
    assert len(study.sweep()) == TRIALS
    assert missing(study) == []


def test_a_stage_at_a_time(make_study, capsys):
    study = make_study()
    carry_out(study, "report")
    assert not study.folder.exists()
    carry_out(study, "costs")
    assert os.listdir(study.folder) == ["costs.csv"]
    carry_out(study, "sweep")
    assert len(made(capsys.readouterr().out)) == TRIALS
    assert study.runs().empty


def test_the_learning_rate_is_that_with_the_lowest_mean_loss(make_study):
    study = make_study(arms=("dense", "top-1", "frozen"))
    carry_out(study, "sweep")
    path = study.records.sweep.path
    frame = pd.read_csv(path)
    losses = {("dense", 1.0): (1.0, 4.0) * 2, ("dense", 2.0): (2.0, 2.0) * 2}  # means 2.5 and 2
    losses |= {("top-1", 1.0): (3.0, 1.0) * 2, ("top-1", 2.0): (1.0, 1.0, 1.0, math.inf)}
    for (arm, factor), values in losses.items():
        frame.loc[(frame["arm"] == arm) & (frame["lr_factor"] == factor), "best_val_loss"] = values
    frame.to_csv(path, index=False)
    chosen = study.lr_factors()
    assert [chosen[name] for name in ("dense", "top-1", "frozen")] == [2, 1, 1]
    assert {trial.arm.name: trial.lr_factor for trial in missing(study)} == {
        "dense": 2.0,
        "top-1": 1.0,
        "frozen": 1.0,
    }


def test_a_run_with_a_learning_rate_that_is_chosen_no_more_is_made_anew(make_study):
    study = make_study(arms=("dense",), seeds=1)
    carry_out(study)
    (before,) = study.runs()["lr_factor"]
    path = study.records.sweep.path
    frame = pd.read_csv(path)
    frame["best_val_loss"] = (frame["lr_factor"] == before).astype(float)
    frame.to_csv(path, index=False)
    assert study.runs().empty
    assert study.details("evaluations").empty
    carry_out(study)
    assert study.runs()["lr_factor"].tolist() == [3 - before]
    assert len(study.records.runs.read()) == 1
    frame[frame["lr_factor"] == before].to_csv(path, index=False)
    assert study.runs().empty  # what is best is open again


def test_a_best_learning_rate_at_an_end_of_those_tried_is_said(make_study):
    study = make_study(replace(SMALL, factors=(0.5, 1.0, 2.0)))
    carry_out(study, "sweep")
    path = study.records.sweep.path
    frame = pd.read_csv(path)
    dense = frame["arm"] == "dense"
    frame["best_val_loss"] = frame["lr_factor"].where(dense, (frame["lr_factor"] - 1).abs())
    frame.to_csv(path, index=False)
    rates = next(each for each in report(study) if each.question.startswith("learning rates"))
    assert rates.notes == ["best at an end of what was tried: dense (x 0.5)"]


def test_the_order_of_arms_and_rates_is_not_that_in_which_they_finished(make_study):
    study = make_study(seeds=1)
    carry_out(study)
    for path in (study.records.runs.path, study.records.sweep.path, study.records.heads.path):
        pd.read_csv(path)[::-1].to_csv(path, index=False)
    assert study.runs()["arm"].tolist() == ["dense", "top-1"]
    assert study.details("heads")["arm"].unique().tolist() == ["dense", "top-1"]
    rates = next(each for each in report(study) if each.question.startswith("learning rates"))
    assert [[*row] for row in rates.rows] == [["arm", "x 1", "x 2"]] * 2
    assert [row["arm"] for row in rates.rows] == ["dense", "top-1"]


def test_a_learning_rate_that_diverges_is_infinitely_bad(make_study):
    wild = replace(SMALL, train=replace(SMALL.train, lr=1e30, grad_clip=None, warmup_steps=0))
    study, trial = make_study(wild, ("dense",)), Trial(ARMS["dense"], 101, 2.0, 4, 2)
    row = run_row(study, trial, train(study, trial, False))
    assert math.isinf(row["best_val_loss"])
    assert math.isinf(row["val_loss"])


@pytest.mark.filterwarnings("error")
def test_a_run_that_diverges_is_written_down_and_the_study_goes_on(make_study, plain):
    wild = replace(plain.train, lr=1e30, grad_clip=None, warmup_steps=0)
    study = make_study(replace(plain, train=wild))
    costs(study, dense=1.0, top_1=1.0)
    carry_out(study)
    runs = study.runs()
    assert len(runs) == 4
    assert runs["best_val_loss"].map(math.isinf).all()
    assert missing(study) == []
    assert study.details("samples").empty
    assert study.details("heads").empty
    assert "diverged" in str(the_arms(study))


def test_a_run_that_diverges_at_its_very_end_has_diverged(make_study, plain, monkeypatch):
    """In the look after its last update, or in that update, of which a GPU tells late."""
    loss, settle = Trainer._loss, Trainer._settle

    def no_loss(trainer, *arguments):
        return math.nan if trainer.step == 4 else loss(trainer, *arguments)

    def tells(trainer):
        settle(trainer)
        if trainer.step == 4:
            trainer._look([[math.nan, math.nan]])

    for name, ruined in (("_loss", no_loss), ("_settle", tells)):
        with monkeypatch.context() as patch:
            patch.setattr(Trainer, name, ruined)
            study, trial = make_study(plain), Trial(ARMS["dense"], 1, 1.0, 4, 2)
            trainer = train(study, trial, progress=False)
        assert trainer.step == 4
        assert math.isfinite(trainer.best_val_loss)
        row = run_row(study, trial, trainer)
        assert all(math.isinf(row[name]) for name in ("best_val_loss", "val_loss", "train_loss"))


def costs(study, **ms):
    """Costs as if they had been measured, in milliseconds."""
    rest = {"ratio": 1.0, "low": 1.0, "high": 1.0, "rounds": 1, "compiled": "False"}
    rest |= study.unit | {"commit": "c", "device": "cpu", "processor": "p", "torch": "2"}
    rows = [rest | {"arm": arm.replace("_", "-"), "ms": value} for arm, value in ms.items()]
    study.records.costs.add(rows)


def test_costs_of_other_arms_are_kept_by_measuring_all_together(make_study, plain):
    carry_out(make_study(plain), "costs")
    more = make_study(plain, ("dense", "shared"))
    carry_out(more, "costs")
    assert set(more.costs()["arm"]) == {"dense", "top-1", "shared"}
    assert len(more.costs()) == 3
    assert (more.costs().set_index("arm")["ratio"] == 1.0)["dense"]  # all to that of these turns
    assert work.untimed(make_study(plain)) == []


def test_costs_are_not_mixed_with_those_of_compiled_models(make_study, plain):
    carry_out(make_study(plain), "costs")
    for until in ("costs", "runs"):
        with pytest.raises(ConfigError, match="timed with compile=False, and now compile=True"):
            carry_out(make_study(plain, ("dense", "shared"), compile=True), until)
    report(make_study(plain, compile=True))  # may be looked at


def test_an_arm_may_have_anothers_seconds(make_study, plain):
    study = make_study(plain, ("dense", "top-1", "dense-seconds-1"), seeds=1)
    costs(study, dense=2.0, top_1=3.1)
    updates = {trial.arm.name: trial.updates for trial in missing(study)}
    assert updates == {"dense": 4, "top-1": 4, "dense-seconds-1": 6}  # 6.2, in whole looks
    carry_out(study)
    assert the_arms(study).rows[2]["seconds"] == pytest.approx(6 * 2.0 / 1e3)
    costs(study, dense=2.0, top_1=8.0)  # measured anew: what is made stays, all seeds alike
    assert missing(study) == []
    more = replace(study, seeds=2)
    assert {trial.updates for trial in missing(more) if trial.arm.seconds_of} == {6}


def test_a_run_of_another_recipe_is_made_anew(make_study, plain):
    study = make_study(plain)
    carry_out(study)
    changed = make_study(replace(plain, train=replace(plain.train, beta2=0.9)))
    assert len(missing(changed)) == 4
    carry_out(changed)
    assert len(changed.runs()) == 4
    assert len(changed.records.runs.read()) == 4
    assert len(study.runs()) == 0


def test_a_changed_commit_is_said_and_does_no_harm(make_study, plain, monkeypatch):
    study = make_study(plain)
    monkeypatch.setattr("tinygpt.study.trial.code_version", lambda: "abc1234")
    carry_out(make_study(plain, seeds=1))
    monkeypatch.setattr("tinygpt.study.trial.code_version", lambda: "def5678+")
    carry_out(study)
    assert len(study.runs()) == 4
    assert "commit abc1234 (2), def5678+ (2)" in str(the_arms(study))


def test_a_damaged_table_is_one_clear_error(make_study, plain):
    study = make_study(plain)
    carry_out(study)
    path = study.records.runs.path
    path.write_text(path.read_text()[:-30])
    with pytest.raises(ConfigError, match="runs.csv is not a table with the columns corpus, study"):
        carry_out(study)


def test_a_large_size_is_for_cuda_only_but_may_be_looked_at(make_study, plain):
    study = make_study(replace(plain, cuda_only=True))
    assert "no run of 4 has been made yet" in str(the_arms(study))
    with pytest.raises(ConfigError, match="trained on a CUDA device only"):
        carry_out(study)


@pytest.mark.skipif(torch.cuda.is_available(), reason="for a machine without CUDA")
def test_runs_of_two_kinds_of_device_are_not_mixed(make_study, plain):
    study = make_study(plain, device="auto")
    carry_out(study)
    for path in (study.records.runs.path, study.records.costs.path):
        path.write_text(path.read_text().replace(",cpu,", ",cuda,"))
    looked_at = make_study(plain, device="auto")
    assert the_arms(looked_at).rows[0]["seconds"] > 0
    with pytest.raises(ConfigError, match="torch sees 0 CUDA devices"):
        carry_out(make_study(plain, seeds=3, device="auto"))
    with pytest.raises(ConfigError, match="were made on cuda, and device is cpu"):
        carry_out(make_study(plain, seeds=3))


def test_what_cannot_be_asked_for(make_study):
    with pytest.raises(ConfigError, match="no arm top-3 in the study"):
        make_study(arms=("dense", "top-3"))
    for seeds in (0, 101):
        with pytest.raises(ConfigError, match=f"seeds={seeds} must be between 1 and 100"):
            make_study(seeds=seeds)


def test_a_fingerprint_is_of_what_is_trained():
    arms = list(ARMS.values())
    assert len({fingerprint(arm, SMALL) for arm in arms}) == len(arms)
    same = replace(ARMS["top-1"], words="renamed")
    assert fingerprint(same, SMALL) == fingerprint(ARMS["top-1"], SMALL)
    found = {fingerprint(ARMS["dense"], SMALL)}
    for other in (
        replace(SMALL, looks=1),
        replace(SMALL, tokenizer="bpe:300"),
        replace(SMALL, tokenizer="bpe:400"),
        replace(SMALL, train=replace(SMALL.train, beta2=0.9)),
        replace(SMALL, model=replace(SMALL.model, qk_norm=True)),
    ):
        found.add(fingerprint(ARMS["dense"], other))
    assert len(found) == 6


def test_the_version_of_the_code(monkeypatch, tmp_path):
    git = ["git", "rev-parse", "--short", "HEAD"]
    head = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    assert runtime.code_version().removesuffix("+") == (head or "unknown")
    monkeypatch.setattr(runtime, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert runtime.code_version() == "unknown"
    monkeypatch.setenv("TINYGPT_COMMIT", "abc1234")
    assert runtime.code_version() == "abc1234"


def test_what_is_shipped_is_of_todays_recipes():
    """Else `compare` would train anew what README and the notebooks show."""
    records = Records(ROOT / "checkpoints" / "study")
    for table in (records.runs, records.sweep):
        for row in table.read().itertuples():
            design = STUDIES[row.study]
            assert row.recipe == fingerprint(design.arms[row.arm], design), row
    for table in (records.evaluations, records.heads, records.experts, records.costs):
        table.read()


def test_what_another_process_finished_meanwhile_is_not_made_again(make_study):
    study, trial = make_study(), Trial(ARMS["dense"], 1, 1.0, 4, 2)
    seen = [[trial], [trial], [], []]  # at the start, when listed, when claimed, and then
    study.folder.mkdir()
    costs(study, dense=1.0)
    work._share(study, lambda _: seen.pop(0), lambda *_: pytest.fail("it was made again"))
    assert seen == []
