import copy
import shutil
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.nn import functional as F

from tinygpt import PRESETS, MoEConfig, TinyGPT, TrainConfig, Trainer
from tinygpt.corpora import get_batch
from tinygpt.measure import evaluate, measure_routing
from tinygpt.model import Experts, rebalance
from tinygpt.training import (
    export_run,
    latest_checkpoint,
    load_checkpoint,
    load_expert_tables,
    make_optimizers,
)

from ..tools import (
    CHANCE,
    DISPATCHES,
    MODES,
    QUICK,
    SHAPE,
    ampere,
    capability,
    close,
    interrupt_after,
    model_of,
    random_ids,
    routers,
    same_state,
    spy,
)


def test_what_is_reported_is_cross_entropy_alone(corpus, small):
    """A balance term of some hundred nats would show."""
    moe = MoEConfig(balance="loss", balance_weight=100.0)
    torch.manual_seed(0)
    model = TinyGPT(replace(small, moe=moe))
    trainer = Trainer(model, corpus, replace(QUICK, max_steps=10))
    assert trainer.train_step() < 5
    trainer.fit(progress=False)
    row = trainer.metrics.rows[-1]
    windows = corpus.val[: 31 * 16 + 1]
    x, y = windows[:-1].view(31, 16), windows[1:].view(31, 16)
    out = model(x.long(), y.long())
    expected = F.cross_entropy(out.logits.flatten(0, 1), y.flatten().long()).item()
    assert out.loss.item() > 100
    assert evaluate(model, windows) == pytest.approx(expected, rel=1e-5)
    assert row["val_lm_loss"] == evaluate(model, corpus.val) < 5
    assert row["train_lm_loss"] < 5
    assert 0.99 < row["balance_loss"] < 4
    report = measure_routing(model, corpus.val)
    assert row["load_cv"] == report.load_cv
    assert row["balance_loss"] == pytest.approx(report.balance_loss.mean().item())
    assert row["z_loss"] == pytest.approx(report.z_loss.mean().item())


def test_biases_move_once_per_update_by_the_counts_of_all_its_batches(corpus, small, monkeypatch):
    torch.manual_seed(0)
    model = TinyGPT(replace(small, moe=MoEConfig(balance="bias", top_k=2)))
    start = copy.deepcopy(model)
    loads = []

    def watched(model, load):
        loads.append(load)
        rebalance(model, load)

    monkeypatch.setattr("tinygpt.training.hooks.rebalance", watched)
    training = replace(QUICK, grad_accum_steps=3, max_steps=20)
    trainer = Trainer(model, corpus, training)
    trainer.train_step()
    generator = torch.Generator().manual_seed(training.seed)
    counts = [torch.zeros(4), torch.zeros(4)]
    for _ in range(3):
        batch = get_batch(corpus.train, 4, small.block_size, generator)
        for i, routing in enumerate(start(*batch, return_routing=True).routing):
            counts[i] += routing.counts()
    assert len(loads) == 1
    for load, expected in zip(loads[0], counts, strict=True):
        assert load.sum() == 3 * 4 * 16 * 2
        assert torch.equal(load, expected)
    rate = model.config.moe.bias_rate
    for router, expected in zip(routers(model), counts, strict=True):
        step = torch.sign(expected.mean() - expected)
        close(router.bias, rate * (step - step.mean()), atol=1e-9)
    trainer.fit(progress=False)
    assert len(loads) == 20
    assert all(load.sum() == 3 * 4 * 16 * 2 for step in loads for load in step)


def test_a_dense_model_needs_no_hooks(corpus, small):
    trainer = Trainer(TinyGPT(small), corpus, QUICK)
    trainer.hooks.after_update([None])
    assert trainer.hooks.at_evaluation(0) == {}
    trainer.fit(progress=False)
    assert trainer.expert_tables == {}


def test_compiled_experts_are_balanced_alike(corpus, small, monkeypatch):
    """The load comes out of a compiled forward pass as it does of a plain one."""
    compiled = partial(torch.compile, backend="eager")  # traced as always, but not translated
    monkeypatch.setattr(torch, "compile", compiled)
    models = []
    for compiles in (False, True):
        torch.manual_seed(0)
        model = TinyGPT(replace(small, moe=MoEConfig(top_k=2, balance="bias")))
        training = replace(QUICK, max_steps=3, grad_accum_steps=2, compile=compiles)
        trainer = Trainer(model, corpus, training)
        for _ in range(3):
            trainer.train_step()
        models.append(model)
    plain, same = models
    for a, b in zip(routers(plain), routers(same), strict=True):
        assert a.bias.abs().max() > 0
        assert torch.equal(a.bias, b.bias)


