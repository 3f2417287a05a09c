"""A mixture that learns while its rules change: it collapses, is cured, and disturbs nobody."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from tinygpt import load_corpus
from tinygpt.errors import NonFiniteError
from tinygpt.model import rebalance
from tinygpt.widgets.router_training import EVERY, LR, OwnRandom, RouterTraining, Rules, fixed_text

from ..tools import same_state


@pytest.fixture(scope="module")
def plays():
    return load_corpus("tinyplays")


@pytest.fixture
def training(corpus):
    return RouterTraining(corpus, Rules(), n_experts=4)


def balance_by_hand(out, n_experts):
    """E sum f P in numpy (Fedus et al. 2021, eq. 4)."""
    p = out.routing[0].probs.detach().numpy().reshape(-1, n_experts)
    chosen = out.routing[0].experts.numpy().ravel()
    f = np.bincount(chosen, minlength=n_experts) / chosen.size
    return n_experts * float((f * p.mean(0)).sum())


def z_by_hand(out):
    """Mean of the squared log of the sum of exponentials."""
    logits = out.routing[0].logits.detach().double().numpy()
    return float((np.log(np.exp(logits).sum(-1)) ** 2).mean())


# --- collapse and cure ---------------------------------------------------------------------------


def test_it_collapses_and_each_method_cures_it(plays):
    """In updates, which are the same on each machine; 20 seconds hold several times as many."""
    free = RouterTraining(plays, Rules(), seed=3)
    free.advance(300)
    start = free.looks[-1]
    assert start.collapsed
    assert float(start.mean_load.max()) > 3 / 8
    assert start.loss < free.looks[20].loss  # which does not tell
    for balance, strength in (("Switch loss", 0.1), ("biases", 0.01)):
        training = copy.deepcopy(free)
        training.follow(Rules(balance, strength))
        training.advance(120)
        assert training.looks[-1].even
        assert training.looks[-1].dead == []
    free.advance(120)
    assert free.looks[-1].collapsed  # and no method, no cure


@pytest.mark.full
@pytest.mark.parametrize("noise", ["learned", "jitter"])
def test_noise_is_no_cure(plays, noise):
    training = RouterTraining(plays, Rules(noise=noise), seed=3)
    training.advance(300)
    late = [look for look in training.looks if look.update > 200]
    assert not any(look.even for look in late)


@pytest.mark.full
def test_without_a_z_loss_the_dead_stay_dead(plays):
    rules = Rules(router_lr=25.0, z_weight=0.0)
    training = RouterTraining(plays, rules, seed=1)
    training.advance(300)
    training.follow(replace(rules, balance="Switch loss"))
    training.advance(300)
    assert training.looks[-1].dead
    assert training.looks[-1].entropy < 0.1


# --- what is trained -----------------------------------------------------------------------------


def test_the_rules_are_what_is_trained(training):
    batch = training.x, training._y
    for rules, weights in (
        (Rules(), (0.0, 0.01)),
        (Rules("Switch loss", 0.3, z_weight=0.0), (0.3, 0.0)),
        (Rules("biases", 0.3, z_weight=0.1), (0.0, 0.1)),
        (Rules("Switch loss", 1.0, z_weight=0.03, noise="learned", top_k=2), (1.0, 0.03)),
    ):
        training.follow(rules)
        training.advance(2)
        out = training.model.eval()(*batch, return_routing=True)
        extra = weights[0] * balance_by_hand(out, 4) + weights[1] * z_by_hand(out)
        assert (out.loss - out.lm_loss).item() == pytest.approx(extra, abs=1e-5)
        assert out.routing[0].experts.shape[-1] == rules.top_k


def test_biases_are_moved_by_their_method_alone_and_start_at_zero(training, monkeypatch):
    bias, loads = training.router.bias, []
    training.advance(3)
    assert not bias.any()
    monkeypatch.setattr(
        "tinygpt.widgets.router_training.rebalance",
        lambda model, load: loads.append(load[0]) or rebalance(model, load),
    )
    training.follow(Rules("biases", 0.01))
    training.advance(1)
    counts = loads[0].numpy()
    signs = np.sign(counts.mean() - counts)  # Wang et al. 2024, algorithm 1
    assert bias.numpy() == pytest.approx(0.01 * (signs - signs.mean()), abs=1e-7)
    training.follow(Rules("Switch loss"))
    training.advance(3)
    assert not bias.any()
    training.follow(Rules("biases", 0.003))
    training.advance(3)
    assert bias.any()
    training.follow(Rules("none"))
    training.follow(Rules("biases", 0.003))
    assert not bias.any()


def test_the_router_has_a_rate_of_its_own(training):
    """Adam's first step moves each weight by its learning rate (those with any gradient)."""
    training.follow(Rules(router_lr=10.0))
    before = {n: p.detach().clone() for n, p in training.model.named_parameters()}
    training.advance(1)
    for name, p in training.model.named_parameters():
        moved = (p.detach() - before[name]).abs().max().item()
        assert moved == pytest.approx(LR * (10 if "router" in name else 1), rel=0.02)


def test_noise_acts_while_it_is_on(training):
    assert training.router.noise is None
    training.follow(Rules(noise="learned"))
    before = training.router.noise.weight.detach().clone()
    training.advance(3)
    after = training.router.noise.weight.detach().clone()
    assert not torch.equal(before, after)
    training.follow(Rules(noise="jitter"))
    assert training.router.noise is None
    assert training.router.config.jitter == 0.3
    training.advance(3)
    training.follow(Rules(noise="learned"))
    assert torch.equal(training.router.noise.weight, after)


