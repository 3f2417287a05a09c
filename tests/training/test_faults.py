"""Kills, flipped bits, two trainers: what must not cost a run. Slow, but for the last."""

import os
import random
import re
import subprocess
import sys
import textwrap
import time

import pytest
import torch

from tinygpt import load_run
from tinygpt.errors import CheckpointError
from tinygpt.files import ROOT
from tinygpt.training import checkpoints, load_checkpoint, verify

unix = pytest.mark.skipif(os.name == "nt", reason="Windows has neither SIGKILL nor fork")


@unix
@pytest.mark.full
def test_killed_before_every_file_operation_nothing_is_lost_and_nothing_left(tmp_path):
    command = [sys.executable, "-m", "tests.training.kills", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    points = re.search(r"killed at (\d+) points", done.stdout)
    assert int(points[1]) > 150


FILES = (
    *("config.json", "model.safetensors", "tokenizer.json", "training.safetensors", "state.json"),
    "manifest.json",
)


@pytest.mark.full
@pytest.mark.parametrize("name", FILES)
def test_flipped_bits_and_truncations_are_found_and_the_older_checkpoint_taken(run, name):
    newest, chance = run / "step_0000030", random.Random(0)
    path, older = newest / name, load_checkpoint(run / "step_0000020").model.wte.weight
    content = path.read_bytes()
    bits = chance.sample(range(8 * len(content)), 200)
    bits += range(8 * len(content) - 8, 8 * len(content))  # the last byte, a newline in most
    cuts = {*chance.sample(range(len(content)), min(200, len(content))), 0, len(content) - 1}
    damaged = [content[:cut] for cut in cuts] + [flipped(content, bit) for bit in bits]
    for number, other in enumerate(damaged):
        path.write_bytes(other)
        with pytest.raises(CheckpointError, match=re.escape(name)):
            verify(newest)
        if number % 3 == 0:
            with pytest.warns(match=f"passing over a damaged checkpoint: .*step_0000030.*{name}"):
                assert torch.equal(load_run(run, which="latest").wte.weight, older)
    path.write_bytes(content)
    assert not torch.equal(load_run(run, which="latest").wte.weight, older)


def flipped(content, bit):
    other = bytearray(content)
    other[bit // 8] ^= 1 << bit % 8
    return bytes(other)


TRAIN = """
    import sys, torch
    from tinygpt import ModelConfig, TinyGPT, TrainConfig, Trainer, load_corpus
    from tinygpt.errors import CheckpointError
    torch.set_num_threads(1)
    what, text, folder = sys.argv[1:]
    corpus = load_corpus(f"file:{text}")
    config = TrainConfig(max_steps=60, eval_interval=5, batch_size=2, max_eval_tokens=64)
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        if what == "new":
            shape = ModelConfig(corpus.tokenizer.vocab_size, 8, 1, 1, 8)
            trainer = Trainer(TinyGPT(shape), corpus, config, folder)
        else:
            trainer = Trainer.resume(folder, corpus)
        trainer.fit(progress=False)
        print("done")
    except CheckpointError as error:
        print("refused:", error)
"""


def trainers(what, text, folder, count):
    """Processes that train in one folder as soon as they get a line."""
    command = [sys.executable, "-c", textwrap.dedent(TRAIN), what, str(text), str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    started = [subprocess.Popen(command, cwd=ROOT, text=True, **pipes) for _ in range(count)]
    for process in started:
        assert process.stdout.readline() == "ready\n"
    return started


@pytest.mark.full
def test_of_trainers_in_one_folder_one_trains_and_the_others_say_so(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat\n" * 20, encoding="utf-8")
    for number in range(2):
        folder = tmp_path / str(number)
        started = trainers("new", text, folder, 2)
        for process in started:
            process.stdin.write("\n")
            process.stdin.flush()
        said = sorted(process.communicate(timeout=60)[0] for process in started)
        assert said[0] == "done\n"
        assert all(re.search("in use by|another training|already", s) for s in said[1:])
        assert [p.name for p in checkpoints(folder)][-1] == "step_0000060"
        rows = (folder / "metrics.csv").read_text().splitlines()
        assert [int(row.split(",")[0]) for row in rows[1:]] == list(range(0, 61, 5))
        assert not list(folder.glob(".tmp-*"))


@pytest.mark.full
def test_a_resume_beside_a_running_training_is_refused_and_does_no_harm(tmp_path):
    text, folder = tmp_path / "text.txt", tmp_path / "run"
    text.write_text("the cat sat on the mat\n" * 20, encoding="utf-8")
    (training,) = trainers("new", text, folder, 1)
    others = trainers("resume", text, folder, 2)
    training.stdin.write("\n")
    training.stdin.flush()
    while not checkpoints(folder):
        time.sleep(0.01)
    said = [process.communicate("\n", timeout=60)[0] for process in others]
    assert training.communicate(timeout=60)[0] == "done\n"
    for each in said:  # that of the training, but for one that came when it was done
        assert re.search(r"is in use by|another training|is the last of the run", each)
    assert [p.name for p in checkpoints(folder)][-1] == "step_0000060"


@pytest.mark.filterwarnings("ignore:passing over")
@pytest.mark.parametrize("name", FILES)
def test_a_line_of_50_megabytes(run, name):
    line = b'{"files": {"' + b"x" * 50_000_000 + b'": "'
    (run / "step_0000030" / name).write_bytes(line)
    start = time.perf_counter()
    with pytest.raises(CheckpointError, match=name):
        verify(run / "step_0000030")
    load_run(run, which="latest")
    assert time.perf_counter() - start < 60  # not for ever
