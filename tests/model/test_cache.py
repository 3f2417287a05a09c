from dataclasses import replace

import pytest
import torch

from tinygpt import generate_batch
from tinygpt.decoding import Step
from tinygpt.errors import ConfigError
from tinygpt.model import FixedCache, KVCache
from tinygpt.text import CharTokenizer

from ..tools import LLAMA, MODES, SHAPE, VARIANTS, close, model_of, random_ids, shaken

SHAPES = {"learned": SHAPE, "rope": LLAMA}
SHAPES["shifted"] = replace(LLAMA, bigrams=999, token_shift=True)
CACHED = [mode for mode in MODES if mode != "forced"]  # which goes by the place in the batch


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("mode", CACHED)
def test_reading_in_pieces_with_a_cache_equals_reading_at_once(mode, shape):
    model, idx = model_of(shape, **MODES[mode]), random_ids()
    cache = KVCache(model.config, batch_size=3)
    with torch.inference_mode():
        pieces = [model(part, cache=cache).logits for part in idx.split([7, 1, 1, 5, 1, 9], dim=1)]
        close(torch.cat(pieces, dim=1), expected := model(idx).logits)
        cache.restart()
        model(idx[:, :20], cache=cache)
        step = Step(model, cache)  # how `generate` reads one token
        for t in range(20, 24):
            close(step(idx[:, t]), expected[:, t])


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("mode", ["top-1", "capacity, top-2", "deepseek", "shared"])
def test_writing_with_a_cache_equals_recomputation(mode, shape):
    model = model_of(shape, **MODES[mode])
    model.lm_head.weight.data.mul_(2)
    model.tokenizer = CharTokenizer("".join(chr(48 + i) for i in range(65)))
    prompts = ["0", "ABCDE", "hello"]  # of unlike lengths: padded on the left
    fast, slow = (generate_batch(model, prompts, 20, seed=3, use_cache=c) for c in (True, False))
    assert fast == slow
    assert fast[2] == generate_batch(model, prompts, 20, seed=3)[2]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("mode", CACHED)
def test_only_the_last_logits_are_those_of_all(mode, shape):
    """With and without a cache, which then holds the same; and with padding."""
    model, idx = model_of(shape, **MODES[mode]), random_ids()
    with torch.inference_mode():
        expected = model(idx).logits
        close(model(idx, only_last=True).logits, expected[:, -1:])
        for padding in (None, torch.tensor([0, 2, 4])):
            one, all_ = (KVCache(model.config, 3, padding=padding) for _ in range(2))
            for part in idx.split([9, 1, 6, 8], dim=1):
                last, every = model(part, cache=one, only_last=True), model(part, cache=all_)
                assert last.logits.shape == (3, 1, 65)
                close(last.logits, every.logits[:, -1:])
            close(one.buffer, all_.buffer)
            close(one.read, all_.read)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("parts", [(24,), (5, 1, 1, 9), (1, 1, 1), (20, 4)])
def test_attention_maps_with_a_cache_are_those_without(variant, parts):
    model = shaken(VARIANTS[variant]).eval()
    idx, cache = random_ids(3), KVCache(model.config, batch_size=3)
    with torch.inference_mode():
        whole = model(idx, return_attention=True)
        start = 0
        for length in parts:
            end = start + length
            out = model(idx[:, start:end], cache=cache, return_attention=True)
            for kind in ("attentions", "attention_scores"):
                for mine, theirs in zip(getattr(out, kind), getattr(whole, kind), strict=True):
                    close(mine, theirs[:, :, start:end, :end])
            close(out.logits, whole.logits[:, start:end])
            start = end


@pytest.mark.parametrize("variant", VARIANTS)
def test_attention_maps_honour_padding(variant):
    """A row padded on the left has the maps that its own tokens have alone."""
    model, idx, n = shaken(VARIANTS[variant]).eval(), random_ids(1, 9), 4
    padded = torch.cat([torch.zeros(1, n, dtype=torch.long), idx], dim=1)
    cache = KVCache(model.config, batch_size=1, padding=torch.tensor([n]))
    with torch.inference_mode():
        alone = model(idx, return_attention=True)
        first = model(padded[:, :-1], cache=cache, return_attention=True)
        last = model(padded[:, -1:], cache=cache, return_attention=True)
    for layer in range(model.config.n_layer):
        expected = alone.attentions[layer]
        actual = first.attentions[layer][:, :, n:]
        assert actual[..., :n].abs().max() == 0
        close(actual[..., n:], expected[:, :, :-1, :-1])
        assert last.attentions[layer][..., :n].abs().max() == 0
        close(last.attentions[layer][..., n:], expected[:, :, -1:])
    close(last.logits, alone.logits[:, -1:])


def test_attention_maps_past_the_block_are_refused_with_the_reason():
    model, cache = shaken(VARIANTS["llama"]).eval(), KVCache(VARIANTS["llama"])
    with torch.inference_mode():
        model(random_ids(1, 24), cache=cache)
        with pytest.raises(ConfigError, match="another order than that of time"):
            model(random_ids(1, 1), cache=cache, return_attention=True)
        model(random_ids(1, 1), cache=cache)  # without maps it may go on


def test_attention_maps_of_a_fixed_cache_leave_free_slots_out():
    config = VARIANTS["modern"]
    model, idx, cache = shaken(config).eval(), random_ids(1, 7), KVCache(config)
    fixed = FixedCache(cache)
    with torch.inference_mode():
        model(idx[:, :6], cache=cache)
        fixed.follow(cache)
        actual = model(idx[:, 6:], cache=fixed, return_attention=True).attentions
        expected = model(idx, return_attention=True).attentions
    for mine, theirs in zip(actual, expected, strict=True):
        close(mine[..., :7], theirs[:, :, 6:])
        assert mine[..., 7:].abs().max() == 0


def test_reordered_rows_go_on_as_the_rows_that_they_were():
    model, idx = shaken(SHAPES["shifted"]), random_ids(3, 12)
    order, cache = (
        torch.tensor([2, 0, 0]),
        KVCache(model.config, 3, padding=torch.tensor([0, 2, 4])),
    )
    with torch.inference_mode():
        model(idx[:, :8], cache=cache)
        cache.reorder(order)
        read = [model(idx[order, t : t + 1], cache=cache).logits for t in range(8, 12)]
        for row, first in enumerate((4, 0, 0)):
            expected = model(idx[order][[row], first:]).logits[:, -4:]
            close(torch.cat(read, dim=1)[[row]], expected)


def test_only_the_last_logits_cannot_have_targets_for_all():
    idx = random_ids()
    with pytest.raises(ConfigError, match="only_last gives logits of one place"):
        shaken(SHAPE)(idx, idx, only_last=True)
