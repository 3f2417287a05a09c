import errno
import io
import json
import math
import os
import signal
import subprocess
import sys
import threading
from contextlib import nullcontext
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from safetensors.torch import load_file, save_file

from tinygpt import (
    PRESETS,
    MetricsLogger,
    MoEConfig,
    TinyGPT,
    TrainConfig,
    Trainer,
    load_corpus,
    load_run,
)
from tinygpt.corpora import Corpus, get_batch
from tinygpt.errors import (
    CheckpointError,
    ConfigError,
    NonFiniteError,
    TinyGPTError,
    UnknownCharacterError,
)
from tinygpt.files import ROOT
from tinygpt.measure import evaluate
from tinygpt.text import Tokenizer
from tinygpt.training import checkpoints, find_run, latest_checkpoint, load_checkpoint, lr_factor
from tinygpt.training.manifest import write_manifest
from tinygpt.training.preflight import is_small

from ..tools import CHANCE, QUICK, byte_tokenizer, interrupt_after, subword_tokenizer


def model_for(corpus, small, **changes):
    torch.manual_seed(0)
    return TinyGPT(replace(small, **changes))


def trained(corpus, small, config=QUICK, out_dir=None, **changes):
    trainer = Trainer(model_for(corpus, small, **changes), corpus, config, out_dir)
    trainer.fit(progress=False)
    return trainer


def same_weights(a, b):
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_it_learns_and_logs_every_evaluation(corpus, small):
    trainer = trained(corpus, small, replace(QUICK, max_steps=150, lr=1e-2, eval_interval=50))
    frame = trainer.metrics.frame()
    assert list(frame["step"]) == [0, 50, 100, 150]
    assert frame["val_lm_loss"][0] == pytest.approx(math.log(small.vocab_size), abs=0.1)
    assert frame["val_lm_loss"].iloc[-1] < 1.5
    assert frame["epoch"].iloc[-1] == pytest.approx(150 * 4 * 16 / len(corpus.train))
    assert (frame["tokens_per_s"][1:] > 0).all()
    assert frame["seconds"].is_monotonic_increasing
    assert not trainer.model.training


def test_the_same_seed_gives_the_same_run(corpus, small):
    first, second = (trained(corpus, small, dropout=0.1) for _ in range(2))
    assert same_weights(first.model, second.model)
    other = trained(corpus, small, replace(QUICK, seed=1), dropout=0.1)
    assert not same_weights(first.model, other.model)


def test_what_is_logged_is_what_was_done(corpus, small):
    config = replace(QUICK, max_steps=20)
    trainer = trained(corpus, small, config)
    frame = trainer.metrics.frame()
    model, val = trainer.model, corpus.val
    assert frame["val_lm_loss"].iloc[-1] == evaluate(model, val)
    assert frame["train_lm_loss"].iloc[-1] == evaluate(model, corpus.train, len(val) - 1)
    rates = [0.0] + [config.lr * lr_factor(step, 20, config) for step in (9, 19)]
    assert frame["lr"].tolist() == pytest.approx(rates)


# --- a part of the splits on the way, the whole validation split at the end ---

PART = replace(QUICK, max_eval_tokens=100)  # of 499: six windows of 16


def test_each_row_is_of_the_same_part_and_says_how_large_it_is(corpus, small):
    trainer = trained(corpus, small, PART)
    frame, model = trainer.metrics.frame(), trainer.model
    assert frame["val_tokens"].tolist() == [96] * 5
    last = frame.iloc[-1]
    assert last["val_lm_loss"] == evaluate(model, corpus.val, 96) != evaluate(model, corpus.val)
    assert last["train_lm_loss"] == evaluate(model, corpus.train, 96)
    assert last["whole_val_lm_loss"] == evaluate(model, corpus.val)
    assert trained(corpus, small).metrics.rows[-1]["val_tokens"] == len(corpus.val) - 1
    assert TrainConfig().max_eval_tokens < 10_000  # an evaluation is short, also the first


def best_before_last(monkeypatch, corpus, small, folder, losses=(3.0, 2.0, 1.0, 1.5, 1.2)):
    """A trainer that was trained, whose losses on a part are these; the whole split's are real."""
    trainer = Trainer(model_for(corpus, small), corpus, PART, folder)
    real, losses = Trainer._loss, iter(losses)

    def scripted(model, tokens, limit):
        asked = tokens is trainer._val and limit
        return next(losses) if asked else real(trainer, model, tokens, limit)

    monkeypatch.setattr(trainer, "_loss", scripted)
    trainer.fit(progress=False)
    return trainer


@pytest.mark.parametrize("long", [True, False])
def test_a_long_end_is_announced(corpus, small, monkeypatch, capsys, long):
    monkeypatch.setattr("tinygpt.training.trainer.LONG", len(corpus.val) - long)
    Trainer(model_for(corpus, small), corpus, replace(QUICK, max_steps=1)).fit(progress=False)
    said = f"measuring on the whole validation split: {len(corpus.val):,} tokens\n"
    assert capsys.readouterr().out.count(said) == long


def test_the_best_and_the_last_weights_are_measured_on_the_whole_split(
    corpus, small, tmp_path, monkeypatch
):
    trainer = best_before_last(monkeypatch, corpus, small, tmp_path / "run")
    best = load_run(tmp_path / "run", device="cpu")
    expected = {20: evaluate(best, corpus.val), 40: evaluate(trainer.model, corpus.val)}
    assert trainer.whole_val_lm_loss == expected
    assert len(set(expected.values())) == 2
    for log in (trainer.metrics, MetricsLogger(tmp_path / "run" / "metrics.csv")):
        whole = log.frame().set_index("step")["whole_val_lm_loss"]
        assert whole.dropna().to_dict() == expected
    assert (trainer.best_step, trainer.best_val_loss) == (20, 1.0)  # of the part
    unsaved = best_before_last(monkeypatch, corpus, small, None)
    assert unsaved.whole_val_lm_loss == {40: expected[40]}


