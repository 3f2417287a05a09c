"""The design of notebook 07: its arms differ in what they say, and in nothing else."""

from dataclasses import replace

import pytest
import torch

from tinygpt import ModelConfig
from tinygpt.measure import count_parameters, flops_per_token
from tinygpt.model import Router
from tinygpt.study import STUDIES, Trial, carry_out, open_study, verdicts
from tinygpt.study.trial import make_trainer

DESIGN = STUDIES["stories"]
SHORT = replace(DESIGN, model=replace(DESIGN.model, block_size=8))  # for a text of little length
MIXTURES = ("top-2", "loss", "bias", "top-p", "dropout", "context")


def test_dense_arms_have_the_active_and_the_total_parameters():
    shape = replace(DESIGN.model, vocab_size=1000)
    models = {name: arm.build(shape) for name, arm in DESIGN.arms.items()}
    counts = {name: count_parameters(model) for name, model in models.items()}
    routers = [m for m in models["loss"].modules() if isinstance(m, Router)]
    chosen = sum(p.numel() for router in routers for p in router.parameters())
    for name in ("top-2", "loss", "bias", "dropout"):
        assert counts[name].active == counts["dense"].total + chosen
        assert counts[name].total == counts["dense-total"].total + chosen
        flops = flops_per_token(models[name]) - flops_per_token(models["dense"])
        assert flops == 6 * chosen


def test_arms_start_alike_and_differ_in_one_setting():
    shape, starts = ModelConfig(**vars(DESIGN.model)), {}
    for name in ("top-2", "loss", "bias", "top-p", "dropout"):
        torch.manual_seed(1)
        starts[name] = dict(DESIGN.arms[name].build(shape).named_parameters())
    for name, weights in starts.items():
        for key, weight in weights.items():
            assert torch.equal(weight, starts["top-2"][key]), (name, key)
    plain, even = (DESIGN.arms[name].moe for name in ("top-2", "loss"))
    assert plain.balance == "none"
    assert even == replace(plain, balance="loss")
    assert DESIGN.arms["bias"].moe == replace(plain, balance="bias")
    assert DESIGN.arms["dropout"].moe == replace(even, expert_dropout=0.4)
    assert DESIGN.arms["top-p"].moe == replace(even, top_k=4, top_p=0.3)


def test_a_longer_context_sees_as_many_tokens_in_an_update(corpus, tmp_path):
    study = open_study(SHORT, tmp_path, corpus=corpus.name, device="cpu")
    trainers = {
        name: make_trainer(study, Trial(DESIGN.arms[name], 1, 2.0, 10, 1))
        for name in ("loss", "context")
    }
    assert trainers["context"].model.config.block_size == 32
    assert trainers["loss"].model.config.block_size == 8
    tokens = {trainer.tokens_per_step for trainer in trainers.values()}
    assert tokens == {128}
    assert {trainer.config.lr for trainer in trainers.values()} == {8e-3}


@pytest.mark.full
def test_it_is_made_from_its_text_to_its_verdicts(corpus, tmp_path):
    train = replace(SHORT.train, max_steps=2, batch_size=4, warmup_steps=1)
    design = replace(SHORT, train=train, seeds=2, looks=1, factors=(1.0,), rounds=3)
    study = open_study(design, tmp_path, corpus=corpus.name, device="cpu")
    carry_out(study)
    assert len(study.runs()) == 2 * len(DESIGN.arms)
    assert len(verdicts(study)) == len(DESIGN.comparisons)
    watched = study.details("experts")
    assert set(watched["arm"]) == set(MIXTURES)
