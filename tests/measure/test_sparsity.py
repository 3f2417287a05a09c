"""Sparsity is counted from what is computed: a model that computes too much is found out."""

import math
from dataclasses import replace

import pytest
import torch

from tinygpt import TinyGPT
from tinygpt.measure import (
    experts_computed,
    gradient_flow,
    layer_figures,
    memory_per_batch,
    peak_bytes,
)
from tinygpt.model import Experts

from ..tools import DISPATCHES, LLAMA, SHAPE, model_of, random_ids, routers, shaken


@pytest.mark.parametrize("shape", [SHAPE, LLAMA], ids=["gelu", "swiglu"])
@pytest.mark.parametrize("dispatch", [*DISPATCHES, "auto"])
@pytest.mark.parametrize("top_k", [1, 2, 4])
def test_as_many_experts_are_computed_as_are_chosen(shape, dispatch, top_k):
    shape = replace(shape, n_embd=32, n_inner=32)  # rows that the grouped kernel takes as they are
    model = model_of(shape, top_k=top_k, dispatch=dispatch)
    assert experts_computed(model, random_ids()) == pytest.approx([top_k, top_k])


def test_fewer_are_computed_where_fewer_are_chosen():
    model, idx = model_of(top_k=3, top_p=0.6), random_ids()
    used = [
        (r.experts < 4).sum().item() / idx.numel() for r in model(idx, return_routing=True).routing
    ]
    assert experts_computed(model, idx) == pytest.approx(used)
    assert max(used) < 3


def test_experts_that_are_computed_and_thrown_away_are_counted(monkeypatch):
    """What published code does: all experts for all tokens, then a mask."""

    def dense(self, x, experts, weights):
        y = torch.zeros_like(x)
        for e, layer in enumerate(self._each()):
            share = (weights * (experts == e)).sum(-1, keepdim=True)
            y = y + layer(x) * share
        return y

    honest = model_of(top_k=2)
    before = honest(random_ids()).logits
    monkeypatch.setattr(Experts, "forward", dense)
    assert torch.allclose(honest(random_ids()).logits, before, atol=1e-5)  # nobody sees it there
    assert experts_computed(honest, random_ids()) == pytest.approx([4, 4])


def test_blocks_without_experts_are_left_out():
    assert len(experts_computed(model_of(every=2), random_ids())) == 1
    assert experts_computed(shaken(SHAPE), random_ids()) == []


def test_gradients_are_those_of_a_backward_pass():
    model, x, y = model_of(top_k=2), random_ids(seed=1), random_ids(seed=2)
    flow = gradient_flow(model, x, y)
    assert all(p.grad is None for p in model.parameters())
    model(x, y).lm_loss.backward()
    for i, block in enumerate(model.blocks):
        gradient = block.ffn.router.proj.weight.grad
        assert flow.routers[i] == pytest.approx(gradient.norm().item(), rel=1e-5)
        for e in range(4):
            parts = [p.grad[e].flatten() for p in block.ffn.experts.parameters()]
            expected = torch.cat(parts).norm().item()
            assert flow.experts[i, e].item() == pytest.approx(expected, rel=1e-4)


def test_a_router_that_cannot_learn_and_experts_without_tokens_have_no_gradient():
    model, x = model_of(top_k=1), random_ids()
    for router in routers(model):
        router.proj.weight.requires_grad_(False)
    one = model.blocks[0].ffn.router
    with torch.no_grad():
        one.proj.weight.zero_()  # a tie, which the first expert wins
    flow = gradient_flow(model, x, x)
    assert flow.routers == [0, 0]
    assert flow.experts[0, 0] > 0
    assert flow.experts[0, 1:].tolist() == [0, 0, 0]


def test_a_top_1_router_learns_from_the_language_model_loss():
    flow = gradient_flow(model_of(top_k=1), random_ids(seed=1), random_ids(seed=2))
    assert min(flow.routers) > 1e-4


def test_a_row_for_each_layer_with_experts():
    model, tokens = model_of(top_k=2, first_dense=1), random_ids(1, 500)[0]
    (row,) = layer_figures(model, tokens, 200)
    assert (row["layer"], row["computed"]) == (1, pytest.approx(2))
    assert sum(row["load"]) == pytest.approx(1)
    assert 0 < row["grad_least"] <= row["grad_most"]
    assert 0 < row["entropy"] < math.log(4)


# --- memory ---


def test_peak_memory_in_closed_form():
    layer = torch.nn.Linear(1000, 1000, bias=False)  # 4 MB

    def forward():
        with torch.no_grad():
            x = torch.zeros(100, 1000)  # 0.4 MB, as each of the others
            a = layer(x)
            b = a + 1
            del a
            c = b.view(-1)[:50_000]
            del b
            return c + torch.ones(50_000)

    def loop():
        for _ in range(5):
            x = torch.zeros(100, 1000)
        return x

    def training():  # at the end: the input, the gradient of the output, and that of the weights
        layer(torch.ones(100, 1000)).relu().sum().backward()
        layer.weight.grad = None

    assert peak_bytes(forward, layer) == pytest.approx(1.2e6, abs=1e3)
    assert peak_bytes(loop, layer) == pytest.approx(0.8e6, abs=1e3)
    assert peak_bytes(training, layer) == pytest.approx(4e6 + 2 * 0.4e6, abs=1e3)


def test_memory_grows_with_the_batch_and_by_what_backward_passes_keep():
    rows = memory_per_batch(TinyGPT(SHAPE), [1, 4, 16])
    assert [row["batch"] for row in rows] == [1, 4, 16]
    forward, training = ([row[f"{name}_mb"] for row in rows] for name in ("forward", "training"))
    assert forward == sorted(forward)
    assert all(b > a for a, b in zip(forward, training, strict=True))
    assert rows[2]["forward_mb_per_sample"] == pytest.approx(forward[2] / 16)
    more = [(b - a) / n for a, b, n in ((*training[:2], 3), (*training[1:], 12))]
    assert more[1] == pytest.approx(more[0], rel=0.3)  # what a window takes


@pytest.mark.cuda
def test_a_gpu_is_measured_by_its_own_allocator():
    layer = torch.nn.Linear(1000, 1000, bias=False).cuda()

    def forward():
        with torch.no_grad():
            return layer(torch.zeros(1000, 1000, device="cuda")) + 1  # 4 MB each

    assert peak_bytes(forward, layer) == pytest.approx(12e6, rel=0.1)
    model = model_of(top_k=2).cuda()
    assert experts_computed(model, random_ids().cuda()) == pytest.approx([2, 2])
    rows = memory_per_batch(model, [1, 4])
    assert 0 < rows[0]["forward_mb"] < rows[1]["training_mb"]
