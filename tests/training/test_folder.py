"""Who may write into a run's folder."""

import errno
import json
import os
import shutil
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import pytest
import torch

from tinygpt import MetricsLogger, MoEConfig, TinyGPT, Trainer, load_run
from tinygpt.errors import CheckpointError
from tinygpt.files import ROOT
from tinygpt.training import Run, checkpoints, export_run, load_expert_tables

from ..tools import QUICK

HEADER = ",".join(MetricsLogger.COLUMNS) + "\n"
ROW = "0,0.0,3.0,3.0" + ",1.0" * (len(MetricsLogger.COLUMNS) - 4) + "\n"


def content(folder):
    """Every file of a folder with its bytes; what locks need is none of it."""
    files = (p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".lock"))
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


def started(folder):
    """A folder as a start leaves it that was killed before its first checkpoint."""
    run = Run.claim(folder)
    run.log.write_text(HEADER + ROW)
    run.save_tables({0: torch.ones(1, 3, 2)})
    for name in ("step_0000000", "metrics.csv", "experts.safetensors", ".start"):
        (folder / f".tmp-{name}-ab12cd34" / name).mkdir(parents=True)
    (folder / "events.out.tfevents.1").write_text("of TensorBoard")
    return folder


def test_a_shipped_run_is_never_written_into(run, tmp_path, corpus, small):
    export_run(run, tmp_path / "shipped")
    before = content(tmp_path / "shipped")
    with pytest.raises(CheckpointError, match="holds a model that was shipped.*--out"):
        Run.claim(tmp_path / "shipped")
    with pytest.raises(CheckpointError, match="holds a model that was shipped.*--out"):
        Trainer(TinyGPT(small), corpus, QUICK, tmp_path / "shipped")
    with pytest.raises(CheckpointError, match="without its training state"):
        Trainer.resume(tmp_path / "shipped", corpus)
    # not even if something else has trained in it before
    shutil.copytree(run / "step_0000030", tmp_path / "shipped" / "step_0000030")
    with pytest.raises(CheckpointError, match="without its training state"):
        Trainer.resume(tmp_path / "shipped", corpus)
    shutil.rmtree(tmp_path / "shipped" / "step_0000030")
    assert content(tmp_path / "shipped") == before
    assert sorted(p.name for p in (tmp_path / "shipped").iterdir()) == sorted(before)


FOREIGN = {
    "a log of somebody": ["metrics.csv"],
    "tables of somebody": ["experts.safetensors"],
    "notes": ["notes.txt"],
    "hidden": [".git/config"],
    "half a checkpoint": ["step_0000010/model.safetensors"],
    "temporaries of somebody": [".tmp-notes-ab/notes"],
    "more than can be shown": ["a", "b", "c", "d"],
}


@pytest.mark.parametrize("case", FOREIGN)
@pytest.mark.parametrize("after_a_start", [False, True])
def test_a_folder_of_somebody_is_refused_and_left_alone(tmp_path, case, after_a_start):
    folder = tmp_path / "folder"
    if after_a_start:
        started(folder)
    for name in FOREIGN[case]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("step;loss\n1;2\n")
    before = content(folder)
    shown = ", ".join(name.split("/")[0] for name in FOREIGN[case][:3])
    with pytest.raises(CheckpointError, match=f"holds {shown}.*which no start.*--out"):
        Run.claim(folder)
    assert content(folder) == before
    assert after_a_start or not (folder / ".lock").exists()


@pytest.mark.parametrize(
    "log",
    [
        HEADER + ROW + ROW,
        HEADER + ROW + "10",
        HEADER + "5,1.0\n",
        "step,loss\n0,1\n",
        "",
        "\ufeff" + HEADER,
    ],
)
def test_a_log_that_no_start_wrote_is_kept(tmp_path, log):
    """As when somebody removed the checkpoints of a run, to have room, and kept its log."""
    started(tmp_path / "run")
    (tmp_path / "run" / "metrics.csv").write_text(log, encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"holds metrics\.csv, which no start"):
        Run.claim(tmp_path / "run")
    assert (tmp_path / "run" / "metrics.csv").read_text(encoding="utf-8") == log


@pytest.mark.parametrize("log", [HEADER, HEADER + "0", HEADER + ROW[:30], HEADER + ROW])
def test_a_start_that_was_killed_can_be_made_again(tmp_path, log):
    started(tmp_path / "run")
    (tmp_path / "run" / "metrics.csv").write_text(log)
    run = Run.claim(tmp_path / "run")
    assert sorted(content(run.folder)) == [".start", "events.out.tfevents.1"]
    assert not list(run.folder.glob(".tmp-*"))


