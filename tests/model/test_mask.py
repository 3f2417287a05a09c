import copy

import pytest
import torch

from tinygpt import TinyGPT
from tinygpt.errors import ConfigError
from tinygpt.model import MoE

from ..tools import DISPATCHES, SHAPE, close, model_of, random_ids, shaken


def silence(model: TinyGPT, layers: list[int], expert: int | slice, share: float = 0.0) -> TinyGPT:
    model = copy.deepcopy(model)
    with torch.no_grad():
        for i in layers:
            c_proj = model.blocks[i].ffn.experts.c_proj
            c_proj.weight[expert] *= share
            c_proj.bias[expert] *= share
    return model


@pytest.mark.parametrize("dispatch", DISPATCHES)
def test_an_expert_mask_silences_experts(dispatch):
    model, idx = model_of(top_k=2, dispatch=dispatch), random_ids()
    plain = model(idx, return_routing=True)
    close(model(idx, expert_mask=torch.ones(4)).logits, plain.logits)
    mask = torch.tensor([1, 0, 1, 1])
    masked = model(idx, expert_mask=mask, return_routing=True)
    close(masked.logits, silence(model, [0, 1], 1)(idx).logits)
    assert torch.equal(masked.routing[0].weights, plain.routing[0].weights)  # as decided
    one_layer = torch.tensor([[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 0.5, 1.0]])
    actual = model(idx, expert_mask=one_layer).logits
    close(actual, silence(model, [1], 2, 0.5)(idx).logits)
    assert (actual - plain.logits).abs().max() > 1e-3


def test_a_mask_of_zeros_leaves_a_block_without_its_feed_forward_layer(monkeypatch):
    model, idx = model_of(top_k=2), random_ids()
    masked = model(idx, expert_mask=torch.zeros(4)).logits
    monkeypatch.setattr(MoE, "forward", lambda self, x, context=None: torch.zeros_like(x))
    assert torch.equal(masked, model(idx).logits)


def test_a_mask_has_a_row_for_each_layer_with_experts_only():
    model, idx = model_of(every=2), random_ids()  # experts in the second block
    mask = torch.tensor([[0.0, 1.0, 1.0, 1.0]])
    close(model(idx, expert_mask=mask).logits, silence(model, [1], 0)(idx).logits)


@pytest.mark.parametrize("shape", [(5,), (1, 4), (3, 4), (4, 2), (), (2, 4, 1)])
def test_a_mask_of_another_shape_is_refused(shape):
    words = rf"expert_mask has shape \({str(shape)[1:-1]}\), this model wants \(4,\)"
    with pytest.raises(ConfigError, match=words):
        model_of()(random_ids(), expert_mask=torch.ones(shape))
    with pytest.raises(ConfigError, match="this model wants no experts"):
        shaken(SHAPE)(random_ids(), expert_mask=torch.ones(4))
