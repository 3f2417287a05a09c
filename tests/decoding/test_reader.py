from dataclasses import replace

import pytest
import torch

from tinygpt import TinyGPT, generate, generate_greedy, generateV2
from tinygpt.errors import ConfigError
from tinygpt.model import KVCache

from ..tools import ALPHABET, VARIANTS, ready


def test_the_cache_changes_no_logit(model):
    idx = torch.randint(65, (2, 24), generator=torch.manual_seed(0))
    expected = model(idx).logits
    cache = KVCache(model.config, batch_size=2)
    parts = [model(part, cache=cache).logits for part in idx.split([7, 1, 5, 1, 10], dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"seed": 3}, {"seed": 4, "top_p": 0.9}])
def test_with_and_without_the_cache_the_same_text(model, options):
    for new in (15, 60):  # inside the block, and beyond it
        cached = generateV2(model, "ABCDE", new, **options)
        assert cached == generateV2(model, "ABCDE", new, use_cache=False, **options)


def test_crop_equals_recomputing_the_last_block(model):
    ids = model.tokenizer.encode("ABC")
    for _ in range(50):
        window = torch.tensor([ids[-24:]])
        ids.append(int(model(window).logits[0, -1].argmax()))
    assert generate_greedy(model, "ABC", 50) == model.tokenizer.decode(ids)


@pytest.mark.parametrize("prompt", ["ABC", ALPHABET[:40]])
def test_roll_equals_a_sliding_window_mask(prompt):
    model = ready(VARIANTS["modern"])
    T = model.config.block_size
    long = TinyGPT(replace(model.config, block_size=200)).eval()
    long.load_state_dict(model.state_dict())
    ids = model.tokenizer.encode(prompt)
    for _ in range(60):
        ids.append(int(sliding_window_logits(long, torch.tensor([ids]), T)[0, -1].argmax()))
    assert generate_greedy(model, prompt, 60, past_block="roll") == model.tokenizer.decode(ids)
    assert generate_greedy(model, prompt, 60) != model.tokenizer.decode(ids)  # crop is another


def sliding_window_logits(model, idx, T):
    """One forward pass in which each token sees itself and the T - 1 before it."""
    from tinygpt.model import rotary_table

    n = idx.shape[1]
    distance = torch.arange(n)[:, None] - torch.arange(n)
    table = rotary_table(torch.arange(n), model.config.head_size, model.config.rope_theta)
    mask = (distance >= 0) & (distance < T)
    x = model.wte(idx)
    for block in model.blocks:
        x, _ = block(x, table, mask)
    return model.lm_head(model.ln_f(x))


def test_stop_fills_the_block_and_one_token_more(model):
    text = generate_greedy(model, "ABC", 100, past_block="stop")
    assert len(text) == 25  # the last token is written, never read
    assert generate_greedy(model, "ABC", 100).startswith(text)
    assert len(generate_greedy(model, ALPHABET[:24], 100, past_block="stop")) == 25


def test_a_prompt_longer_than_the_block(model):
    prompt = ALPHABET[:40]
    assert generate_greedy(model, prompt, 5)[40:] == generate_greedy(model, prompt[-24:], 5)[24:]
    with pytest.raises(ConfigError, match="40 tokens is longer than block_size=24.*'crop'"):
        generate(model, prompt, 5, past_block="stop")


def test_roll_is_refused_for_learned_positions():
    with pytest.raises(ConfigError, match="'roll' needs rotary positions"):
        generate(ready(VARIANTS["gpt2"]), "A", 5, past_block="roll")