def test_a_longer_run_compares_parts_with_parts(corpus, small, tmp_path):
    first = trained(corpus, small, PART, tmp_path / "run")
    longer = Trainer.resume(tmp_path / "run", corpus, replace(PART, max_steps=60))
    assert longer.best_val_loss == first.best_val_loss != first.whole_val_lm_loss[40]
    longer.fit(progress=False)
    frame = longer.metrics.frame().set_index("step")
    assert longer.best_val_loss == frame["val_lm_loss"].min()
    assert frame["whole_val_lm_loss"][40] == first.whole_val_lm_loss[40]  # still true of step 40
    assert frame["whole_val_lm_loss"][60] == evaluate(longer.model, corpus.val)


@pytest.mark.parametrize("limit", [None, 48])
def test_the_best_loss_is_measured_anew_for_another_part(corpus, small, tmp_path, limit):
    first = trained(corpus, small, PART, tmp_path / "run")
    resumed = Trainer.resume(tmp_path / "run", corpus, replace(PART, max_eval_tokens=limit))
    best = load_run(tmp_path / "run", device="cpu")
    assert resumed.best_val_loss == evaluate(best, corpus.val, limit) != first.best_val_loss
    assert resumed.best_step == first.best_step


def test_without_its_best_weights_a_run_goes_on_with_another_part(
    corpus, small, tmp_path, monkeypatch, capsys
):
    best_before_last(monkeypatch, corpus, small, tmp_path / "run")
    (tmp_path / "run" / "step_0000020" / "model.safetensors").write_bytes(b"")
    config = replace(PART, max_steps=60, max_eval_tokens=48)
    resumed = Trainer.resume(tmp_path / "run", corpus, config)
    assert "the best weights, of step 20, are lost: " in capsys.readouterr().out
    assert resumed.best_val_loss == math.inf
    resumed.fit(progress=False)
    assert resumed.best_step in (50, 60)
    assert resumed.best_val_loss < math.inf


def test_without_its_best_weights_a_finished_run_still_says_its_last_loss(
    corpus, small, tmp_path, monkeypatch, capsys
):
    best_before_last(monkeypatch, corpus, small, tmp_path / "run")
    (tmp_path / "run" / "step_0000020" / "model.safetensors").write_bytes(b"")
    resumed = Trainer.resume(tmp_path / "run", corpus)
    resumed.fit(progress=False)
    assert list(resumed.whole_val_lm_loss) == [40]
    assert "the best weights, of step 20, are lost: " in capsys.readouterr().out


# --- threads ---


@pytest.mark.parametrize("name", [n for n, p in PRESETS.items() if p.tokenizer == "char"])
def test_small_models_train_with_one_thread(name):
    preset = PRESETS[name]
    model = TinyGPT(preset.model)
    assert is_small(model, preset.train) == (not name.startswith(("laptop", "baby")))
    with torch.device("meta"):  # any device but a CPU
        assert not is_small(TinyGPT(preset.model), preset.train)


@pytest.mark.parametrize("small_limit", [3e9, 0])
def test_threads_in_training_and_after_it(corpus, small, monkeypatch, two_threads, small_limit):
    monkeypatch.setattr("tinygpt.training.preflight.SMALL", small_limit)
    trainer = Trainer(model_for(corpus, small), corpus, replace(QUICK, max_steps=2))
    seen = []
    for name in ("train_step", "_evaluate", "_conclude"):
        monkeypatch.setattr(trainer, name, watch_threads(getattr(trainer, name), seen))
    trainer.fit(progress=False)
    assert seen == [1 if small_limit else 2] * 5
    assert torch.get_num_threads() == 2


def watch_threads(function, seen):
    def watched(*args, **options):
        seen.append(torch.get_num_threads())
        return function(*args, **options)

    return watched


def test_one_step_with_clipping_against_the_formula(corpus, small):
    config = replace(QUICK, grad_clip=1e-3, weight_decay=0.0, warmup_steps=0)
    trainer = Trainer(model_for(corpus, small), corpus, config)
    model, generator = model_for(corpus, small), torch.Generator().manual_seed(config.seed)
    model(*get_batch(corpus.train, 4, small.block_size, generator)).loss.backward()
    norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
    trainer.model(corpus.train[None, :8], corpus.train[None, 1:9]).loss.backward()  # left over
    trainer.train_step()
    assert trainer.grad_norm == pytest.approx(norm.item(), rel=1e-4)
    for p, q in zip(model.parameters(), trainer.model.parameters(), strict=True):
        gradient = p.grad * (1e-3 / (norm + 1e-6))
        expected = p - config.lr * gradient / (gradient.abs() + 1e-8)  # AdamW's first step
        torch.testing.assert_close(q.detach(), expected.detach(), atol=1e-6, rtol=1e-4)


def test_autocast_and_compile_are_used_when_asked_for(corpus, small, monkeypatch):
    seen = []
    autocast = torch.autocast
    monkeypatch.setattr(torch, "compile", lambda model: seen.append("compile") or model)
    monkeypatch.setattr(
        torch, "autocast", lambda *a, **k: seen.append(k["dtype"]) or autocast(*a, **k)
    )
    Trainer(model_for(corpus, small), corpus, QUICK).train_step()
    assert seen == []
    config = replace(QUICK, compile=True, precision="bf16")
    Trainer(model_for(corpus, small), corpus, config).train_step()
    assert seen == ["compile", torch.bfloat16]


