"""Several processes make the updates of one: two of them, with gloo, on a CPU."""

from dataclasses import replace

import pytest
import torch

from tinygpt import MoEConfig, TinyGPT, TrainConfig, Trainer
from tinygpt.ranks import whole

from ..processes import forks, together

pytestmark = forks

BIAS = MoEConfig(n_experts=4, top_k=2, balance="bias", bias_rate=0.01)
LOSSES = MoEConfig(
    n_experts=4, noisy=False, balance="loss", balance_weight=0.1, z_weight=0.01, cv_weight=0.01
)
SHORT = TrainConfig(
    max_steps=12, batch_size=6, eval_interval=6, warmup_steps=2, schedule="constant"
)
CASES = {  # what is trained, and how
    "dense, adamw": (None, {}),
    "biases, adamw": (BIAS, {}),
    "biases, muon": (BIAS, {"optimizer": "muon", "grad_accum_steps": 2}),
    "losses, adamw": (LOSSES, {"grad_accum_steps": 2, "activation_checkpointing": True}),
    "losses, muon": (LOSSES, {"optimizer": "muon", "batch_size": 5}),
}


def model_for(small, moe=None, **changes):
    torch.manual_seed(0)
    # a key's bias has no gradient but rounding, which AdamW would make as large as any
    return TinyGPT(replace(small, moe=moe, attn_bias=False, **changes))


def ignoring(draw):
    """Batches of which some rows have few targets: unequally many on the ranks."""

    def batch():
        x, y = draw()
        y = y.masked_fill((x[:, :1] % 3 > 0) & (torch.arange(y.shape[1]) > 2), -100)
        return x, y

    return batch


def train(small, corpus, config, moe, folder=None):
    """The losses, norms, biases and weights of a training."""
    trainer = Trainer(model_for(small, moe), corpus, config, folder)
    trainer.batches.draw = ignoring(trainer.batches.draw)
    steps, train_step = [], trainer.train_step

    def noted():
        train_step()
        biases = [b.clone() for n, b in trainer.model.named_buffers()]
        steps.append((trainer.loss, trainer.grad_norm, biases))
        return trainer.loss

    trainer.train_step = noted
    trainer.fit(progress=False)
    weights = [whole(p.detach()).clone() for p in trainer.model.parameters()]
    rows = [(row["val_lm_loss"], row["train_lm_loss"]) for row in trainer.metrics.rows]
    return steps, rows, trainer.whole_val_lm_loss, weights


def all_cases(small, corpus, updates, strategies=("ddp", "fsdp")):
    """The trainings of all cases, in this process and those beside it."""
    return {
        (name, strategy): train(
            small, corpus, replace(SHORT, max_steps=updates, strategy=strategy, **how), moe
        )
        for name, (moe, how) in CASES.items()
        for strategy in strategies
    }


def assert_equal_trainings(actual, expected):
    steps, rows, wholes, weights = actual
    for (loss, norm, biases), (loss_1, norm_1, biases_1) in zip(steps, expected[0], strict=True):
        assert loss == pytest.approx(loss_1, rel=1e-6)
        assert norm == pytest.approx(norm_1, rel=1e-4)
        assert all(map(torch.equal, biases, biases_1))
    for row, row_1 in zip(rows, expected[1], strict=True):
        assert row == pytest.approx(row_1, rel=1e-6)
    assert wholes == pytest.approx(expected[2], rel=1e-6)
    for p, q in zip(weights, expected[3], strict=True):
        torch.testing.assert_close(p, q, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("updates", [12, pytest.param(100, marks=pytest.mark.full)])
def test_two_processes_train_as_one(corpus, small, tmp_path, updates):
    expected = all_cases(small, corpus, updates, ["ddp"])
    found = together(tmp_path, all_cases, small, corpus, updates)
    for case, strategy in found[0]:
        first, second = (results[case, strategy] for results in found)
        assert_equal_trainings(first, expected[case, "ddp"])
        assert [step[:2] for step in first[0]] == [step[:2] for step in second[0]]
        assert first[1:3] == second[1:3]
        assert all(map(torch.equal, first[0][-1][2], second[0][-1][2]))
