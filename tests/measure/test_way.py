"""One token's way is the one that the model's own parts give, step by step."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tinygpt.errors import ConfigError
from tinygpt.measure import token_way

from ..tools import VARIANTS, model_of, random_ids, shaken


def near(found, expected):
    np.testing.assert_allclose(found, expected.detach().numpy(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("layer", "head", "place"), [(0, 0, 0), (1, 2, 5), (2, 3, 11)])
def test_each_station_by_hand(layer, head, place):
    model, idx = shaken(replace(VARIANTS["gpt2"], vocab_size=65)), random_ids(1, 12)
    way = token_way(model, idx, place, layer, head)
    D = model.config.head_size
    x = model.wte(idx) + model.wpe(torch.arange(12))
    near(way.stream["embedding"], model.wte.weight[idx[0, place]])
    near(way.stream["+ position"], x[0, place])
    for n, block in enumerate(model.blocks):
        if n == layer:
            heads = block.attn.c_attn(block.ln_1(x))[0].view(12, 3, -1, D)[:, :, head]  # (T, 3, D)
            q, k, v = heads.unbind(1)
            near(np.stack([way.query, way.key, way.value]), torch.stack([q, k, v])[:, place])
            scores = k[: place + 1] @ q[place] / D**0.5
            near(way.scores, scores)
            near(way.weights, scores.softmax(0))
        x = x + block.attn(block.ln_1(x))[0]
        near(way.stream[f"+ attention {n}"], x[0, place])
        x = x + block.ffn(block.ln_2(x))
        near(way.stream[f"+ MLP {n}"], x[0, place])
    near(way.stream["last norm"], model.ln_f(x)[0, place])
    near(way.logits, F.linear(torch.tensor(way.stream["last norm"]), model.lm_head.weight))


def test_shared_keys_rotary_positions_and_experts():
    model, idx = shaken(VARIANTS["qwen"]), random_ids(1, 6)
    way = token_way(model, idx, 5, 1, 3)
    assert "+ position" not in way.stream
    expected = model.blocks[1].attn.c_attn
    G, D = model.config.kv_heads, model.config.head_size
    assert way.key.shape == (D,)
    assert expected.out_features == (model.config.n_head + 2 * G) * D
    assert abs(way.weights.sum() - 1) < 1e-5
    assert token_way(model_of(), idx, 5).logits.shape == (65,)


def test_nothing_is_left_on_the_model():
    model, idx = model_of(), random_ids(1, 6)
    model.train()
    token_way(model, idx, 2)
    assert not any(part._forward_hooks for part in model.modules())
    assert model.training


@pytest.mark.parametrize("wrong", [{"place": 6}, {"place": -1}, {"layer": 2}, {"head": 2}])
def test_what_is_not_there_is_said(wrong):
    with pytest.raises(ConfigError, match="is not there"):
        token_way(model_of(), random_ids(1, 6), **{"place": 0} | wrong)
