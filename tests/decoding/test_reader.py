from dataclasses import replace

import pytest
import torch

from tinygpt import TinyGPT, generate, generate_greedy
from tinygpt.decoding import generate_details
from tinygpt.errors import ConfigError
from tinygpt.model import KVCache

from ..tools import ALPHABET, VARIANTS, byte_model, ready, sliding_window_logits


def test_the_cache_changes_no_logit(model):
    idx = torch.randint(65, (2, 24), generator=torch.manual_seed(0))
    expected = model(idx).logits
    cache = KVCache(model.config, batch_size=2)
    parts = [model(part, cache=cache).logits for part in idx.split([7, 1, 5, 1, 10], dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"seed": 3}, {"seed": 4, "top_p": 0.9}])
def test_with_and_without_the_cache_the_same_text(model, options):
    for new in (15, 60):  # inside the block, and beyond it
        cached = generate(model, "ABCDE", new, **options)
        assert cached == generate(model, "ABCDE", new, use_cache=False, **options)


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


def test_the_prompt_is_counted_in_tokens():
    model = byte_model()  # its block_size is 24
    text = "the cat sat" * 8
    assert len(model.tokenizer.encode(text)) == 24
    (row,) = generate_details(model, [text], 5, seed=0, past_block="stop")
    assert len(row.tokens) == 1
    with pytest.raises(ConfigError, match="28 tokens is longer than block_size=24"):
        generate(model, "😀" * 7, 5, past_block="stop")
    with pytest.raises(ConfigError, match="prompt is empty"):
        generate(model, "")


def test_roll_is_refused_for_learned_positions():
    with pytest.raises(ConfigError, match="'roll' needs rotary positions"):
        generate(ready(VARIANTS["gpt2"]), "A", 5, past_block="roll")