def test_tables_of_more_than_a_start_are_kept(tmp_path):
    started(tmp_path / "run")
    Run(tmp_path / "run").save_tables({0: torch.ones(1, 3, 2), 10: torch.ones(1, 3, 2)})
    with pytest.raises(CheckpointError, match=r"holds experts\.safetensors, which no start"):
        Run.claim(tmp_path / "run")


@pytest.mark.parametrize("mark", ["", "{}", "[]", '{"program": "other"}', "\0"])
def test_a_mark_of_others_marks_nothing(tmp_path, mark):
    (tmp_path / ".start").write_text(mark)
    with pytest.raises(CheckpointError, match=r"holds \.start, which no start"):
        Run.claim(tmp_path)
    assert (tmp_path / ".start").read_text() == mark


def test_with_the_first_checkpoint_it_is_a_run(corpus, small, tmp_path):
    trainer = Trainer(TinyGPT(small), corpus, QUICK, tmp_path / "run")
    mark = json.loads((tmp_path / "run" / ".start").read_text())
    assert mark["program"] == "tinygpt"
    trainer.fit(progress=False)
    assert not (tmp_path / "run" / ".start").exists()
    for folder in checkpoints(tmp_path / "run"):
        shutil.rmtree(folder)
    with pytest.raises(CheckpointError, match=r"holds best, .*metrics\.csv"):
        Run.claim(tmp_path / "run")


