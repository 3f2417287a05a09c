import itertools
import math
import random
from dataclasses import replace
from itertools import accumulate, pairwise

import pytest
import torch

from tinygpt import MoEConfig, TinyGPT
from tinygpt.errors import ConfigError
from tinygpt.measure import variation
from tinygpt.model import Router, auxiliary_loss

from ..tools import (
    DISPATCHES,
    MODES,
    SHAPE,
    close,
    layer_of,
    model_of,
    moe_config,
    normal,
    random_ids,
    routers,
    with_equal_experts,
)


def seeded(model, *args, seed: int = 5, **options):
    torch.manual_seed(seed)
    return model(*args, **options)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_later_tokens_and_other_rows_change_nothing(mode, training):
    """Also where capacity is short: who is dropped depends on what came before, in that row."""
    model, idx = model_of(**MODES[mode]).train(training), random_ids()
    before = seeded(model, idx, return_routing=True)
    later, others = idx.clone(), idx.clone()
    later[:, 10:] = (later[:, 10:] + 7) % 65
    others[[0, 2]] = (others[[0, 2]] + 7) % 65
    after, beside = seeded(model, later, return_routing=True), seeded(model, others)
    close(after.logits[:, :10], before.logits[:, :10])
    close(beside.logits[1], before.logits[1])
    assert (after.logits[:, 10:] - before.logits[:, 10:]).abs().max() > 0.1
    drops = torch.stack([r.dropped for r in before.routing])
    limited = training and "capacity_factor" in MODES[mode]
    assert drops[:, :, :10].any() == drops[:, :, 10:].any() == limited
    if limited:
        assert any(
            (a.dropped != b.dropped).any()
            for a, b in zip(after.routing, before.routing, strict=True)
        )


