import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn

from tinygpt import PRESETS, TinyGPT, TrainConfig
from tinygpt.training import Muon, lr_factor, make_optimizers, orthogonalize, set_lr
from tinygpt.training.optim import NEWTON_SCHULZ

from ..tools import SHAPE, model_of


def test_muon_takes_the_experts_and_adamw_the_router():
    """A router's rows are directions to compare with, not a matrix to orthogonalise."""
    model = model_of(n_shared=1, noisy=True)
    adamw, muon = make_optimizers(model, TrainConfig(optimizer="muon", weight_decay=0.3))
    names = {id(p): name for name, p in model.named_parameters()}

    def of(params):
        return {names[id(p)].removeprefix("blocks.0.ffn.") for p in params}

    (group,) = muon.param_groups
    wanted = {f"experts.{n}.weight" for n in ("c_fc", "c_proj")}
    wanted |= {f"shared.{n}.weight" for n in ("c_fc", "c_proj")}
    assert {name for name in of(group["params"]) if not name.startswith("blocks")} == wanted
    decayed, free = (of(g["params"]) for g in adamw.param_groups)
    assert {"router.proj.weight", "router.noise.weight"} <= decayed
    assert {"experts.c_fc.bias", "experts.c_proj.bias"} <= free  # although they look like matrices
    assert [g["weight_decay"] for g in adamw.param_groups] == [0.3, 0.0]
    groups = [g for o in (adamw, muon) for g in o.param_groups]
    assert sum(len(g["params"]) for g in groups) == len(names)


def curve(**changes):
    config = replace(TrainConfig(warmup_steps=10, min_lr_ratio=0.1), **changes)
    return [lr_factor(step, 100, config) for step in range(101)]


def test_warm_up_is_linear_and_starts_above_zero():
    for schedule in ("cosine", "constant", "wsd"):
        factors = curve(schedule=schedule)
        assert factors[:10] == pytest.approx([(i + 1) / 11 for i in range(10)])
        assert factors[10] == pytest.approx(1)


def test_cosine_falls_to_the_floor():
    factors = curve(schedule="cosine")
    assert factors[55] == pytest.approx(0.55)  # half-way: the middle of 1 and 0.1
    assert factors[100] == pytest.approx(0.1)
    assert factors[10:] == sorted(factors[10:], reverse=True)


def test_wsd_is_flat_then_linear():
    factors = curve(schedule="wsd", decay_fraction=0.4)
    assert factors[10:61] == pytest.approx([1.0] * 51)
    assert factors[80] == pytest.approx(0.55)
    assert factors[100] == pytest.approx(0.1)


def test_a_decay_never_begins_before_the_warm_up_has_ended():
    config = TrainConfig(schedule="wsd", warmup_steps=80, decay_fraction=0.6, min_lr_ratio=0.0)
    factors = [lr_factor(step, 100, config) for step in range(101)]
    assert factors[80] == pytest.approx(1)
    assert max(abs(a - b) for a, b in pairwise(factors)) < 0.06


def test_constant_and_past_the_end():
    assert curve(schedule="constant")[10:] == [1.0] * 91
    assert lr_factor(1000, 100, TrainConfig()) == pytest.approx(0.1)


def test_decay_pulls_on_matrices_only_and_no_parameter_is_missed():
    model = TinyGPT(PRESETS["tiny"].model)
    # biases of several experts, stacked, look like a matrix
    model.blocks[0].register_parameter("c_fc_bias", nn.Parameter(torch.zeros(4, 8)))
    (adamw,) = make_optimizers(model, TrainConfig(weight_decay=0.3, beta1=0.8, beta2=0.88))
    assert all(group["betas"] == (0.8, 0.88) for group in adamw.param_groups)
    decayed, free = (group["params"] for group in adamw.param_groups)
    assert [g["weight_decay"] for g in adamw.param_groups] == [0.3, 0.0]
    assert len(decayed) + len(free) == len(list(model.parameters()))
    assert all(p.dim() == 2 for p in decayed)
    names = {id(p): n for n, p in model.named_parameters()}
    assert {names[id(p)].split(".")[-1] for p in free if p.dim() == 2} == {"c_fc_bias"}


