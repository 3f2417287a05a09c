import pytest
import torch

from tinygpt import ModelConfig
from tinygpt.measure import count_parameters, flops_per_token
from tinygpt.model import Router
from tinygpt.study import ARMS, STUDIES
from tinygpt.training import make_optimizers

SHAPES = {name: STUDIES[name].model for name in ("notebook", "laptop")}
SMALL = ModelConfig(block_size=16, n_layer=2, n_head=2, n_embd=16)


def routers(model):
    return [module for module in model.modules() if isinstance(module, Router)]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_arms_are_matched_but_for_their_routers(shape):
    models = {name: arm.build(shape) for name, arm in ARMS.items()}
    counts = {name: count_parameters(model) for name, model in models.items()}
    dense, total = counts["dense"], counts["dense-total"].total
    for name, model in models.items():
        chosen = sum(p.numel() for router in routers(model) for p in router.parameters())
        biases = shape.n_layer * shape.n_embd * shape.mlp_bias  # a second expert's output bias
        if name != "dense-total":
            assert 0 <= counts[name].active - dense.active - chosen <= biases, name
            flops = flops_per_token(model) - flops_per_token(models["dense"])
            assert flops == 6 * chosen, name
        if ARMS[name].moe:
            assert abs(counts[name].total - total) < 0.01 * total, name


def test_the_treatments_of_routers():
    """All from the same start; the frozen ones are in no optimizer and get no gradient."""
    idx = torch.randint(65, (2, 16), generator=torch.Generator().manual_seed(0))
    for name in ("top-1", "learned-x10", "frozen", "frozen-x10", "frozen-x10-detached"):
        torch.manual_seed(1)
        plain = ARMS["top-1"].build(SMALL)
        torch.manual_seed(1)
        model = ARMS[name].build(SMALL)
        model(idx, idx).loss.backward()
        trained = {
            id(p)
            for optimizer in make_optimizers(model, STUDIES["laptop"].train)
            for group in optimizer.param_groups
            for p in group["params"]
        }
        for router, start in zip(routers(model), routers(plain), strict=True):
            scale = 10.0 if "x10" in name else 1.0
            torch.testing.assert_close(router.proj.weight, scale * start.proj.weight)
            learns = "frozen" not in name
            assert (router.proj.weight.grad is not None) == learns
            assert (id(router.proj.weight) in trained) == learns


@pytest.mark.parametrize("name", ["frozen-x10", "frozen-x10-detached"])
def test_a_detached_router_teaches_the_stream_nothing(name):
    """The gradient of the router's probabilities with respect to what it reads."""
    layer = ARMS[name].build(SMALL).blocks[0].ffn
    x = torch.randn(1, 5, 16, requires_grad=True)
    probs = layer.router(x).probs
    assert probs.requires_grad == (name == "frozen-x10")
    assert layer(x)[0].requires_grad  # the experts' own gradient goes on


@pytest.mark.parametrize("design", STUDIES.values(), ids=STUDIES)
def test_designs_name_what_there_is(design):
    arms, compared = design.arms, design.comparisons
    for arm in arms.values():
        assert {arm.tuned_as, arm.seconds_of or arm.name} <= set(arms)
        assert arms[arm.tuned_as].like is None
    assert set(design.usual) <= set(arms)
    assert design.train.max_steps % design.looks == 0
    assert len(set(compared)) == len(compared)
    assert {name for c in compared for name in (c.first, c.second)} == set(arms)
