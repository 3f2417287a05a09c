"""A dense model as a mixture: the same outputs at first, and routers that learn."""

from dataclasses import replace

import pytest
import torch

from tinygpt import ModelConfig, TinyGPT
from tinygpt.errors import ConfigError
from tinygpt.model import upcycle
from tinygpt.text import CharTokenizer

from ..tools import ALPHABET, DISPATCHES, LLAMA, SHAPE, normal, random_ids, routers, shaken

CASES = {  # experts, top_k, granularity
    "top-1": (4, 1, 1),
    "top-2": (4, 2, 1),
    "all": (4, 4, 1),
    "odd": (5, 3, 1),
    "cut in two": (8, 2, 2),
    "cut in four, two copies": (8, 8, 4),
    "cut in four, twice the work": (16, 8, 4),
}
SHAPES = {
    "gpt2": SHAPE,
    "llama": replace(LLAMA, n_head=4, n_kv_head=2, n_inner=24),
    "llama, biases": replace(LLAMA, mlp_bias=True, attn_bias=True, tie_embeddings=True, n_inner=24),
    "relu2, shifted": replace(SHAPE, mlp="relu2", token_shift=True, bigrams=99),
}


def assert_says_the_same(mixture: TinyGPT, dense: TinyGPT) -> None:
    """To 1e-5 of the largest logit: float32 cannot hold more of large ones."""
    with torch.inference_mode():
        expected, found = dense(random_ids()).logits, mixture(random_ids()).logits
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize("dispatch", DISPATCHES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("case", CASES)
def test_a_mixture_says_what_the_dense_model_does(case, shape, dispatch):
    dense = shaken(SHAPES[shape])
    mixture = upcycle(dense, *CASES[case], dispatch=dispatch)
    assert_says_the_same(mixture, dense)
    assert_says_the_same(mixture.train(), dense.train())
    used = {
        e for r in mixture(random_ids(), return_routing=True).routing for e in r.experts.unique()
    }
    assert len(used) > 1


@pytest.mark.parametrize("settings", [{"every": 2}, {"first_dense": 1}, {"scores": "sigmoid"}])
def test_some_layers_and_other_scores(settings):
    dense = shaken(SHAPE)
    mixture = upcycle(dense, 4, 2, **settings)
    assert len(routers(mixture)) == (2 if "scores" in settings else 1)
    assert_says_the_same(mixture, dense)


@pytest.mark.parametrize("dispatch", ["loop", "split"])
@pytest.mark.parametrize("shape", ["gpt2", "llama"])
def test_each_experts_rows_are_bit_for_bit_those_of_the_dense_layer(shape, dispatch):
    """Which rows are multiplied at once may change the rounding: so the same rows are compared."""
    dense = shaken(SHAPES[shape])
    layer, mlp = upcycle(dense, 4, 1, dispatch=dispatch).blocks[0].ffn, dense.blocks[0].ffn
    x = normal(2, 24, 16)
    y, routing = layer(x)
    experts = routing.experts[..., 0]
    assert torch.equal(routing.weights, torch.ones_like(routing.weights))
    for e in experts.unique():
        assert torch.equal(y[experts == e], mlp(x[experts == e]))


def router_gradients(mixture: TinyGPT) -> list[float]:
    """Norms of the gradients that the language-model loss alone sends to the routers."""
    idx = random_ids()
    mixture(idx[:, :-1], idx[:, 1:]).lm_loss.backward()
    return [router.proj.weight.grad.norm().item() for router in routers(mixture)]


@pytest.mark.parametrize(("n_experts", "top_k", "granularity"), list(CASES.values()))
def test_routers_learn_from_the_first_update_on_unless_they_take_all_of_whole_copies(
    n_experts, top_k, granularity
):
    gradients = router_gradients(upcycle(shaken(SHAPE), n_experts, top_k, granularity))
    if top_k == n_experts and granularity == 1:
        assert max(gradients) < 1e-6
    else:
        assert min(gradients) > 1e-3


def test_a_router_that_divides_by_the_sum_would_learn_nothing_from_equal_experts():
    """The control: the values are the same, and the gradient is rounding."""
    mixture = upcycle(shaken(SHAPE), 4, 2)
    for router in routers(mixture):
        router.config = replace(router.config, straight_through=False, norm_topk_prob=True)
    assert max(router_gradients(mixture)) < 1e-6


def spread(mixture: TinyGPT) -> float:
    """Largest distance of an expert's weights from the first one's."""
    stack = mixture.blocks[0].ffn.experts.c_fc.weight
    return (stack - stack[:1]).abs().max().item()


def trained(mixture: TinyGPT, steps: int = 5) -> TinyGPT:
    optimizer = torch.optim.AdamW(mixture.train().parameters(), lr=1e-2)
    for seed in range(steps):
        idx = random_ids(seed=seed)
        optimizer.zero_grad()
        mixture(idx[:, :-1], idx[:, 1:]).loss.backward()
        optimizer.step()
    return mixture


@pytest.mark.parametrize(("n_experts", "top_k", "granularity"), [(4, 1, 1), (4, 2, 1), (4, 4, 1)])
def test_copies_move_apart_in_training(n_experts, top_k, granularity):
    mixture = upcycle(shaken(SHAPE), n_experts, top_k, granularity)
    assert spread(mixture) == 0
    assert spread(trained(mixture)) > 1e-3


def test_with_the_same_weights_for_all_of_them_copies_stay_clones_for_ever():
    """All experts, and routers that tell none from another: nothing is left to break the tie."""
    mixture = upcycle(shaken(SHAPE), 4, 4, dispatch="loop")
    for router in routers(mixture):
        router.proj.weight.data.zero_()
    trained(mixture)
    assert spread(mixture) == 0


def test_it_is_a_model_of_its_own_with_the_dense_ones_type_mode_and_tokenizer():
    dense = shaken(SHAPE).bfloat16()
    dense.tokenizer = CharTokenizer(ALPHABET)
    mixture = upcycle(dense, 4, 2, balance="bias")
    assert mixture.tokenizer is dense.tokenizer
    assert not mixture.training
    assert {t.dtype for t in mixture.state_dict().values()} == {torch.bfloat16}
    assert mixture.lm_head.weight is mixture.wte.weight
    held = {p.data_ptr() for p in dense.parameters()}
    assert not held & {p.data_ptr() for p in mixture.parameters()}
    assert all(p.requires_grad for p in mixture.parameters())


def test_seeds_decide_the_routers_and_nothing_else():
    dense, state = shaken(SHAPE), torch.get_rng_state()
    a, b, c = (upcycle(dense, 4, 2, seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(a[n], b[n]) for n in a)
    assert {n for n in a if not torch.equal(a[n], c[n])} == {n for n in a if "router.proj" in n}
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("shape", ["gpt2", "llama, biases"])
def test_a_share_of_each_experts_hidden_units_is_drawn_anew(shape):
    """A unit is a row of gate and value, their biases, and a column of the second matrix."""
    dense = shaken(replace(SHAPES[shape], n_inner=200))
    mixture = upcycle(dense, 4, 2, reinit=0.25)
    kept, drawn = (m.blocks[0].ffn.state_dict() for m in (upcycle(dense, 4, 2), mixture))
    changed = {n: kept[n] != drawn[n] for n in kept if "experts" in n}
    columns = changed["experts.c_proj.weight"]  # (E, C, F)
    units = columns.any(1)
    assert torch.equal(units, columns.all(1))
    assert units.sum(1).tolist() == [50] * 4
    assert not torch.equal(units[0], units[1])
    for name in ("experts.c_fc.weight", "experts.c_fc.bias"):
        rows = changed[name].reshape(4, -1, 200, changed[name][0, 0].numel())  # (E, P, F, C or 1)
        assert torch.equal(rows, units[:, None, :, None].expand_as(rows))
    assert not changed["experts.c_proj.bias"].any()
    fresh, old = drawn["experts.c_proj.weight"].mT[units], dense.blocks[0].ffn.c_proj.weight
    assert (fresh.std() / old.std()).item() == pytest.approx(1, abs=0.1)


REFUSED = {
    "top_k of parts": ((4, 3, 2), {}, "top_k=3 is not divisible by granularity=2"),
    "experts of parts": ((5, 2, 2), {}, "n_experts=5 is not divisible by granularity=2"),
    "width": ((6, 3, 3), {}, "the feed-forward width=64 is not divisible by granularity=3"),
    "no copy": ((4, 2, 0), {}, "granularity=0 must be a whole number"),
    "more than all": ((2, 4), {}, "top_k=4 is more than n_experts=2"),
    "its own": ((4, 2), {"n_shared": 1}, "n_shared: upcycling sets it itself"),
    "top-p of parts": ((4, 2, 2), {"top_p": 0.5}, "wants all parts of a copy chosen together"),
    "noise of parts": ((4, 2, 2), {"noisy": True}, "groups and noise would not do"),
    "share": ((4, 2), {"reinit": 1.5}, "reinit=1.5 must be between 0 and 1"),
    "a text for a share": ((4, 2), {"reinit": "x"}, "reinit='x' must be between 0 and 1: a number"),
    "no share": ((4, 2), {"reinit": None}, "reinit=None must be between"),
    "True for a share": ((4, 2), {"reinit": True}, "reinit=True must be between"),
    "a text for experts": (("8", 2), {}, "n_experts='8' must be a whole number"),
    "no top_k": ((4, None), {}, "top_k=None must be a whole number"),
    "half an expert": ((4, 2.5, 2), {}, "top_k=2.5 must be a whole number"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_not_say_the_same_is_refused(case):
    args, settings, message = REFUSED[case]
    with pytest.raises(ConfigError, match=message):
        upcycle(shaken(SHAPE), *args, **settings)


def test_experts_are_made_of_a_dense_model_only():
    mixture = upcycle(shaken(ModelConfig()), 2, 1)
    with pytest.raises(ConfigError, match=r"has experts already; take a dense one"):
        upcycle(mixture)