def moe_trainer(corpus, small, out_dir=None, **training) -> Trainer:
    """Everything that has a state or draws: biases, noise, dropout inside and around experts."""
    moe = MoEConfig(
        top_k=2, balance="bias", noisy=True, jitter=0.1, expert_dropout=0.1, capacity_factor=1.0
    )
    torch.manual_seed(0)
    model = TinyGPT(replace(small, moe=moe, dropout=0.1))
    changes = {"grad_accum_steps": 2, "max_steps": 30} | training
    return Trainer(model, corpus, replace(QUICK, **changes), out_dir)


def same_tables(a: dict, b: dict) -> bool:
    return list(a) == list(b) and all(torch.equal(a[step], b[step]) for step in a)


@pytest.mark.parametrize(("stop", "optimizer"), [(13, "adamw"), (20, "muon")])
def test_stopped_and_resumed_equals_uninterrupted(corpus, small, tmp_path, stop, optimizer):
    whole = moe_trainer(corpus, small, optimizer=optimizer)
    whole.fit(progress=False)
    stopped = moe_trainer(corpus, small, tmp_path / "run", optimizer=optimizer)
    interrupt_after(stopped, stop)
    torch.manual_seed(99)  # whatever came between
    resumed = Trainer.resume(tmp_path / "run", corpus)
    assert same_state(resumed.model, stopped.model)
    assert all(r.bias.abs().max() > 0 for r in routers(resumed.model))
    assert list(resumed.expert_tables) == [s for s in (0, 10, 20) if s <= stop]
    resumed.fit(progress=False)
    assert same_state(resumed.model, whole.model)
    assert same_tables(resumed.expert_tables, whole.expert_tables)
    assert same_tables(load_expert_tables(tmp_path / "run"), whole.expert_tables)
    expected = whole.metrics.frame().drop(columns=CHANCE)
    assert expected.equals(resumed.metrics.frame().drop(columns=CHANCE))


def test_resuming_without_the_biases_would_show(corpus, small, tmp_path):
    """The control of the test above."""
    whole = moe_trainer(corpus, small)
    whole.fit(progress=False)
    interrupt_after(moe_trainer(corpus, small, tmp_path / "run"), 13)
    resumed = Trainer.resume(tmp_path / "run", corpus)
    for router in routers(resumed.model):
        router.bias.zero_()
    resumed.fit(progress=False)
    assert not same_state(resumed.model, whole.model)


def test_a_run_taken_up_earlier_forgets_later_tables(corpus, small, tmp_path):
    folder = tmp_path / "run"
    first = moe_trainer(corpus, small, folder)
    first.fit(progress=False)
    assert list(first.expert_tables) == [0, 10, 20, 30]
    shutil.rmtree(latest_checkpoint(folder))
    resumed = Trainer.resume(folder, corpus)
    assert list(resumed.expert_tables) == [0, 10, 20]
    resumed.fit(progress=False)
    assert same_tables(resumed.expert_tables, first.expert_tables)
    assert same_tables(load_expert_tables(folder), first.expert_tables)
    export_run(folder, tmp_path / "shipped")
    assert same_tables(load_expert_tables(tmp_path / "shipped"), first.expert_tables)


def test_damaged_tables_are_set_aside_and_the_run_goes_on(corpus, small, tmp_path):
    folder = tmp_path / "run"
    first = moe_trainer(corpus, small, folder)
    first.fit(progress=False)
    (folder / "experts.safetensors").write_bytes(b"x")
    with pytest.warns(UserWarning, match=r"experts.safetensors .*experts.safetensors.1"):
        resumed = Trainer.resume(folder, corpus, which="step_0000020")
    assert (folder / "experts.safetensors.1").read_bytes() == b"x"
    assert resumed.expert_tables == {}
    resumed.fit(progress=False)
    assert same_state(resumed.model, first.model)
    assert list(load_expert_tables(folder)) == [30]


def test_a_new_run_does_not_inherit_the_tables_of_a_dead_one(corpus, small, tmp_path):
    moe_trainer(corpus, small, tmp_path / "run").hooks.at_evaluation(0)
    assert (tmp_path / "run" / "experts.safetensors").exists()
    again = moe_trainer(corpus, small, tmp_path / "run", max_steps=10)
    assert not (tmp_path / "run" / "experts.safetensors").exists()
    again.fit(progress=False)
    assert list(load_expert_tables(tmp_path / "run")) == [0, 10]