def test_experts_that_choose_their_tokens_see_the_future(monkeypatch):
    """The control: what the test above would see in a router that leaks (Zhou et al. 2022)."""

    def choose(self, probs):
        favourites = probs.topk(probs.shape[1] // 4, dim=1).indices  # of each expert, (B, T / 4, E)
        taken = torch.zeros_like(probs).scatter(1, favourites, probs)
        return taken.argmax(-1, keepdim=True)

    monkeypatch.setattr(Router, "_choose", choose)
    model, idx = model_of(), random_ids()
    later = idx.clone()
    later[:, 10:] = (later[:, 10:] + 7) % 65
    assert (model(idx).logits[:, :10] - model(later).logits[:, :10]).abs().max() > 1e-2


def test_jitter_is_for_the_routers_eyes_only():
    layer, dense = with_equal_experts("gelu", top_k=2, norm_topk_prob=True, jitter=0.5)
    x = normal(2, 9, 16)
    close(layer.train()(x)[0], dense(x))


def router_gradient(model: TinyGPT) -> float:
    """Norm of the gradient that the language-model loss alone sends to the first router."""
    idx = random_ids()
    model(idx[:, :-1], idx[:, 1:]).loss.backward()
    return model.blocks[0].ffn.router.proj.weight.grad.norm().item()


@pytest.mark.parametrize("moe", [{}, {"scores": "sigmoid"}, {"straight_through": True}])
def test_a_top_1_router_learns_from_the_language_model_loss(moe):
    assert router_gradient(model_of(**moe, balance="none").train()) > 1e-3


def test_a_top_1_router_whose_weight_is_divided_by_itself_learns_nothing(monkeypatch):
    """The control, and the defect of several public implementations."""
    weigh = Router._weigh

    def normed(self, probs, experts):
        weights = weigh(self, probs, experts)
        return weights / weights.sum(-1, keepdim=True)

    monkeypatch.setattr(Router, "_weigh", normed)
    assert router_gradient(model_of(balance="none").train()) < 1e-6
    assert router_gradient(model_of(balance="loss").train()) > 1e-4


STRAIGHT = [
    {},
    {"top_k": 3},
    {"top_k": 4},
    {"top_k": 3, "top_p": 0.6},
    {"scores": "sigmoid"},
    {"scores": "sigmoid", "top_k": 3},
]


@pytest.mark.parametrize("moe", STRAIGHT)
def test_straight_through_weights_have_the_values_of_p_over_a_constant_sum(moe):
    """In value and gradient p / sum(p).detach(), which a renormalised router is in value alone."""
    router = layer_of(straight_through=True, routed_scaling_factor=2.0, **moe).router
    routing, direction = router(normal(2, 9, 16)), normal(2, 9, router.config.top_k, seed=7)
    logits = routing.logits.detach().requires_grad_()
    p = logits.sigmoid() if "scores" in moe else logits.softmax(-1)
    p = p.gather(-1, routing.experts.clamp(max=3)) * (routing.experts < 4)
    expected = 2 * p / p.detach().sum(-1, keepdim=True)
    close(routing.weights, expected)
    if moe == {}:
        assert torch.equal(routing.weights, torch.full((2, 9, 1), 2.0))
    (wanted,) = torch.autograd.grad((expected * direction).sum(), logits)
    (found,) = torch.autograd.grad((routing.weights * direction).sum(), routing.logits)
    close(found, wanted)


@pytest.mark.parametrize("top_k", [1, 2])
def test_straight_through_weights_stay_finite_where_a_probability_is_zero_in_float32(top_k):
    """Biases may choose such an expert; p / p would be 0 / 0."""
    router = layer_of(straight_through=True, balance="bias", top_k=top_k).router
    x, direction = torch.ones(1, 1, 16), torch.tensor([0.0, 400.0, 800.0, 700.0])
    router.proj.weight.data.copy_(-direction[:, None].expand(4, 16) / 16)
    router.bias.copy_(torch.tensor([0.0, 0.0, 20.0, 10.0]))
    routing = router(x)
    assert routing.experts.flatten().tolist() == [2, 3][:top_k]
    assert routing.probs[0, 0, 2] == 0
    close(routing.weights.sum(), torch.tensor(1.0))
    (gradient,) = torch.autograd.grad(routing.weights[0, 0, 0], router.proj.weight)
    assert gradient.isfinite().all()


def test_normalising_a_single_weight_is_refused_with_the_reason():
    with pytest.raises(ConfigError, match=r"norm_topk_prob with top_k=1.*router gets no gradient"):
        MoEConfig(norm_topk_prob=True, top_k=1)


@pytest.mark.parametrize("noisy", [False, True])
def test_each_balance_loss_evens_out_a_lopsided_router(noisy):
    losses = {"cv_weight": 1.0, "balance": "none"} if noisy else {}
    router = layer_of(noisy=noisy, **losses).router.train()
    x = normal(2, 64, 16) + 1.5
    optimizer = torch.optim.Adam(router.parameters(), lr=0.02)
    start = variation(router(x).load())
    weight = replace(router.config, balance_weight=1.0)
    for _ in range(60):
        optimizer.zero_grad()
        auxiliary_loss([router(x)], weight, None).backward()
        optimizer.step()
    assert start > 0.3
    assert variation(router.eval()(x).load()) < 0.5 * start


CHANCES = {
    "noise": {"noisy": True},
    "jitter": {"jitter": 0.3},
    "dropout": {"expert_dropout": 0.3},
}


@pytest.mark.parametrize("dispatch", DISPATCHES)
@pytest.mark.parametrize("chance", CHANCES)
def test_chance_acts_in_training_only(chance, dispatch):
    model, idx = model_of(**CHANCES[chance], dispatch=dispatch), random_ids()
    plain = model_of(dispatch=dispatch)
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if "noise" not in k})
    first, second = (seeded(model, idx, seed=s, return_routing=True) for s in (0, 1))
    assert torch.equal(first.logits, second.logits)
    assert torch.equal(first.logits, plain(idx).logits)
    model.train()
    noise = [seeded(model, idx, seed=s, return_routing=True) for s in (0, 1)]
    assert (noise[0].logits - noise[1].logits).abs().max() > 1e-3
    same = torch.equal(noise[0].routing[0].logits, noise[1].routing[0].logits)
    assert same == (chance == "dropout")  # which is inside the experts