def test_new_names_never_collide(run, monkeypatch, tmp_path):
    monkeypatch.setattr("tinygpt.training.run.RUNS", tmp_path)
    assert Run.fresh("other") == tmp_path / "other"
    assert Run.fresh("run") == tmp_path / "run-2"
    Run.claim("run-2")  # a start that came to nothing
    assert Run.fresh("run") == tmp_path / "run-2"
    with Run(tmp_path / "run-2").writing():  # a start that is being made
        assert Run.fresh("run") == tmp_path / "run-3"
    (tmp_path / "run-2" / "notes.txt").write_text("")
    export_run("run", "run-3")
    (tmp_path / "run-4").write_text("")
    assert Run.fresh("run") == tmp_path / "run-5"
    assert not (tmp_path / "run-5").exists()


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "~nobody-of-this-name/x", "", ".", ".."])
def test_odd_names_are_one_clear_error(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tinygpt.training.run.RUNS", tmp_path / "runs")
    with pytest.raises(CheckpointError):
        Run.open(name)
    (tmp_path / "content").mkdir()
    if "nobody" not in name:
        with pytest.raises(CheckpointError):
            Run.claim(name)


@pytest.mark.skipif(sys.platform != "linux", reason="file names are text there")
def test_a_name_from_which_no_weights_can_be_read_is_refused_before_anything_is_made(
    run, corpus, small, tmp_path
):
    odd = tmp_path / os.fsdecode(b"run caf\xe9")
    for make in (
        lambda: Trainer(TinyGPT(small), corpus, QUICK, odd / "below"),
        lambda: export_run(run, odd),
    ):
        with pytest.raises(CheckpointError, match=r"run caf\\udce9.*is not UTF-8.*--out"):
            make()
    assert not odd.exists()


# --- one writer at a time ---

WRITER = """
    import sys
    from pathlib import Path
    from tinygpt.training import Run
    with Run(Path(sys.argv[1])).writing():
        print("writing", flush=True)
        sys.stdin.read()
"""


def writer(folder):
    """Another process that writes into a run."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITER), str(folder)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"writing\n"
    return process


def test_beside_a_writer_one_may_only_read(run, corpus, small, tmp_path):
    Run.claim(tmp_path / "start")
    before = content(run)
    for folder in (run, tmp_path / "start"):
        with writer(folder) as process:
            wanted = f"is in use by process {process.pid} .*--out"
            if folder == run:
                load_run(folder)
                with pytest.raises(CheckpointError, match=wanted):
                    Trainer.resume(folder, corpus)
            else:
                with pytest.raises(CheckpointError, match=wanted):
                    Trainer(TinyGPT(small), corpus, QUICK, folder)
            process.kill()
        assert content(run) == before
    assert Trainer.resume(run, corpus).step == 30  # the lock died with its process


def test_a_trainer_that_is_overtaken_says_so(corpus, small, tmp_path):
    """Two are made, one of them trains: the other must not go on from a past of its own."""
    config = replace(QUICK, max_steps=20)
    first, second = (Trainer(TinyGPT(small), corpus, config, tmp_path / "run") for _ in range(2))
    with pytest.raises(CheckpointError, match="another training has been at work"):
        first.fit(progress=False)
    second.fit(progress=False)
    longer = replace(config, max_steps=30)
    first, second = (Trainer.resume(tmp_path / "run", corpus, longer) for _ in range(2))
    first.fit(progress=False)
    before = content(tmp_path / "run")
    with pytest.raises(CheckpointError, match="another training.*Trainer.resume takes up"):
        second.fit(progress=False)
    assert content(tmp_path / "run") == before
    first.fit(progress=False)  # there is nothing left to do


def test_of_two_threads_that_train_in_one_folder_one_does(corpus, small, tmp_path):
    config, meet = replace(QUICK, max_steps=20), Barrier(2)
    Trainer(TinyGPT(small), corpus, replace(config, max_steps=1), tmp_path / "run").fit(False)
    trainers = [Trainer.resume(tmp_path / "run", corpus, config) for _ in range(2)]

    def train(trainer):
        meet.wait(20)
        try:
            trainer.fit(progress=False)
            return "done"
        except CheckpointError as error:
            return str(error)

    with ThreadPoolExecutor(2) as pool:
        said = sorted(pool.map(train, trainers), key=len)
    assert said[0] == "done"
    assert "in use by" in said[1] or "another training" in said[1]
    names = [p.name for p in checkpoints(tmp_path / "run")]
    assert names[-2:] == ["step_0000010", "step_0000020"]


def test_a_folder_that_cannot_be_locked_or_written(run, corpus, monkeypatch, tmp_path):
    def acquire(lock, timeout):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("tinygpt.files.FileLock.acquire", acquire)
    for attempt in (lambda: Trainer.resume(run, corpus), lambda: Run.claim(tmp_path / "new")):
        with pytest.raises(CheckpointError, match="cannot write to .*Read-only file system.*--out"):
            attempt()
    load_run(run)


# --- step folders ---


def test_steps_are_sorted_by_number(run):
    for step in (9_999_999, 10_000_000, 123):
        shutil.copytree(run / "step_0000030", Run(run).step_folder(step))
    for other in ("step_30", "step_00000030", "step_0000030 copy", "step_x", "step_-000001"):
        shutil.copytree(run / "step_0000030", run / other)
    names = [p.name for p in checkpoints(run)]
    assert names == [
        *("step_0000020", "step_0000030", "step_0000123", "step_9999999", "step_10000000")
    ]
    Run(run).forget_after(30)
    assert [p.name for p in checkpoints(run)] == ["step_0000020", "step_0000030"]
    assert (run / "step_30").exists()  # not ours


def test_what_somebody_put_beside_a_checkpoint_is_kept(run):
    (run / "step_0000030" / "notes.txt").write_text("good one")
    Run(run).forget_after(20)
    assert [p.name for p in checkpoints(run)] == ["step_0000020"]
    assert os.listdir(run / "step_0000030") == ["notes.txt"]


@pytest.mark.parametrize("lost", ["manifest.json", "everything"])
def test_a_half_written_step_is_made_again(corpus, small, tmp_path, lost):
    trainer = Trainer(TinyGPT(small), corpus, QUICK, tmp_path / "run")
    half = tmp_path / "run" / "step_0000010"
    evaluate = trainer._evaluate

    def with_a_half_step_there(*args, **options):
        if trainer.step == 10:
            half.mkdir()
            if lost == "manifest.json":
                (half / "model.safetensors").write_bytes(b"half")
        evaluate(*args, **options)
        if trainer.step == 10:
            assert (half / "manifest.json").exists()
            load_run(tmp_path / "run", which="latest")

    trainer._evaluate = with_a_half_step_there
    trainer.fit(progress=False)


def test_tables_that_are_none(corpus, small, tmp_path):
    model = TinyGPT(replace(small, moe=MoEConfig()))
    Trainer(model, corpus, replace(QUICK, max_steps=10), tmp_path / "run").fit(progress=False)
    path = tmp_path / "run" / "experts.safetensors"
    shutil.copy(tmp_path / "run" / "step_0000010" / "model.safetensors", path)
    with pytest.raises(CheckpointError, match="holds other tensors than tables"):
        load_expert_tables(tmp_path / "run")
    path.write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"experts\.safetensors cannot be read"):
        load_expert_tables(tmp_path / "run")
