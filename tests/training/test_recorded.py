import math
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch

from tinygpt import MoEConfig, TinyGPT, Trainer
from tinygpt.corpora import Batches
from tinygpt.errors import NonFiniteError
from tinygpt.training import load_checkpoint
from tinygpt.training.recorded import WARM_UP, RecordedUpdate, can_record

from ..tools import QUICK, ampere


class WithoutGPU(RecordedUpdate):
    """Replays do the update again, with what lies where the recording has its batches."""

    recordings = 0

    def _warm_up(self):
        return self.update(self.batches)

    def _record(self):
        self.recordings += 1
        batches, numbers = self.batches, torch.zeros(2)
        return SimpleNamespace(replay=lambda: numbers.copy_(self.update(batches))), numbers

    def _send(self, numbers):
        self.sent.append(numbers.tolist())

    def _receive(self):
        return self.sent.popleft()


def late(trainer):
    trainer.recorded = WithoutGPU(trainer._update)
    return trainer


def trainer_for(corpus, config, training, folder=None):
    torch.manual_seed(0)
    return Trainer(TinyGPT(config), corpus, training, folder)


def test_a_cpu_records_nothing(corpus, small):
    assert not can_record(TinyGPT(small), "bf16")
    assert trainer_for(corpus, small, QUICK).recorded is None


def test_numbers_that_come_late_are_those_of_the_update_before(corpus, small):
    plain, recorded = (trainer_for(corpus, small, QUICK) for _ in range(2))
    losses = [plain.train_step() for _ in range(5)]
    late(recorded)
    assert math.isnan(recorded.train_step())
    assert [recorded.train_step() for _ in range(4)] == losses[:4]
    recorded._settle()
    assert recorded.loss == losses[4]
    assert recorded.grad_norm == plain.grad_norm


def test_numbers_are_looked_at_before_anything_is_measured_or_saved(corpus, small, tmp_path):
    trainer = late(trainer_for(corpus, small, QUICK, tmp_path / "run"))
    trainer.fit(progress=False)
    for step, norm in [(row["step"], row["grad_norm"]) for row in trainer.metrics.rows[1:]]:
        plain = trainer_for(corpus, small, QUICK)
        plain.metrics, plain.max_steps = trainer.metrics.__class__(), step
        for _ in range(step):
            plain.train_step()
        assert plain.grad_norm == norm


def test_a_loss_that_comes_late_and_is_nan_is_not_saved(corpus, small, tmp_path):
    """Also that of the last update before an evaluation."""
    trainer = late(trainer_for(corpus, small, QUICK, tmp_path / "run"))
    update, bad = trainer.recorded.update, 2 * QUICK.eval_interval

    def ruinous(batches):
        if trainer.step == bad - 1:
            trainer.model.ln_f.weight.data.fill_(math.nan)
        return update(batches)

    trainer.recorded.update = ruinous
    words = f"at step {bad - 1}; nothing was saved of it; the last checkpoint is"
    with pytest.raises(NonFiniteError, match=words):
        trainer.fit(progress=False)
    steps = [int(path.name.split("_")[-1]) for path in trainer.run.checkpoints()]
    assert max(steps) == QUICK.eval_interval
    for path in trainer.run.checkpoints():
        assert all(p.isfinite().all() for p in load_checkpoint(path).model.parameters())


def test_batches_of_another_shape_are_recorded_anew(corpus, small):
    """A single window, copied to where several lay, would quietly stand for each of them."""
    plain, recorded = (trainer_for(corpus, small, QUICK) for _ in range(2))
    late(recorded)
    for windows in (4, 1, 2):
        for trainer in (plain, recorded):
            trainer.batches = Batches(trainer._train, windows, small.block_size, seed=windows)
        losses = [plain.train_step() for _ in range(6)]
        found = [recorded.train_step() for _ in range(6)]
        assert found[1:] == losses[:-1]
        recorded._settle()
        assert recorded.loss == losses[-1]
    assert recorded.recorded.recordings == 3


def test_a_recording_that_was_broken_off_is_made_anew(corpus, small, monkeypatch):
    trainer = late(trainer_for(corpus, small, QUICK))
    for _ in range(3):
        trainer.train_step()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        # not by a signal: a shell starts what runs in the background deaf to Ctrl-C
        patch.setattr(WithoutGPU, "_record", Mock(side_effect=KeyboardInterrupt))
        trainer.train_step()
    trainer.train_step()
    assert trainer.recorded.recordings == 1