def test_epochs_count_tokens(corpus, small):
    trainer = Trainer(model_for(corpus, small), corpus, replace(QUICK, epochs=2.0))
    assert trainer.max_steps == math.ceil(2 * len(corpus.train) / (4 * 16))


def test_tokens_are_counted_as_they_were_seen(corpus, small, tmp_path):
    """Also after another batch size: the log's epoch, the summary, and where epochs end."""
    interrupt_after(Trainer(model_for(corpus, small), corpus, QUICK, tmp_path / "run"), 20)
    total, seen = len(corpus.train), [20 * 64, 20 * 64 + 10 * 128]
    config = replace(QUICK, batch_size=8, epochs=(seen[1] + 1) / total)
    trainer = Trainer.resume(tmp_path / "run", corpus, config)
    assert trainer.max_steps == 31
    trainer.fit(progress=False)
    assert list(trainer.metrics.frame()["epoch"][-3:] * total) == pytest.approx(
        [*seen, seen[1] + 128]
    )
    again = Trainer.resume(tmp_path / "run", corpus)
    assert (again.max_steps, again.tokens_seen) == (31, seen[1] + 128)
    told = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert told["updates"] == trainer.best_step > 20
    assert told["tokens"] == 20 * 64 + (trainer.best_step - 20) * 128