@pytest.mark.parametrize("E", [4, 8, 16])
def test_all_experts_together_are_always_as_wide(corpus, E):
    experts = RouterTraining(corpus, Rules(), E).model.blocks[0].ffn.experts
    assert experts.c_fc.weight.shape == (E, 512 // E, 64)


def test_what_is_ruined_is_said(training):
    training.advance(7)
    with torch.no_grad():
        training.model.wte.weight[:] = math.nan
    with pytest.raises(NonFiniteError, match=r"loss is nan .*at update 7; reset.*now × 3\)"):
        training.advance()


# --- what is seen --------------------------------------------------------------------------------


def test_looks_say_what_the_router_does_with_the_fixed_text(training):
    training.follow(Rules("Switch loss", top_k=2))
    training.advance(EVERY)
    look = training.looks[-1]
    with torch.inference_mode():
        out = training.model.eval()(training.x, training._y, return_routing=True)
    routing = out.routing[0]
    chosen = routing.experts.numpy().ravel()
    assert look.load.numpy() == pytest.approx(np.bincount(chosen, minlength=4) / chosen.size)
    p = routing.probs.double().numpy()
    assert look.entropy == pytest.approx(-(p * np.log(p)).sum(-1).mean(), rel=1e-5)
    assert look.weight == pytest.approx(np.sort(p, -1)[..., -2:].sum(-1).mean(), rel=1e-5)
    assert look.loss == pytest.approx(out.lm_loss.item())
    assert look.largest_cv == pytest.approx(np.std([1, 1, 0, 0]) / 0.5)
    assert [look.update for look in training.looks] == [0, EVERY]


def test_the_mean_load_is_that_of_the_last_batches(training, monkeypatch):
    loads = []
    monkeypatch.setattr(
        "tinygpt.widgets.router_training.rebalance",
        lambda model, load: loads.append(load[0].numpy() / load.sum().item()),
    )
    training.advance(4 * EVERY)
    shares = 0.95 ** np.arange(len(loads) - 1, -1, -1)
    expected = np.average(loads, axis=0, weights=shares)
    look = training.looks[-1]
    assert look.mean_load.numpy() == pytest.approx(expected, rel=1e-4)
    assert look.cv == pytest.approx(expected.std() / expected.mean(), rel=1e-4)
    assert look.dead == [e for e in range(4) if expected[e] < 0.0025]


def test_how_a_look_is_judged(training):
    look = training.looks[0]
    for load, collapsed, even, dead in (
        ([0.25, 0.25, 0.25, 0.25], False, True, []),
        ([0.4, 0.2, 0.2, 0.2], False, False, []),
        ([0.9, 0.05, 0.05, 0.0], True, False, [3]),
        ([1.0, 0.0, 0.0, 0.0], True, False, [1, 2, 3]),
    ):
        judged = replace(look, mean_load=torch.tensor(load))
        assert (judged.collapsed, judged.even, judged.dead) == (collapsed, even, dead)


def test_looking_back(training):
    training.advance(7)
    training.follow(Rules("biases", 0.01))
    training.advance(6)
    training.follow(Rules("biases", 0.03))
    assert training.seen(11).update == 10
    assert training.seen(4).update == training.seen(-50).update == 0
    assert training.since("balance") == 7
    assert training.since("strength") == 13
    assert training.since("noise") == 0
    assert [update for update, _ in training.changes] == [0, 7, 13]
    training.follow(Rules("biases", 0.03))  # nothing new
    assert len(training.changes) == 3


# --- the fixed text ------------------------------------------------------------------------------


def test_the_fixed_text_begins_after_a_blank_line(plays):
    x, y = fixed_text(plays)
    assert x.shape == y.shape == (64, 32)
    text = plays.tokenizer.decode(x.flatten().tolist())
    whole = plays.tokenizer.decode(plays.val[:4000].tolist())
    assert whole.index(text) == whole.index("\n\n") + 2
    assert (
        plays.tokenizer.decode(y.flatten().tolist()) == text[1:] + whole[whole.index(text) :][2048]
    )


@pytest.mark.parametrize("length", [33, 34, 64, 65, 100])
def test_a_short_text_gives_fewer_windows(corpus, length):
    x, y = fixed_text(replace(corpus, val=corpus.val[:length]))
    assert x.shape == ((length - 1) // 32, 32)
    assert torch.equal(x.flatten()[1:], y.flatten()[:-1])


# --- random numbers ------------------------------------------------------------------------------


NOISY = Rules("Switch loss", noise="learned")


def test_a_run_is_its_seed_whatever_others_draw(corpus):
    first, second = (RouterTraining(corpus, NOISY, 4, seed=2) for _ in range(2))
    first.advance(20)
    for _ in range(20):
        torch.rand(3)
        second.advance()
    assert same_state(first.model, second.model)
    other = RouterTraining(corpus, NOISY, 4, seed=3)
    assert not same_state(RouterTraining(corpus, NOISY, 4, seed=2).model, other.model)


def test_others_draw_what_they_would_without_it(corpus):
    torch.manual_seed(5)
    alone = [torch.rand(2).tolist() for _ in range(3)]
    torch.manual_seed(5)
    found = [torch.rand(2).tolist()]
    training = RouterTraining(corpus, NOISY, 4)
    found.append(torch.rand(2).tolist())
    training.follow(Rules(noise="jitter"))
    training.advance(3)
    found.append(torch.rand(2).tolist())
    assert found == alone


def test_random_numbers_of_its_own_go_on_also_after_an_error():
    expected = torch.rand(4, generator=torch.Generator().manual_seed(9)).tolist()
    mine, found = OwnRandom(9), []
    with pytest.raises(ZeroDivisionError), mine:
        found += torch.rand(2).tolist()
        raise ZeroDivisionError
    torch.rand(5)
    with mine:
        found += torch.rand(2).tolist()
    assert found == expected
