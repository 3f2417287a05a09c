import math
from collections import deque
from dataclasses import replace

import pytest
import torch

from tinygpt import MoEConfig, TinyGPT, Trainer
from tinygpt.errors import NonFiniteError
from tinygpt.training import load_checkpoint
from tinygpt.training.recorded import can_record

from ..tools import QUICK, ampere


class Late:
    """As `RecordedUpdate` hands out its numbers, without a GPU."""

    def __init__(self, update):
        self.update, self.sent = update, deque()

    def start(self, batches):
        self.sent.append(self.update(batches).tolist())
        return [self.sent.popleft()] if len(self.sent) > 1 else []

    def settle(self):
        left, self.sent = list(self.sent), deque()
        return left


def late(trainer):
    trainer.recorded = Late(trainer._update)
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
    with pytest.raises(NonFiniteError, match="nothing was saved of it; the last checkpoint is"):
        trainer.fit(progress=False)
    steps = [int(path.name.split("_")[-1]) for path in trainer.run.checkpoints()]
    assert max(steps) == QUICK.eval_interval
    for path in trainer.run.checkpoints():
        assert all(p.isfinite().all() for p in load_checkpoint(path).model.parameters())


EXPERTS = MoEConfig(n_experts=4, top_k=2, z_weight=0.01)
SHORT = replace(QUICK, max_steps=20, warmup_steps=5, grad_accum_steps=2)


@pytest.mark.cuda
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("moe", [None, pytest.param(EXPERTS, marks=ampere)], ids=["dense", "moe"])
def test_cuda_a_recorded_update_is_the_update(corpus, small, moe, optimizer):
    """With learning rates that change, accumulation, and biases that move."""
    precision = "bf16" if moe else "fp32"
    shape, training = replace(small, moe=moe), replace(SHORT, optimizer=optimizer)
    training = replace(training, precision=precision)
    plain, recorded = (trainer_for(corpus, shape, training) for _ in range(2))
    plain.recorded, atol = None, 1e-3 if moe else 1e-4
    for trainer in (plain, recorded):
        trainer.fit(progress=False)
    assert recorded.recorded.graph is not None
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