def test_accumulated_gradients_equal_the_big_batchs(corpus, small):
    config = replace(QUICK, optimizer="adamw", grad_clip=None, batch_size=4, grad_accum_steps=3)
    trainer = Trainer(model_for(corpus, small), corpus, config)
    trainer.train_step()
    gradients = [p.grad.clone() for p in trainer.model.parameters()]
    assert trainer.tokens_per_step == 3 * 4 * small.block_size

    model, generator = model_for(corpus, small), torch.Generator().manual_seed(config.seed)
    batches = [get_batch(corpus.train, 4, small.block_size, generator) for _ in range(3)]
    x, y = (torch.cat(part) for part in zip(*batches, strict=True))
    model(x, y).loss.backward()
    for ours, big in zip(gradients, model.parameters(), strict=True):
        torch.testing.assert_close(ours, big.grad, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("stop", [0, 1, 13, 20, 37, 40])
def test_stopped_and_resumed_equals_uninterrupted(corpus, small, tmp_path, stop, optimizer):
    config = replace(QUICK, optimizer=optimizer, grad_accum_steps=2, max_eval_tokens=100)
    shape = {"dropout": 0.1, "bigrams": 50, "token_shift": True}
    whole = trained(corpus, small, config, tmp_path / "whole", **shape)

    stopped = Trainer(model_for(corpus, small, **shape), corpus, config, tmp_path / "run")
    interrupt_after(stopped, stop)
    # what a crash between the log and the checkpoint leaves
    row = {"step": stop + 1, "train_lm_loss": 9.0, "val_lm_loss": 9.0}
    MetricsLogger(tmp_path / "run" / "metrics.csv").log(**row)
    (tmp_path / "run" / ".tmp-step_0000099-x").mkdir()
    torch.manual_seed(99)  # whatever came between
    assert not stopped.whole_val_lm_loss
    resumed = Trainer.resume(tmp_path / "run", corpus)
    assert resumed.step == stop
    assert not list((tmp_path / "run").glob(".tmp-*"))
    resumed.fit(progress=False)

    assert same_weights(resumed.model, whole.model)
    for a, b in zip(whole.optimizers, resumed.optimizers, strict=True):
        ours, theirs = a.state_dict()["state"], b.state_dict()["state"]
        assert ours.keys() == theirs.keys()
        for index in ours:
            assert all(torch.equal(ours[index][k], theirs[index][k]) for k in ours[index])
    assert torch.equal(whole.batches.state(), resumed.batches.state())
    expected = whole.metrics.frame().drop(columns=CHANCE)
    assert expected.equals(resumed.metrics.frame().drop(columns=CHANCE))
    assert (whole.best_step, whole.best_val_loss) == (resumed.best_step, resumed.best_val_loss)
    assert whole.whole_val_lm_loss == resumed.whole_val_lm_loss != {}


@pytest.mark.parametrize("log", [None, "step,val_lm_loss\n", "step,val_lm_loss\n0,9.0\n5,1.0\n"])
def test_the_log_does_not_decide_how_a_run_goes_on(corpus, small, tmp_path, log):
    """It may be lost, empty, or of somebody else: the checkpoint has all that counts."""
    whole = trained(corpus, small, dropout=0.1)
    stopped = Trainer(model_for(corpus, small, dropout=0.1), corpus, QUICK, tmp_path / "run")
    interrupt_after(stopped, 13)
    path = tmp_path / "run" / "metrics.csv"
    path.unlink()
    if log is not None:
        path.write_text(log)
    said = pytest.warns(UserWarning, match="is gone") if log is None else nullcontext()
    with said:
        resumed = Trainer.resume(tmp_path / "run", corpus)
    resumed.fit(progress=False)
    assert same_weights(resumed.model, whole.model)
    assert (whole.best_step, whole.best_val_loss) == (resumed.best_step, resumed.best_val_loss)
    assert [row["step"] for row in resumed.metrics.rows if row["step"] > 5] == [20, 30, 40]


def test_a_first_evaluation_that_gives_nan_is_not_made_again(corpus, small, tmp_path, monkeypatch):
    trainer = Trainer(model_for(corpus, small), corpus, QUICK, tmp_path / "run")
    script_losses(monkeypatch, trainer, [math.nan])
    interrupt_after(trainer, 0)
    resumed = Trainer.resume(tmp_path / "run", corpus)
    script_losses(monkeypatch, resumed, [3.0, 2.0, 2.5, 2.2])
    resumed.fit(progress=False)
    assert [row["step"] for row in resumed.metrics.rows] == [0, 10, 20, 30, 40]


@pytest.mark.parametrize("forgotten", ["rng.cpu", "rng.data", "optimizer"])
def test_the_resume_test_can_fail(corpus, small, tmp_path, monkeypatch, forgotten):
    """With any one part of the state not restored, the resumed run differs."""
    whole = trained(corpus, small, dropout=0.1)
    stopped = Trainer(model_for(corpus, small, dropout=0.1), corpus, QUICK, tmp_path / "run")
    interrupt_after(stopped, 13)
    load = load_checkpoint

    def forgetful(folder):
        saved = load(folder)
        if forgotten == "rng.cpu":
            torch.manual_seed(99)
            saved.training["rng.cpu"] = torch.get_rng_state()
        elif forgotten == "rng.data":
            saved.training["rng.data"] = torch.Generator().manual_seed(0).get_state()
        else:
            saved.training = {k: v for k, v in saved.training.items() if "optimizer" not in k}
        return saved

    monkeypatch.setattr("tinygpt.training.run.load_checkpoint", forgetful)
    resumed = Trainer.resume(tmp_path / "run", corpus)
    resumed.fit(progress=False)
    assert not same_weights(resumed.model, whole.model)


def test_ctrl_c_saves_says_how_to_go_on_and_puts_the_handlers_back(corpus, small, tmp_path, capsys):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    trainer = Trainer(model_for(corpus, small), corpus, QUICK, tmp_path / "run")
    interrupt_after(trainer, 7)
    assert checkpoints(tmp_path / "run")[-1].name == "step_0000007"
    assert "stopped after step 7" in (said := capsys.readouterr().out)
    assert "or train --resume " in said
    assert "Trainer.resume" in said
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_second_ctrl_c_acts_at_once(corpus, small):
    trainer = Trainer(model_for(corpus, small), corpus, QUICK)

    def impatient():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("still here")

    trainer.train_step = impatient
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(progress=False)


@pytest.mark.skipif(os.name == "nt", reason="Windows ends a process at once on SIGTERM")
def test_sigterm_saves_and_exits_with_143(corpus, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text(corpus.text, encoding="utf-8", newline="\n")
    flags = "--eval-interval 100000 --max-steps 100000 --n-embd 16 --n-head 2 --batch-size 2"
    where = ["--corpus", f"file:{text}", "--out", str(tmp_path / "run")]
    process = subprocess.Popen(
        [sys.executable, "-m", "tinygpt", "train", *flags.split(), *where],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    seen = b""
    while b"tokens/s" not in seen:  # the progress bar says that training is under way
        seen += (chunk := process.stderr.read1())
        assert chunk, seen.decode()
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 143
    assert b"stopped after step" in said
    assert len(checkpoints(tmp_path / "run")) == 2  # the start, and where it stopped


def test_training_in_another_thread_works(corpus, small):
    trainer = Trainer(model_for(corpus, small), corpus, QUICK)
    thread = threading.Thread(target=trainer.fit, kwargs={"progress": False})
    thread.start()
    thread.join()
    assert trainer.step == 40


@pytest.mark.parametrize("bad", ["weight", "gradient"])
def test_nan_is_caught_before_the_update(corpus, small, tmp_path, bad):
    trainer = Trainer(model_for(corpus, small), corpus, QUICK, tmp_path / "run")
    bias = trainer.model.blocks[0].ffn.c_fc.bias
    before = [p.detach().clone() for p in trainer.model.parameters()]

    def poison(*args):
        if trainer.step == 12:
            before[:] = [p.detach().clone() for p in trainer.model.parameters()]
            if bad == "weight":
                trainer.model.ln_f.bias.data[0] = math.nan
                before[-1][0] = math.nan

    forward = trainer._forward

    def poisoned(x, y):
        poison()
        out = forward(x, y)
        if bad == "gradient" and trainer.step == 12:
            bias.register_hook(lambda g: g * math.inf)
        return out

    trainer._forward = poisoned
    with pytest.raises(NonFiniteError, match=r"at step 12; the update was not made.*lr=0.003"):
        trainer.fit(progress=False)
    for p, q in zip(trainer.model.parameters(), before, strict=True):
        assert torch.equal(p.nan_to_num(), q.nan_to_num())
    assert checkpoints(tmp_path / "run")[-1].name == "step_0000010"


@pytest.mark.parametrize("steps", [10, 17])
def test_a_last_update_that_ruins_the_weights_is_not_saved(corpus, small, tmp_path, steps):
    """Weights of 1e38 are finite, and give no finite loss."""
    config = replace(QUICK, max_steps=steps, warmup_steps=0, grad_clip=None)
    trainer = Trainer(model_for(corpus, small), corpus, config, tmp_path / "run")
    train_step = trainer.train_step

    def last_too_far():
        if trainer.step == steps - 1:
            for group in trainer.optimizers[0].param_groups:
                group["initial_lr"] = 1e38
        return train_step()

    trainer.train_step = last_too_far
    wanted = rf"step {steps}, which was not saved; the last.*step_00000{steps // 11}0. Lower the le"
    with pytest.raises(NonFiniteError, match=wanted):
        trainer.fit(progress=False)
    last = checkpoints(tmp_path / "run")[-1]
    assert last.name == ("step_0000000" if steps == 10 else "step_0000010")
    assert [row["step"] for row in trainer.metrics.rows][-1] == steps  # the log tells it
    resumed = Trainer.resume(tmp_path / "run", corpus)
    resumed.fit(progress=False)
    assert resumed.step == steps
    assert math.isfinite(resumed.metrics.rows[-1]["val_lm_loss"])


def test_ruined_weights_are_not_saved_when_a_run_is_stopped(corpus, small, tmp_path):
    trainer = Trainer(model_for(corpus, small), corpus, QUICK, tmp_path / "run")
    train_step = trainer.train_step

    def ruin_and_stop():
        loss = train_step()
        if trainer.step == 7:
            trainer.model.ln_f.bias.data[0] = math.nan
            signal.raise_signal(signal.SIGINT)
        return loss

    trainer.train_step = ruin_and_stop
    wanted = (
        r"at step 7 weights are NaN.*ln_f.bias; they were not saved; the last checkpoint is .*0000"
    )
    with pytest.raises(NonFiniteError, match=wanted):
        trainer.fit(progress=False)
    assert [p.name for p in checkpoints(tmp_path / "run")] == ["step_0000000"]
    assert not list((tmp_path / "run").glob(".tmp-*"))


# --- what is shown or logged never decides what is saved ---


class Console(io.TextIOWrapper):
    """A console of Windows that knows few characters, or a pipe that nobody reads any more."""

    def __init__(self, broken=False):
        super().__init__(io.BytesIO(), encoding="cp1252", write_through=True)
        self.broken = broken

    def write(self, text):
        if self.broken:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")
        return super().write(text)


@pytest.mark.parametrize("broken", [False, True])
def test_a_console_that_cannot_show_a_sample(small, tmp_path, monkeypatch, broken):
    corpus = bytes_corpus()  # with an emoji
    shape = replace(small, vocab_size=corpus.tokenizer.vocab_size)
    config = replace(QUICK, max_steps=20, sample_tokens=40, sample_prompt="é😀")
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, Console(broken))
    trainer = Trainer(model_for(corpus, shape), corpus, config, tmp_path / "run")
    interrupt_after(trainer, 15, progress=True)
    monkeypatch.undo()
    assert [p.name for p in checkpoints(tmp_path / "run")] == ["step_0000010", "step_0000015"]
    assert [step for step, _ in trainer.samples] == [0, 10]


def test_what_fails_while_a_sample_is_written_comes_after_the_checkpoint(
    corpus, small, tmp_path, monkeypatch
):
    def fail(*args, **options):
        raise MemoryError

    monkeypatch.setattr("tinygpt.training.samples.generate", fail)
    config = replace(QUICK, sample_tokens=5)
    trainer = Trainer(model_for(corpus, small), corpus, config, tmp_path / "run")
    with pytest.raises(MemoryError):
        trainer.fit(progress=False)
    assert [p.name for p in checkpoints(tmp_path / "run")] == ["step_0000000"]


@pytest.mark.parametrize("what", ["log", "tables"])
def test_a_log_that_cannot_be_written_loses_no_checkpoint(corpus, small, tmp_path, what):
    """As on Windows, while a spreadsheet has it open."""
    trainer = moe_trainer(corpus, small, tmp_path / "run")
    owner, name = (trainer.metrics, "log") if what == "log" else (trainer.hooks, "at_evaluation")
    write = getattr(owner, name)

    def refused(*args, **options):
        if trainer.step == 10:
            raise TinyGPTError("could not write it")
        return write(*args, **options)

    setattr(owner, name, refused)
    with pytest.raises(TinyGPTError, match="could not write it"):
        trainer.fit(progress=False)
    assert checkpoints(tmp_path / "run")[-1].name == "step_0000010"
    resumed = Trainer.resume(tmp_path / "run", corpus)
    resumed.fit(progress=False)
    whole = moe_trainer(corpus, small)
    whole.fit(progress=False)
    assert same_weights(resumed.model, whole.model)


def moe_trainer(corpus, small, out_dir=None):
    return Trainer(model_for(corpus, small, moe=MoEConfig()), corpus, QUICK, out_dir)


def test_a_run_that_died_before_its_first_checkpoint_can_be_started_again(corpus, small, tmp_path):
    trainer = Trainer(model_for(corpus, small), corpus, QUICK, tmp_path / "run")
    trainer._save = lambda: None
    trainer.train_step = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError):
        trainer.fit(progress=False)
    assert (tmp_path / "run" / "metrics.csv").exists()
    again = trained(corpus, small, out_dir=tmp_path / "run")
    assert [row["step"] for row in again.metrics.rows] == [0, 10, 20, 30, 40]


def test_a_damaged_newer_checkpoint_is_made_again(corpus, small, tmp_path):
    trained(corpus, small, out_dir=tmp_path / "run")
    (tmp_path / "run" / "step_0000040" / "model.safetensors").write_bytes(b"")
    with pytest.warns(match="damaged"):
        resumed = Trainer.resume(tmp_path / "run", corpus)
    assert resumed.step == 30
    resumed.fit(progress=False)
    assert latest_checkpoint(tmp_path / "run").name == "step_0000040"


def test_patience_goes_on_counting_after_a_resume(corpus, small, tmp_path, monkeypatch):
    config = replace(QUICK, max_steps=2000, patience=3)
    trainer = Trainer(model_for(corpus, small), corpus, config, tmp_path / "run")
    script_losses(monkeypatch, trainer, [3.0, 1.0, 2.0, 2.0])
    interrupt_after(trainer, 35)
    resumed = Trainer.resume(tmp_path / "run", corpus)
    assert resumed.bad_evaluations == 2
    assert resumed.seconds >= trainer.seconds > 0
    script_losses(monkeypatch, resumed, [2.0, 0.0])
    resumed.fit(progress=False)
    assert (resumed.step, resumed.best_step) == (40, 10)


def script_losses(monkeypatch, trainer, losses):
    """Let the evaluations on a part of the validation split give these losses."""
    losses = iter(losses)
    monkeypatch.setattr(
        "tinygpt.training.trainer.evaluate",
        lambda model, tokens, limit, precision, ranks: (
            next(losses) if tokens is trainer._val and limit else 2.0
        ),
    )


def test_early_stopping(corpus, small, monkeypatch):
    config = replace(QUICK, max_steps=2000, patience=2, lr=1e-6, schedule="constant")
    trainer = Trainer(model_for(corpus, small), corpus, config)
    script_losses(monkeypatch, trainer, [3.0, 2.0, 1.0, 1.5, 1.2, 0.1])
    trainer.fit(progress=False)
    assert (trainer.step, trainer.best_step, trainer.best_val_loss) == (40, 20, 1.0)


def test_old_checkpoints_go_the_best_stays(corpus, small, tmp_path, monkeypatch):
    trainer = Trainer(
        model_for(corpus, small), corpus, replace(QUICK, max_steps=60), tmp_path / "run"
    )
    script_losses(monkeypatch, trainer, [3.0, 2.0, 1.0, 1.5, 1.2, 1.1, 1.3])
    trainer.fit(progress=False)
    kept = [int(p.name[5:]) for p in checkpoints(tmp_path / "run")]
    assert kept == [20, 50, 60]  # the best, and the last two


def test_an_untrained_model_can_be_the_best(corpus, small, tmp_path):
    trained(corpus, small, replace(QUICK, lr=5.0, grad_clip=None), tmp_path / "run")
    model, start = load_run(tmp_path / "run", device="cpu"), model_for(corpus, small)
    assert same_weights(model, start)


def test_a_nan_is_never_the_best(corpus, small, monkeypatch):
    trainer = Trainer(model_for(corpus, small), corpus, QUICK)
    script_losses(monkeypatch, trainer, [3.0, math.nan, 2.0, math.nan, 2.5])
    trainer.fit(progress=False)
    assert (trainer.best_step, trainer.best_val_loss) == (20, 2.0)


def test_a_run_can_be_made_longer(corpus, small, tmp_path):
    trained(corpus, small, out_dir=tmp_path / "run")
    longer = Trainer.resume(tmp_path / "run", corpus, replace(QUICK, max_steps=60))
    longer.fit(progress=False)
    assert list(longer.metrics.frame()["step"]) == [0, 10, 20, 30, 40, 50, 60]


README = {"cosine": 0.1, "wsd": 0.0, "constant": 1.0}  # schedules, and where they end


@pytest.mark.parametrize("schedule", README)
def test_a_longer_run_goes_on_without_a_jump_and_says_how(
    corpus, small, tmp_path, capsys, schedule
):
    config = replace(QUICK, schedule=schedule, min_lr_ratio=README[schedule], warmup_steps=10)
    trained(corpus, small, config, tmp_path / "run")
    capsys.readouterr()
    longer = Trainer.resume(tmp_path / "run", corpus, replace(config, max_steps=140))
    said = capsys.readouterr().out
    assert said.startswith("from step 40 on: max_steps 40 -> 140; ")
    assert said.count("\n") == 1
    rates = []
    train_step = longer.train_step

    def watched():
        loss = train_step()
        rates.append(longer.optimizers[0].param_groups[0]["lr"] / config.lr)
        return loss

    longer.train_step = watched
    interrupt_after(longer, 77)
    assert Trainer.resume(tmp_path / "run", corpus).max_steps == 140
    assert capsys.readouterr().out.count("\n") == 1  # that it stopped; nothing has changed since
    resumed = Trainer.resume(tmp_path / "run", corpus)
    longer.train_step, resumed.train_step = train_step, resumed.train_step
    for trainer in (longer, resumed):
        while trainer.step < 140:
            trainer.train_step()
    assert same_weights(longer.model, resumed.model)
    assert rates[0] == pytest.approx(README[schedule], abs=0.11)
    assert max(b - a for a, b in pairwise(rates)) < 0.11
    assert max(rates) == pytest.approx(1.0, abs=0.02)


def test_a_stopped_run_of_constant_rate_may_be_longer_as_if_from_the_start(corpus, small, tmp_path):
    config = replace(QUICK, schedule="wsd")
    whole = trained(corpus, small, replace(config, max_steps=60))
    stopped = Trainer(model_for(corpus, small), corpus, config, tmp_path / "run")
    interrupt_after(stopped, 12)
    longer = Trainer.resume(tmp_path / "run", corpus, replace(config, max_steps=60))
    longer.fit(progress=False)
    assert same_weights(longer.model, whole.model)


def test_what_is_resumed_with_other_settings_says_so(corpus, small, tmp_path, capsys):
    trained(corpus, small, out_dir=tmp_path / "run")
    capsys.readouterr()
    other = replace(QUICK, max_steps=60, lr=1e-4, schedule="constant", batch_size=8)
    Trainer.resume(tmp_path / "run", corpus, other)
    assert capsys.readouterr().out == (
        "from step 40 on: max_steps 40 -> 60, batch_size 4 -> 8, lr 0.003 -> 0.0001, "
        "schedule cosine -> constant; the learning rate goes on by the new schedule, from 0.102 of "
        "its peak\n"
    )
    Trainer.resume(tmp_path / "run", corpus, QUICK)
    assert "step 40 is the last of the run; a larger max_steps" in capsys.readouterr().out
    Trainer.resume(tmp_path / "run", corpus, replace(QUICK, max_steps=20))
    assert "max_steps 40 -> 20; nothing is left to do" in capsys.readouterr().out


def test_an_older_checkpoint_has_one_round_over_all_updates(corpus, small, tmp_path):
    stopped = Trainer(model_for(corpus, small), corpus, QUICK, tmp_path / "run")
    interrupt_after(stopped, 13)
    folder = latest_checkpoint(tmp_path / "run")
    state = json.loads((folder / "state.json").read_text())
    assert (state.pop("max_steps"), state.pop("rounds")) == (40, [[0, 40, 0.0, 1.0, 5, 0.6]])
    assert state.pop("tokens_seen") == 13 * 64
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "manifest.json").unlink()
    write_manifest(folder)
    resumed = Trainer.resume(tmp_path / "run", corpus, replace(QUICK, batch_size=8))
    assert resumed.tokens_seen == 13 * 64
    resumed = Trainer.resume(tmp_path / "run", corpus)
    resumed.fit(progress=False)
    assert same_weights(resumed.model, trained(corpus, small).model)


