import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tinygpt import MoEConfig
from tinygpt.measure import variation
from tinygpt.model import Routing, auxiliary_loss, balance_loss, importance_loss, rebalance, z_loss

from ..tools import (
    MODES,
    SHAPE,
    close,
    collapsed,
    layer_of,
    model_of,
    normal,
    random_ids,
    routing_of,
    shaken,
)


def balance_by_hand(routing: Routing, valid: np.ndarray) -> float:
    probs, experts = routing.probs.detach().double().numpy(), routing.experts.numpy()
    E = probs.shape[-1]
    tokens = [(b, t) for b in range(len(probs)) for t in range(probs.shape[1]) if valid[b, t]]
    chosen = np.concatenate([experts[b, t] for b, t in tokens])
    f = np.bincount(chosen[chosen < E], minlength=E) / (chosen < E).sum()
    P = np.mean([probs[b, t] / probs[b, t].sum() for b, t in tokens], axis=0)
    return float(E * (f * P).sum())


def z_by_hand(routing: Routing, valid: np.ndarray) -> float:
    logits = routing.logits.detach().double().numpy()[valid]
    return float((np.log(np.exp(logits).sum(-1)) ** 2).mean())


def importance_by_hand(routing: Routing, valid: np.ndarray) -> float:
    weights, experts = routing.weights.detach().double().numpy(), routing.experts.numpy()
    importance = np.zeros(routing.probs.shape[-1])
    for b, t, k in itertools.product(*map(range, experts.shape)):
        if valid[b, t] and experts[b, t, k] < len(importance):
            importance[experts[b, t, k]] += weights[b, t, k]
    return float(importance.var() / importance.mean() ** 2)


@pytest.mark.parametrize("mode", ["top-1", "top-2", "top-p", "deepseek", "capacity, top-2"])
def test_the_loss_is_cross_entropy_plus_the_weighted_terms_of_every_layer(mode):
    terms = {"z_weight": 0.02, "cv_weight": 0.05}
    moe = MODES[mode] | terms | {"balance": "loss", "balance_weight": 0.3}
    model, idx = model_of(**moe).train(), random_ids()
    targets = idx.roll(-1, 1)
    targets[0, 15:] = targets[2, :3] = -100
    out = model(idx, targets, return_routing=True)
    close(out.lm_loss, F.cross_entropy(out.logits.flatten(0, 1), targets.flatten()))
    valid = (targets != -100).numpy()
    extra = sum(
        0.3 * balance_by_hand(r, valid)
        + 0.02 * z_by_hand(r, valid)
        + 0.05 * importance_by_hand(r, valid)
        for r in out.routing
    )
    assert len(out.routing) == 2
    assert (out.loss - out.lm_loss).item() == pytest.approx(extra, rel=1e-4)


@pytest.mark.parametrize("moe", [{"balance": "none"}, {"balance": "bias"}, {"balance_weight": 0.0}])
def test_without_balance_terms_the_loss_is_cross_entropy(moe):
    idx = random_ids()
    out = model_of(**moe).train()(idx, idx)
    assert torch.equal(out.loss, out.lm_loss)


@pytest.mark.parametrize("top_k", [1, 2])
def test_balance_loss_is_one_when_even_and_e_over_k_when_collapsed(top_k):
    assert balance_loss(collapsed(1, 4, top_k)).item() == pytest.approx(4 / top_k)
    turns = torch.arange(8 * top_k).view(1, 8, top_k) % 4
    even = routing_of(torch.zeros(1, 8, 4), top_k, experts=turns)
    assert balance_loss(even).item() == pytest.approx(1)
    # as even as can be, and certain: each token knows its expert
    sure = routing_of(50 * F.one_hot(torch.arange(8).view(1, 8) % 4, 4).float())
    assert balance_loss(sure).item() == pytest.approx(1)


@pytest.mark.parametrize("top_k", [1, 2])
def test_layers_that_collapse_on_different_experts_do_not_cancel(top_k):
    """Counts pooled over these four layers would be perfectly even, and their loss 1."""
    routings = [collapsed(e, 4, top_k) for e in range(4)]
    loss = auxiliary_loss(routings, MoEConfig(balance="loss", balance_weight=1.0), None)
    assert loss.item() == pytest.approx(4 * 4 / top_k)


def test_the_balance_loss_pulls_through_the_probabilities_alone():
    logits = (normal(2, 10, 4) * 2).requires_grad_()
    routing = routing_of(logits, 2)
    probs = routing.probs
    (gradient,) = torch.autograd.grad(balance_loss(routing), probs, retain_graph=True)
    f = routing.load().expand(2, 10, 4)
    # probs are divided by their sum first, so a push on all of a token's does nothing
    expected = 4 / 20 * (f - (f * probs).sum(-1, keepdim=True))
    close(gradient, expected.detach())


@pytest.mark.parametrize("mode", ["top-1", "top-2", "top-p", "deepseek"])
def test_padding_is_in_no_balance_loss(mode):
    moe = MODES[mode] | {"z_weight": 0.5, "cv_weight": 0.5, "capacity_factor": None}
    moe |= {"balance": "loss", "balance_weight": 1.0}
    model, idx = model_of(**moe).train(), random_ids(2, 20)
    expected = model(idx[:, :12], idx[:, 1:13])
    targets = idx.roll(-1, 1)
    targets[:, 12:] = -100
    rows = torch.cat([idx, random_ids(1, 20, seed=9)])  # and a row that is nothing but padding
    padded = model(rows, torch.cat([targets, torch.full((1, 20), -100)]))
    close(padded.loss, expected.loss)
    close(padded.loss - padded.lm_loss, expected.loss - expected.lm_loss)
    unmasked = model(rows, rows)
    assert abs((unmasked.loss - unmasked.lm_loss) - (expected.loss - expected.lm_loss)) > 1e-3