@pytest.mark.parametrize("ruined", [False, True])
def test_after_a_training_its_memory_is_given_back(corpus, small, ruined):
    trainer = late(trainer_for(corpus, small, QUICK))
    if ruined:
        trainer.model.ln_f.weight.data.fill_(math.nan)
    with pytest.raises(NonFiniteError) if ruined else nullcontext():
        trainer.fit(progress=False)
    assert trainer.recorded.recordings == (not ruined)
    assert trainer.recorded.graph is trainer.recorded.numbers is None
    assert trainer.recorded.batches == []
    assert all(p.grad is None for p in trainer.model.parameters())


EXPERTS = MoEConfig(n_experts=4, top_k=2, z_weight=0.01)
SHORT = replace(QUICK, max_steps=20, warmup_steps=5, grad_accum_steps=2)


@pytest.mark.cuda
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("moe", [None, pytest.param(EXPERTS, marks=ampere)], ids=["dense", "moe"])
def test_cuda_a_recorded_update_is_the_update(corpus, small, moe, optimizer, monkeypatch):
    """With learning rates that change, accumulation, and biases that move."""
    precision = "bf16" if moe else "fp32"
    shape, training = replace(small, moe=moe), replace(SHORT, optimizer=optimizer)
    training = replace(training, precision=precision)
    plain, recorded = (trainer_for(corpus, shape, training) for _ in range(2))
    plain.recorded, atol = None, 1e-3 if moe else 1e-4
    replay, replays = RecordedUpdate._replay, []
    monkeypatch.setattr(RecordedUpdate, "_replay", lambda it: replays.append(1) or replay(it))
    for trainer in (plain, recorded):
        trainer.fit(progress=False)
    assert len(replays) == SHORT.max_steps - WARM_UP
    assert recorded.grad_norm == pytest.approx(plain.grad_norm, rel=1e-2)
    for a, b in zip(plain.model.parameters(), recorded.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=atol, rtol=0.02)


@pytest.mark.cuda
def test_cuda_each_replay_draws_its_own_dropout(corpus, small):
    training = replace(SHORT, lr=1e-30, weight_decay=0.0)
    trainer = trainer_for(corpus, replace(small, dropout=0.5), training)
    batch = trainer.batches.draw()
    trainer.batches.draw = lambda: batch
    losses = {trainer.train_step() for _ in range(12)}
    assert len(losses) == 12  # the first is nan


@pytest.mark.cuda
def test_cuda_nan_never_reaches_a_checkpoint(corpus, small, tmp_path):
    trainer = trainer_for(corpus, small, QUICK, tmp_path / "run")
    draw, bad = trainer.batches.draw, 2 * QUICK.eval_interval

    def ruinous():
        if trainer.step == bad - 1:
            trainer.model.ln_f.weight.data.fill_(math.nan)
        return draw()

    trainer.batches.draw = ruinous
    with pytest.raises(NonFiniteError, match="nothing was saved"):
        trainer.fit(progress=False)
    for path in trainer.run.checkpoints():
        assert all(p.isfinite().all() for p in load_checkpoint(path).model.parameters())


@pytest.mark.cuda
def test_cuda_a_start_does_not_wait(corpus, small):
    trainer = trainer_for(corpus, small, replace(QUICK, max_steps=100))
    for _ in range(6):
        trainer.train_step()
    batches = [trainer.batches.draw()]
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(5):
            trainer.recorded.start(batches)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.cuda
def test_cuda_what_must_look_at_numbers_is_not_recorded(corpus, small):
    for dispatch, precision in [("loop", "bf16"), ("split", "bf16"), ("auto", "fp32")]:
        shape = replace(small, moe=MoEConfig(dispatch=dispatch))
        trainer = trainer_for(corpus, shape, replace(QUICK, precision=precision))
        assert trainer.recorded is None
        trainer.fit(progress=False)


@pytest.mark.cuda
def test_cuda_every_group_has_its_own_learning_rate(corpus, small):
    trainer = trainer_for(corpus, small, replace(SHORT, optimizer="muon"))
    trainer.train_step()
    groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
    assert all(g["lr"].item() == pytest.approx(g["initial_lr"] / 6) for g in groups)
