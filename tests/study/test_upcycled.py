"""The arms of the study of upcycling: what they start from, and how long they are trained."""

from dataclasses import replace

import pytest
import torch

from tinygpt import load_run
from tinygpt.corpora import write_plays
from tinygpt.measure import count_parameters, flops_per_token
from tinygpt.model import Router
from tinygpt.study import STUDIES, carry_out, open_study, updates, verdicts
from tinygpt.study.upcycled import ARMS, SOURCE
from tinygpt.training import Run

DESIGN = STUDIES["upcycling"]
STARTED = ("tuned", "top-1", "groups", "top-2", "drop")


def built(name, seed=1):
    torch.manual_seed(seed)
    return ARMS[name].build(DESIGN.model).eval()


@pytest.fixture(scope="module")
def models():
    return {name: built(name) for name in ARMS}


def test_a_model_is_what_its_arm_says(models):
    for name, arm in ARMS.items():
        config = models[name].config
        assert replace(config, n_inner=config.inner_size) == replace(
            arm.config(DESIGN.model), n_inner=config.inner_size
        )


def test_what_was_upcycled_says_at_first_what_the_shipped_model_does(models):
    idx = torch.randint(2048, (2, 64), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        logits = {name: models[name](idx).logits for name in ARMS}
        source = load_run(SOURCE, device="cpu")(idx).logits
    assert torch.equal(logits["tuned"], source)
    for name in STARTED:
        off = (logits[name] - source).abs().max() / source.abs().max()
        assert (off < 1e-5) == (name != "drop"), name
    assert (logits["scratch"] - source).abs().max() > 1


def test_seeds_draw_other_routers(models):
    for name in ("top-1", "groups", "top-2", "drop"):
        first, second = (
            next(m for m in model.modules() if isinstance(m, Router)).proj.weight
            for model in (models[name], built(name, seed=2))
        )
        assert not torch.equal(first, second)
        assert torch.equal(first, next(iter(models[name].blocks)).ffn.router.proj.weight)


def test_top_1_and_the_groups_cost_what_the_dense_model_does(models):
    """But for the router, and a second expert's output bias."""
    dense = flops_per_token(models["tuned"])
    active = count_parameters(models["tuned"]).active
    for name in ("top-1", "groups", "scratch"):
        assert 1 < flops_per_token(models[name]) / dense < 1.02, name
        assert 1 < count_parameters(models[name]).active / active < 1.01, name
    assert flops_per_token(models["top-2"]) == flops_per_token(models["drop"]) > 1.3 * dense


def test_shares_of_the_pre_trainings_tokens(tmp_path):
    study = open_study(DESIGN, tmp_path)
    tokens = {
        name: updates(study, arm) * DESIGN.train.batch_size * DESIGN.model.block_size
        for name, arm in ARMS.items()
    }
    seen = Run.open(SOURCE).load("best").about["summary.json"]["tokens"]
    shares = {name: count / seen for name, count in tokens.items()}
    assert shares == dict.fromkeys((*STARTED, "scratch"), 0.1) | {
        "scratch-x3": pytest.approx(0.3),
        "scratch-x10": 1.0,
    }


@pytest.mark.full
def test_the_study_in_small_from_nothing_to_its_verdicts(tmp_path):
    """On another text, and a short one."""
    (tmp_path / "plays.txt").write_text(write_plays(20_000).text, encoding="utf-8")
    small = replace(
        DESIGN,
        train=replace(DESIGN.train, max_steps=2, batch_size=2, warmup_steps=0),
        looks=1,
        rounds=3,
        seeds=2,
    )
    text = f"file:{tmp_path / 'plays.txt'}"
    study = open_study(small, tmp_path, ("tuned", "groups"), corpus=text, device="cpu")
    carry_out(study)
    runs = study.runs()
    assert sorted(runs["arm"]) == ["groups", "groups", "tuned", "tuned"]
    assert [v.comparison.first for v in verdicts(study)] == ["groups"]