def test_the_preset_learns(corpus):
    torch.manual_seed(0)
    preset = PRESETS["tiny-moe"]
    model = TinyGPT(replace(preset.model, vocab_size=corpus.tokenizer.vocab_size))
    start = [r.proj.weight.detach().clone() for r in routers(model)]
    training = replace(preset.train, max_steps=60, eval_interval=60, warmup_steps=10, batch_size=8)
    trainer = Trainer(model, corpus, training)
    trainer.fit(progress=False)
    assert trainer.metrics.rows[-1]["val_lm_loss"] < 2.2
    assert trainer.metrics.rows[-1]["load_cv"] < 1
    for router, before in zip(routers(model), start, strict=True):
        assert (router.proj.weight - before).norm() > 0.1 * before.norm()


@pytest.mark.parametrize(("limit", "read"), [(100, 96), (None, 499)])
def test_routing_is_measured_on_the_tokens_of_the_loss(corpus, small, limit, read):
    trainer = moe_trainer(corpus, small, max_eval_tokens=limit, max_steps=10)
    trainer.fit(progress=False)
    assert [row["val_tokens"] for row in trainer.metrics.rows] == [read, read]
    assert all((table.sum((1, 2)) == 2 * read).all() for table in trainer.expert_tables.values())


hopper = pytest.mark.skipif(
    capability() < (9, 0), reason="before Hopper, grouped_mm itself asks for the groups' sizes"
)


ON_CUDA = ["top-1", "capacity, top-2", "top-p", "deepseek", "noisy", "shared"]


@pytest.mark.cuda
@hopper
@pytest.mark.parametrize("mode", ON_CUDA)
def test_an_update_on_cuda_never_waits_for_the_device(mode):
    """Neither routing nor dispatch, nor their gradients, nor the biases ask what was chosen."""
    moe = {"expert_dropout": 0.1, "z_weight": 0.01, "cv_weight": 0.01} | MODES[mode]
    model = model_of(replace(SHAPE, n_embd=64, dropout=0.1), **moe).cuda().train()
    optimizers = make_optimizers(model, TrainConfig(optimizer="muon"))
    idx = random_ids(8).cuda()
    targets = idx.roll(-1, 1)

    def update() -> None:
        model.zero_grad()
        with torch.autocast("cuda", torch.bfloat16):
            out = model(idx, targets)
        out.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        rebalance(model, out.expert_load)

    for _ in range(2):  # what is set up once may wait
        update()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        update()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.cuda
@ampere
def test_cuda_trains_experts_in_bf16(corpus, small, tmp_path, monkeypatch):
    called = []
    for name in DISPATCHES:
        monkeypatch.setattr(Experts, name, spy(getattr(Experts, name), called, name))
    torch.manual_seed(0)
    model = TinyGPT(replace(small, moe=MoEConfig(top_k=2, balance="bias")))
    training = replace(QUICK, lr=1e-2)
    trainer = Trainer(model, corpus, training, tmp_path / "run")
    trainer.fit(progress=False)
    assert set(called) == {"grouped_mm"}
    assert trainer.metrics.rows[-1]["val_lm_loss"] < 2.5
    there = evaluate(model, corpus.val, precision="fp32")
    loaded = load_checkpoint(latest_checkpoint(tmp_path / "run")).model
    assert evaluate(loaded, corpus.val, precision="fp32") == pytest.approx(there, rel=1e-3)
    resumed = Trainer.resume(tmp_path / "run", corpus, replace(training, max_steps=50))
    resumed.fit(progress=False)
    assert all(r.bias.is_cuda and r.bias.abs().max() > 0 for r in routers(resumed.model))


@pytest.mark.cuda
@hopper
def test_cuda_compiles_experts(corpus, small):
    torch.manual_seed(0)
    model = TinyGPT(replace(small, moe=MoEConfig(top_k=2)))
    trainer = Trainer(model, corpus, replace(QUICK, compile=True, lr=1e-2))
    trainer.fit(progress=False)
    assert trainer.metrics.rows[-1]["val_lm_loss"] < 2.5


def test_tables_of_a_large_vocabulary_are_not_kept(corpus, small, tmp_path, monkeypatch):
    model = TinyGPT(replace(small, moe=MoEConfig()))
    monkeypatch.setattr("tinygpt.training.hooks.LARGEST", 2 * small.vocab_size * 4 - 1)
    trainer = Trainer(model, corpus, replace(QUICK, max_steps=10), tmp_path / "run")
    trainer.fit(progress=False)
    assert trainer.expert_tables == load_expert_tables(tmp_path / "run") == {}
    assert trainer.metrics.rows[-1]["load_cv"] >= 0