def test_muon_takes_the_blocks_matrices_and_adamw_the_rest():
    model = TinyGPT(PRESETS["modern"].model)
    adamw, muon = make_optimizers(model, replace(PRESETS["modern"].train, weight_decay=0.2))
    assert muon.param_groups[0]["weight_decay"] == 0.2
    names = {id(p): n for n, p in model.named_parameters()}
    muons = {names[id(p)] for group in muon.param_groups for p in group["params"]}
    others = {names[id(p)] for group in adamw.param_groups for p in group["params"]}
    assert muons == {
        n for n in names.values() if n.startswith("blocks") and "norm" not in n and "ln_" not in n
    }
    assert muons | others == set(names.values())
    assert not muons & others


def test_learning_rates_are_set_from_their_peaks():
    adamw, muon = make_optimizers(TinyGPT(PRESETS["modern"].model), PRESETS["modern"].train)
    for factor in (0.5, 0.25):
        set_lr([adamw, muon], factor)
        assert muon.param_groups[0]["lr"] == factor * PRESETS["modern"].train.muon_lr
        assert adamw.param_groups[0]["lr"] == factor * PRESETS["modern"].train.lr


@pytest.mark.parametrize("shape", [(8, 8), (4, 16), (16, 4), (3, 12, 5)])
def test_orthogonalize_keeps_singular_vectors_and_levels_singular_values(shape):
    matrix = torch.randn(shape, generator=torch.manual_seed(0))
    result = orthogonalize(matrix)
    values = torch.linalg.svdvals(result)
    assert values.min() > 0.6
    assert values.max() < 1.3
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    inner = u.mT @ result @ v.mT  # diagonal exactly when the singular vectors are kept
    off = inner - torch.diag_embed(torch.diagonal(inner, dim1=-2, dim2=-1))
    assert off.abs().max() < 1e-4


def one_step(parameters, gradients, **options):
    for p, g in zip(parameters, gradients, strict=True):
        p.grad = g
    Muon(parameters, lr=0.1, momentum=0.9, **options).step()


def test_one_step_against_the_formula():
    start, gradient = torch.randn(2, 6, 4, generator=torch.manual_seed(0))
    p = nn.Parameter(start.clone())
    one_step([p], [gradient], weight_decay=0.5)
    average = 0.1 * gradient
    direction = 0.1 * gradient + 0.9 * average  # Nesterov
    expected = start * (1 - 0.1 * 0.5) - 0.1 * math.sqrt(6 / 4) * orthogonalize(direction)
    torch.testing.assert_close(p.detach(), expected)


def test_stacked_experts_and_fused_qkv_are_treated_matrix_by_matrix():
    starts, gradients = torch.randn(2, 3, 4, 6, generator=torch.manual_seed(0))
    alone = [nn.Parameter(s.clone()) for s in starts]
    for p, g in zip(alone, gradients, strict=True):
        one_step([p], [g.clone()])
    expected = torch.stack([p.detach() for p in alone])

    experts = nn.Parameter(starts.clone())
    one_step([experts], [gradients.clone()])
    torch.testing.assert_close(experts.detach(), expected)

    fused = nn.Parameter(starts.reshape(12, 6).clone())
    one_step([fused], [gradients.reshape(12, 6).clone()], parts={id(fused): [(3, 4)]})
    torch.testing.assert_close(fused.detach(), expected.view(12, 6))

    whole = nn.Parameter(starts.reshape(12, 6).clone())  # not told: one 12 x 6 matrix
    one_step([whole], [gradients.reshape(12, 6).clone()])
    assert (whole.detach() - expected.view(12, 6)).abs().max() > 0.01