BROKEN = [
    ("state.json", lambda c: c.update(rounds=[[1]]), "rounds .* are none"),
    ("config.json", lambda c: c.update(train=[]), "nobody can go on with .*is read from a dict"),
    ("config.json", lambda c: c["train"].update(lr="x"), "nobody can go on with .*lr='x'"),
    ("config.json", lambda c: c.pop("train"), "nobody can go on with"),
    ("config.json", lambda c: c.update(corpus=3), "corpus=3 names no corpus"),
    ("config.json", lambda c: c["corpus"].update(name=[]), "names no corpus"),
    ("config.json", lambda c: c["corpus"].pop("sha256"), "trained on another text"),
]


@pytest.mark.parametrize(("name", "change", "words"), BROKEN)
def test_a_checkpoint_that_says_nonsense_of_its_training(corpus, run, name, change, words):
    before = sorted(p.name for p in run.iterdir())
    for folder in checkpoints(run):
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))
        (folder / "manifest.json").unlink()
        write_manifest(folder)
    with pytest.raises(CheckpointError, match=words):
        Trainer.resume(run, corpus)
    assert sorted(p.name for p in run.iterdir()) == before


@pytest.mark.parametrize("change", ["rng.data", "rng.cpu", "rng.cpu dtype", "averages", "names"])
def test_a_training_state_of_another_hand(corpus, run, change):
    path = latest_checkpoint(run) / "training.safetensors"
    tensors = load_file(path)
    if change.startswith("rng"):
        name, *other = change.split()
        tensors[name] = tensors[name].float() if other else tensors[name][:7].clone()
    elif change == "averages":
        del tensors["optimizer.0.3.exp_avg"]
    else:
        tensors["optimizer.0.x.exp_avg"] = tensors["optimizer.0.3.exp_avg"].clone()
    path.unlink()
    save_file(tensors, path)
    (path.parent / "manifest.json").unlink()
    write_manifest(path.parent)
    with pytest.raises(CheckpointError, match="cannot be put back|does not fit"):
        Trainer.resume(run, corpus)


