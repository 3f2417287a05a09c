import copy
import math

import pytest
import torch
from torch.nn import functional as F

from tinygpt import ModelConfig, TinyGPT
from tinygpt.errors import ConfigError
from tinygpt.measure import expert_layers, read, surprisal, without_expert

from ..tools import DISPATCHES, MODES, SHAPE, close, model_of, random_ids, shaken


def silenced(model: TinyGPT, layer: int, expert: int) -> TinyGPT:
    """All of the model copied, and an expert's last matrix set to zero by hand."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        c_proj = model.blocks[layer].ffn.experts.c_proj
        c_proj.weight[expert] = 0
        c_proj.bias[expert] = 0
    return model


@pytest.mark.parametrize("dispatch", DISPATCHES)
def test_an_expert_that_is_left_out_gives_nothing(dispatch):
    model, idx = model_of(top_k=2, every=2, dispatch=dispatch), random_ids()
    assert expert_layers(model) == [1]
    before = {name: p.clone() for name, p in model.state_dict().items()}
    other = without_expert(model, 0, 2)
    expected = silenced(model, 1, 2)(idx, return_routing=True)
    actual = other(idx, return_routing=True)
    close(actual.logits, expected.logits)
    assert torch.equal(actual.routing[0].weights, expected.routing[0].weights)
    assert (actual.logits - model(idx).logits).abs().max() > 1e-3
    assert all(torch.equal(p, before[name]) for name, p in model.state_dict().items())
    assert other.wte.weight is model.wte.weight
    assert other.tokenizer is model.tokenizer


def test_a_dense_model_has_no_layers_with_experts():
    assert expert_layers(TinyGPT(SHAPE)) == []


@pytest.mark.parametrize("length", [1, 2, 23, 24, 25, 36, 37, 100])
@pytest.mark.parametrize("at_once", [1, 1 << 14])
def test_each_token_is_read_once_with_at_least_half_a_block_before_it(length, at_once, monkeypatch):
    """Against one forward pass per token, over the window that the rule gives it."""
    monkeypatch.setattr("tinygpt.measure.reading.AT_ONCE", at_once)
    model = model_of(**MODES["noisy"])  # with all of Routing's fields, in eval mode
    tokens = random_ids(1, length)[0]
    reading, T = read(model, tokens), min(length, 24)
    starts = [*range(0, length - T, 12), length - T]
    nats = surprisal(model, tokens)
    assert math.isnan(nats[0])
    assert torch.equal(nats[1:], reading.nats)
    for t in range(length):
        start = next(s for s in starts if t < s + T)
        assert start == 0 or t - start >= 12
        out = model(tokens[None, start : t + 1], return_routing=True)
        if t + 1 < length and start == next(s for s in starts if t < s + T):
            expected = F.cross_entropy(out.logits[0, -1:], tokens[t + 1 : t + 2])
            close(reading.nats[t], expected, 1e-4)
        for mine, theirs in zip(reading.routings, out.routing, strict=True):
            close(mine.probs[0, t], theirs.probs[0, -1], 1e-4)
            assert torch.equal(mine.experts[0, t], theirs.experts[0, -1])


def test_reading_leaves_the_mode_and_its_loss_is_the_mean():
    model = TinyGPT(ModelConfig(block_size=8, dropout=0.5)).train()
    tokens = random_ids(1, 8)[0]
    reading = read(model, tokens)
    assert model.training
    assert reading.routings == []
    assert reading.loss == pytest.approx(float(reading.nats.mean()))
    assert torch.equal(reading.nats, read(model.eval(), tokens).nats)


def test_no_text_is_refused():
    with pytest.raises(ConfigError, match="at least one"):
        read(shaken(SHAPE), torch.tensor([], dtype=torch.long))