def test_capacity_acts_in_training_only():
    model, idx = model_of(capacity_factor=0.5, top_k=2), random_ids()
    dropless = model_of(top_k=2)(idx, return_routing=True)
    out = model(idx, return_routing=True)
    assert torch.equal(out.logits, dropless.logits)
    assert not any(r.dropped.any() for r in out.routing)
    out = model.train()(idx, return_routing=True)
    assert all(r.dropped.any() for r in out.routing)
    assert (out.logits - dropless.logits).abs().max() > 1e-2


def test_expert_dropout_drops_a_share_of_what_the_experts_compute():
    layer = layer_of(replace(SHAPE, n_inner=4000), expert_dropout=0.25, straight_through=True)
    with torch.no_grad():
        for p in layer.experts.parameters():
            p.zero_()
        layer.experts.c_fc.bias.fill_(50.0)  # gelu(50) = 50
        layer.experts.c_proj.weight.fill_(1 / (50 * 4000))  # so the mean of what is kept
    y, _ = layer.train()(normal(1, 8, 16))
    close(y, torch.ones_like(y), atol=0.05)  # what is kept is made larger, the mean stays
    kept = y[0, :, 0] * 0.75 * 4000
    close(kept, kept.round(), atol=0.01)
    assert len(set(kept.round().tolist())) > 1


def test_ordinary_dropout_reaches_what_the_experts_give():
    model = model_of(replace(SHAPE, dropout=0.5), n_shared=1)
    layer, x = model.blocks[0].ffn, normal(4, 24, 16)
    expected, _ = layer(x)
    y, _ = layer.train()(x)
    assert 0.4 < (y == 0).float().mean() < 0.6
    close(y[y != 0], 2 * expected[y != 0])


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize(("top_k", "top_p"), [(3, 0.6), (5, 0.75), (5, 1.0), (2, 0.05)])
def test_top_p_takes_the_fewest_experts_that_reach_it(top_k, top_p, norm):
    router = layer_of(n_experts=5, top_k=top_k, top_p=top_p, norm_topk_prob=norm).router
    routing = router(normal(4, 20, 16))
    sizes = set()
    for b, t in itertools.product(range(4), range(20)):
        probs = routing.probs[b, t].tolist()
        ranked = sorted(range(5), key=lambda e: -probs[e])
        # the first number of experts that is enough: the one that crosses is in
        enough = [n for n in range(1, 6) if sum(sorted(probs)[-n:]) >= top_p - 1e-6]
        expected = ranked[: min(top_k, *enough, 5)]
        assert routing.experts[b, t].tolist() == expected + [5] * (top_k - len(expected))
        total = sum(probs[e] for e in expected) if norm else 1.0
        weights = [probs[e] / total for e in expected] + [0.0] * (top_k - len(expected))
        assert routing.weights[b, t].tolist() == pytest.approx(weights, abs=1e-6)
        sizes.add(len(expected))
    assert len(sizes) > 1 or top_p in (1.0, 0.05)


def test_top_p_takes_the_fewest_experts_by_exact_fractions():
    """Probabilities of two decimals, and of three; half of the limits are a sum of some of them."""
    rng, ties = random.Random(0), 0
    for _ in range(600):
        E, whole = rng.randint(2, 10), rng.choice([10, 100, 1000])
        cuts = sorted(rng.randint(0, whole) for _ in range(E - 1))
        parts = sorted((b - a for a, b in pairwise([0, *cuts, whole])), reverse=True)
        sums = list(accumulate(parts))
        limit = rng.choice(sums) if rng.random() < 0.5 else rng.randint(1, whole)
        if not 0 < limit < whole:
            continue
        K = rng.randint(1, E)
        config = moe_config(n_experts=E, top_k=K, top_p=limit / whole)
        logits = (torch.tensor([[parts]]) / whole).log().clamp(min=-1e4)
        router = Router(replace(config, n_embd=E, n_head=1))
        with torch.no_grad():
            router.proj.weight.copy_(torch.eye(E))
        needed = next(n for n, s in enumerate(sums, start=1) if s >= limit)
        used = router(logits).experts[0, 0] < E
        assert used.tolist() == [k < needed for k in range(K)], (parts, limit)
        ties += limit in sums[: K - 1]
    assert ties > 50