def test_samples_do_not_disturb_training(corpus, small, capsys):
    plain = trained(corpus, small, dropout=0.1)
    config = replace(QUICK, sample_tokens=20, sample_prompt="the")
    talking = trained(corpus, small, config, dropout=0.1)
    assert same_weights(plain.model, talking.model)
    assert [step for step, _ in talking.samples] == [0, 10, 20, 30, 40]
    assert all(len(text) == 23 and text.startswith("the") for _, text in talking.samples)


def test_the_corpus_is_found_again_by_name(corpus, small, tmp_path):
    trained(corpus, small, out_dir=tmp_path / "run")
    assert Trainer.resume(tmp_path / "run").corpus.text == corpus.text


def test_what_does_not_fit_is_refused_at_once(corpus, small, tmp_path):
    model = model_for(corpus, small)
    wrong = TinyGPT(replace(small, vocab_size=small.vocab_size + 1))
    with pytest.raises(ConfigError, match=r"vocab_size=\d+, but the corpus .* has \d+ symbols"):
        Trainer(wrong, corpus)
    long = TinyGPT(replace(small, block_size=2000))
    with pytest.raises(ConfigError, match="validation split has 500 tokens"):
        Trainer(long, corpus)
    with pytest.raises(UnknownCharacterError, match="'Ω'"):
        Trainer(model, corpus, TrainConfig(sample_prompt="Ω", sample_tokens=9))
    with pytest.raises(ConfigError, match="device='tpu'"):
        Trainer(model, corpus, TrainConfig(device="tpu"))
    trained(corpus, small, out_dir=tmp_path / "run")
    with pytest.raises(CheckpointError, match="already holds a run"):
        Trainer(model, corpus, QUICK, tmp_path / "run")