def test_a_batch_of_equal_shapes_equals_one_by_one():
    starts, gradients = torch.randn(2, 3, 5, 5, generator=torch.manual_seed(0))
    together = [nn.Parameter(s.clone()) for s in starts]
    one_step(together, [g.clone() for g in gradients])
    for p, s, g in zip(together, starts, gradients, strict=True):
        alone = nn.Parameter(s.clone())
        one_step([alone], [g.clone()])
        torch.testing.assert_close(p.detach(), alone.detach())


def levelled(matrix):
    """What `orthogonalize` tends to, by singular values: each goes through the polynomial alone."""
    u, values, v = torch.linalg.svd(matrix.double(), full_matrices=False)
    values = values / values.norm(dim=-1, keepdim=True)
    for a, b, c in NEWTON_SCHULZ:
        values = a * values + b * values**3 + c * values**5
    return (u * values[..., None, :]) @ v


def moved(model, name):
    """By how much Muon's first step, at a rate of 1, moves a weight; and its direction."""
    _, muon = make_optimizers(model, TrainConfig(optimizer="muon", muon_lr=1.0, weight_decay=0.0))
    p, generator = model.get_parameter(name), torch.manual_seed(0)
    p.grad = torch.randn(p.shape, generator=generator)
    start = p.detach().clone()
    muon.step()
    return start - p.detach(), (1 - 0.95**2) * p.grad  # Nesterov on an average of zeros


FUSED = {  # a weight, and how many matrices lie in its rows
    "blocks.0.attn.c_attn.weight": 3,
    "blocks.0.ffn.c_fc.weight": 2,
    "blocks.1.ffn.experts.c_fc.weight": 2,
    "blocks.1.ffn.shared.c_fc.weight": 2,
}


@pytest.mark.parametrize(("name", "parts"), FUSED.items())
def test_fused_weights_are_moved_as_the_matrices_that_they_are(name, parts):
    """SwiGLU's gate and value, as query, key and value: each levelled and scaled alone."""
    model = model_of(replace(SHAPE, mlp="swiglu"), n_shared=1, first_dense=1)
    change, direction = moved(model, name)
    rows, columns = direction.shape[-2] // parts, direction.shape[-1]
    alone = levelled(direction.view(-1, rows, columns))
    expected = max(1.0, rows / columns) ** 0.5 * alone
    torch.testing.assert_close(change, expected.view_as(change).float(), atol=2e-5, rtol=1e-3)


@pytest.mark.parametrize("mlp", ["gelu", "relu2"])
@pytest.mark.parametrize("name", [name for name in FUSED if "ffn" in name])
def test_a_feed_forward_layer_without_a_gate_is_one_matrix(mlp, name):
    model = model_of(replace(SHAPE, mlp=mlp), n_shared=1, first_dense=1)
    change, direction = moved(model, name)
    rows, columns = direction.shape[-2:]
    expected = max(1.0, rows / columns) ** 0.5 * levelled(direction)
    torch.testing.assert_close(change, expected.float(), atol=2e-5, rtol=1e-3)


def test_grouped_queries_keys_and_values_are_moved_each_alone():
    """The blocks in the rows of `c_attn` are of unlike heights."""
    config = replace(SHAPE, n_head=4, n_kv_head=1, head_dim=6)
    change, direction = moved(TinyGPT(config), "blocks.0.attn.c_attn.weight")
    assert change.shape == (4 * 6 + 2 * 6, 16)
    for mine, part in zip(change.split([24, 6, 6]), direction.split([24, 6, 6]), strict=True):
        expected = max(1.0, len(part) / 16) ** 0.5 * levelled(part)
        torch.testing.assert_close(mine, expected.float(), atol=2e-5, rtol=1e-3)


def test_a_closure_is_called_first_with_gradients():
    p = nn.Parameter(torch.ones(2, 2))
    muon = Muon([p], lr=0.1)

    def closure():
        muon.zero_grad()
        loss = (p * torch.eye(2)).sum()
        loss.backward()
        return loss

    assert muon.step(closure).item() == 2
    assert p.detach()[0, 0] < 1
    p.grad = None
    assert muon.step() is None  # nothing to do