def test_z_loss_in_closed_form():
    logits = torch.tensor([[[0.0, 0.0], [math.log(3), 0.0]]])
    expected = (math.log(2) ** 2 + math.log(4) ** 2) / 2
    assert z_loss(routing_of(logits)).item() == pytest.approx(expected)
    valid = torch.tensor([[False, True]])
    assert z_loss(routing_of(logits), valid).item() == pytest.approx(math.log(4) ** 2)


def test_importance_loss_in_closed_form():
    routing = collapsed(0)  # importance (12, 0, 0, 0): variance 27, mean 3
    assert importance_loss(routing).item() == pytest.approx(3)
    even = routing_of(torch.zeros(1, 4, 4), experts=torch.arange(4).view(1, 4, 1))
    assert importance_loss(even).item() == pytest.approx(0, abs=1e-9)
    noisy = replace(even, again=torch.tensor([0.5, 0.5, 0.0, 0.0]).expand(1, 4, 4))
    assert importance_loss(noisy).item() == pytest.approx(1)  # load (2, 2, 0, 0)


@pytest.mark.parametrize("top_k", [1, 2, 5])
def test_the_load_of_a_noisy_router_is_that_of_drawing_one_experts_noise_again(top_k):
    router = layer_of(n_experts=5, top_k=top_k, noisy=True).router.train()
    router.noise.weight.data.normal_(0, 0.3)
    x, draws = normal(1, 4, 16), 20_000
    routing = router(x)
    with torch.no_grad():
        clean = F.linear(x, router.proj.weight)
        spread = F.softplus(F.linear(x, router.noise.weight)) + 1e-2
        for e in range(5):
            again = routing.logits.repeat(draws, 1, 1)
            redrawn = clean[..., e] + spread[..., e] * normal(draws, 4, seed=e)
            again[..., e] = redrawn
            share = (again.topk(top_k).indices == e).any(-1).float().mean(0)
            close(routing.again[0, :, e], share, atol=0.02)
    assert routing.again.requires_grad == (top_k < 5)


def test_biases_move_against_the_load_and_their_mean_stays():
    layer = layer_of(balance="bias", bias_rate=0.01, top_k=2).train()
    router = layer.router
    router.bias.zero_()
    _, routing = layer(normal(3, 11, 16) + 0.3)
    counts = routing.counts()
    assert counts.sum() == 3 * 11 * 2
    assert len(set(counts.tolist())) > 1
    rebalance(layer, counts[None])
    step = torch.sign(counts.mean() - counts)
    close(router.bias, 0.01 * (step - step.mean()))
    assert router.bias[counts.argmax()] < 0 < router.bias[counts.argmin()]
    assert router.bias.mean().abs() < 1e-8
    before = router.bias.clone()
    rebalance(layer, torch.zeros(1, 4))  # nothing was counted
    assert torch.equal(router.bias, before)


def test_a_pass_changes_nothing_and_padding_is_not_counted():
    model, idx = model_of(balance="bias", top_k=2).train(), random_ids()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    targets = idx.clone()
    targets[0, 5:] = -100
    out = model(idx, targets, return_routing=True)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert out.expert_load.sum(1).tolist() == [2 * (2 * 24 + 5)] * 2
    valid = targets != -100
    for load, routing in zip(out.expert_load, out.routing, strict=True):
        chosen = routing.experts[valid].flatten()
        assert torch.equal(load, torch.bincount(chosen, minlength=4).float())


def test_only_a_balance_by_biases_moves_them():
    model = model_of(balance="loss")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    rebalance(model, torch.tensor([[9.0, 0, 0, 0]] * 2))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    with pytest.raises(ValueError, match="zip"):
        rebalance(model, torch.ones(3, 4))  # two layers have experts


def test_without_targets_or_experts_there_is_no_load():
    idx = random_ids()
    assert model_of()(idx).expert_load is None
    assert shaken(SHAPE)(idx, idx).expert_load is None


def test_biases_choose_but_never_weigh():
    router = layer_of(balance="bias", top_k=2, scores="sigmoid", norm_topk_prob=True).router
    x = normal(3, 11, 16)
    router.bias.zero_()
    before = router(x)
    router.bias.copy_(torch.tensor([-9.0, 9.0, 5.0, -9.0]))
    after = router(x)
    assert (before.experts[..., 0] != 1).any()
    assert (after.experts == torch.tensor([1, 2])).all()
    assert torch.equal(after.probs, before.probs)
    chosen = before.probs[..., 1:3]
    close(after.weights, chosen / chosen.sum(-1, keepdim=True))


def test_biases_even_out_a_lopsided_router():
    router = layer_of(balance="bias", bias_rate=5e-3, top_k=2).router.train()
    router.bias.zero_()
    x = normal(4, 64, 16) + 0.5
    start = variation(router(x).load())
    for _ in range(300):
        rebalance(router, router(x).counts()[None])
    assert start > 0.3
    assert variation(router(x).load()) < 0.1