def test_resume_with_another_text_is_refused(corpus, small, tmp_path):
    trained(corpus, small, out_dir=tmp_path / "run")
    text = tmp_path / "other.txt"
    text.write_text(corpus.text[::-1], encoding="utf-8", newline="\n")
    with pytest.raises(CheckpointError, match="was trained on another text"):
        Trainer.resume(tmp_path / "run", load_corpus(f"file:{text}"))
    moved = tmp_path / "moved.txt"  # the same text under another name is the same
    moved.write_text(corpus.text, encoding="utf-8", newline="\n")
    assert Trainer.resume(tmp_path / "run", load_corpus(f"file:{moved}")).step == 40


def test_resume_with_another_optimizer_is_refused(corpus, small, tmp_path):
    trained(corpus, small, out_dir=tmp_path / "run")
    with pytest.raises(CheckpointError, match="was trained with adamw"):
        Trainer.resume(tmp_path / "run", corpus, replace(QUICK, optimizer="muon"))


def bytes_corpus(tokenizer: Tokenizer | None = None) -> Corpus:
    """A corpus whose tokens are several characters, or part of one."""
    tokenizer, text = tokenizer or byte_tokenizer(), "the cat sat. é😀\nthe cat sat.\n\n" * 60
    tokens = torch.from_numpy(tokenizer.encode_array(text)).long()
    cut = 8 * len(tokens) // 10
    parts = {"train": tokens[:cut], "val": tokens[cut:], "test": None}
    return Corpus("bytes", tokenizer, **parts, source="a test", read=lambda: text)