@pytest.mark.parametrize("offset", [0.0, -5.0])
@pytest.mark.parametrize("top_groups", [1, 2, 4])
def test_a_token_stays_within_its_best_groups(top_groups, offset):
    """Masked with 0 instead of minus infinity, another group would win where biases are below."""
    router = layer_of(
        n_experts=8, top_k=2, scores="sigmoid", balance="bias", n_groups=4, top_groups=top_groups
    ).router
    router.bias.add_(offset)
    routing = router(normal(4, 20, 16))
    scores = (routing.probs + router.bias).view(4, 20, 4, 2)
    outside = 0
    for b, t in itertools.product(range(4), range(20)):
        best = scores[b, t].sum(-1).topk(top_groups).indices.tolist()
        allowed = [e for e in range(8) if e // 2 in best]
        expected = sorted(allowed, key=lambda e: -scores[b, t].flatten()[e].item())[:2]
        assert routing.experts[b, t].tolist() == expected
        outside += expected != scores[b, t].flatten().topk(2).indices.tolist()
    assert (outside > 0) == (top_groups < 4)


def test_forced_balance_is_even_and_still_trains_the_router():
    model, idx = model_of(forced_balance=True, top_k=2, balance="none"), random_ids()
    out = model(idx[:, :-1], idx[:, 1:], return_routing=True)
    for routing in out.routing:
        counts = routing.counts()
        assert counts.max() - counts.min() <= 1
        assert (routing.experts[..., 0] != routing.experts[..., 1]).all()
        close(routing.weights, routing.probs.gather(-1, routing.experts))
    out.loss.backward()
    assert all(r.proj.weight.grad.norm() > 1e-3 for r in routers(model))


@pytest.mark.parametrize("scores", ["softmax", "sigmoid"])
def test_a_router_is_one_matrix_and_the_scores_of_its_products(scores):
    router = layer_of(scores=scores, top_k=2).router
    x = normal(2, 5, 16)
    logits = x @ router.proj.weight.T
    probs = logits.softmax(-1) if scores == "softmax" else 1 / (1 + torch.exp(-logits))
    routing = router(x)
    close(routing.logits, logits)
    close(routing.probs, probs)
    close(routing.weights, probs.sort(descending=True).values[..., :2])
    assert torch.equal(routing.experts, probs.argsort(descending=True)[..., :2])


@pytest.mark.parametrize(("top_k", "factor", "T"), [(1, 0.5, 24), (2, 0.9, 10), (3, 0.7, 7)])
def test_the_first_in_time_are_kept_up_to_the_capacity(top_k, factor, T):
    layer = layer_of(top_k=top_k, capacity_factor=factor).train()
    x = normal(3, T, 16)
    y, routing = layer(x)
    limit = math.ceil(factor * top_k * T / 4)
    for b in range(3):
        taken = [0] * 4
        for t, k in itertools.product(range(T), range(top_k)):
            e = int(routing.experts[b, t, k])
            assert routing.dropped[b, t, k] == (taken[e] >= limit)
            taken[e] += 1
    assert routing.dropped.any()
    assert (routing.weights[routing.dropped] == 0).all()
    kept = routing.weights[~routing.dropped]
    close(kept, routing.probs.gather(-1, routing.experts)[~routing.dropped])
    lost = routing.dropped.all(-1)
    assert lost.any() or top_k > 1
    assert y[lost].abs().sum() == 0
    assert y[~lost].abs().sum(-1).min() > 0
    assert routing.counts().sum() == 3 * T * top_k  # drops count as choices