@pytest.mark.parametrize("tokenizer", [byte_tokenizer(), subword_tokenizer()])
def test_any_tokenizer_can_be_trained_with(small, tmp_path, tokenizer):
    corpus = bytes_corpus(tokenizer)
    shape = replace(small, vocab_size=corpus.tokenizer.vocab_size)
    trainer = trained(corpus, shape, replace(QUICK, lr=1e-2), tmp_path / "run")
    val, row = corpus.tokenizer.decode(corpus.val), trainer.metrics.rows[-1]
    assert len(val) > 1.2 * len(corpus.val)
    total = row["val_lm_loss"] * len(corpus.val)  # nats
    assert row["val_bits_per_char"] == pytest.approx(total / len(val) / math.log(2))
    assert row["val_perplexity"] == pytest.approx(math.exp(row["val_lm_loss"]))
    loaded = load_run(tmp_path / "run", device="cpu")
    assert loaded.tokenizer == corpus.tokenizer
    resumed = Trainer.resume(tmp_path / "run", corpus, replace(QUICK, lr=1e-2, max_steps=50))
    resumed.fit(progress=False)
    assert resumed.step == 50


def test_a_sample_is_written_with_the_corpus_tokenizer(small, capsys):
    corpus = bytes_corpus()
    shape = replace(small, vocab_size=corpus.tokenizer.vocab_size)
    config = replace(QUICK, max_steps=1, sample_tokens=5, sample_prompt="the cat")
    trainer = trained(corpus, shape, config)
    assert all(text.startswith("the cat") for _, text in trainer.samples)
    with pytest.raises(ValueError, match="empty"):  # how this tokenizer says that it has no z
        Trainer(TinyGPT(shape), corpus, replace(config, sample_prompt="zebra"))


def test_what_the_log_says_of_characters_is_their_bits(corpus, small):
    """For a character tokenizer, the loss in another unit."""
    row = trained(corpus, small, replace(QUICK, max_steps=1)).metrics.rows[-1]
    assert row["val_bits_per_char"] == pytest.approx(row["val_lm_loss"] / math.log(2))


def test_a_text_without_line_ends_can_be_trained_on(tmp_path, small):
    text = tmp_path / "one_line.txt"
    text.write_text("abcdefgh " * 200, encoding="utf-8")
    corpus = load_corpus(f"file:{text}")
    trained(corpus, replace(small, vocab_size=corpus.tokenizer.vocab_size))


def test_a_bare_name_is_a_run_and_another_path_starts_here(corpus, small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tinygpt.training.run.RUNS", tmp_path / "repository" / "checkpoints")
    for given, folder in {"mine": "repository/checkpoints/mine", "./mine": "mine"}.items():
        trained(corpus, small, out_dir=given)
        assert checkpoints(tmp_path / folder)
        assert find_run(given) == tmp_path / folder


def test_a_folder_that_cannot_be_made_is_refused_at_once(corpus, small, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot write to"):
        Trainer(model_for(corpus, small), corpus, QUICK, tmp_path / "file" / "run")


def test_bf16_autocast_trains_on_a_cpu_too(corpus, small):
    trainer = trained(corpus, small, replace(QUICK, precision="bf16", lr=1e-2))
    assert trainer.metrics.rows[-1]["val_lm_loss"] < 2.5
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}


@pytest.mark.cuda
def test_cuda_trains_in_bf16(corpus, small, tmp_path):
    trainer = trained(corpus, small, replace(QUICK, lr=1e-2), tmp_path / "run")
    assert trainer._train.is_cuda
    assert trainer.metrics.rows[-1]["val_lm_loss"] < 2.5
    assert trainer.metrics.rows[-1]["peak_gpu_gb"] > 0
    resumed = Trainer.resume(tmp_path / "run", corpus, replace(QUICK, lr=1e-2, max_steps=50))
    resumed.fit(progress=False)


@pytest.mark.cuda
def test_cuda_compiled(corpus, small):
    trainer = trained(corpus, small, replace(QUICK, compile=True, lr=1e-2))
    assert trainer.metrics.rows[-1]["val_lm_loss"] < 2.5
