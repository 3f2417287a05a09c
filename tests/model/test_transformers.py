from dataclasses import replace

import pytest
import torch

from tinygpt import generate_greedy
from tinygpt.model import rotary_table
from tinygpt.text import CharTokenizer

from ..parity import as_theirs
from ..tools import VARIANTS, close, ids, shaken

LLAMA = VARIANTS["llama"]
GROUPED = replace(LLAMA, n_kv_head=2)  # of 4: with 1 or 4 keys in the wrong order would not show
SHAPES = {
    "gpt2": VARIANTS["gpt2"],
    "llama": LLAMA,
    "llama, tied, another theta": replace(LLAMA, tie_embeddings=True, rope_theta=5e5),
    "llama, grouped queries": GROUPED,
    "llama, one key": replace(LLAMA, n_kv_head=1),
    "llama, biases, wide heads": replace(GROUPED, attn_bias=True, head_dim=12),
    "qwen2": replace(GROUPED, qkv_bias=True),
    "qwen3": replace(GROUPED, head_dim=12, qk_norm=True),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_equals_transformers(shape):
    config = SHAPES[shape]
    model, idx = shaken(config), ids(config)
    theirs = as_theirs(model)
    with torch.inference_mode():
        torch.testing.assert_close(model(idx).logits, theirs(idx).logits, atol=1e-5, rtol=1e-5)
        loss = theirs(idx, labels=idx).loss
    torch.testing.assert_close(model(idx[:, :-1], idx[:, 1:]).lm_loss, loss, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_greedy_continuation_equals_transformers(shape):
    config = SHAPES[shape]
    model = shaken(config)
    alphabet = [chr(ord("0") + i) for i in range(config.vocab_size)]
    tokenizer = CharTokenizer(alphabet)
    start = ids(config, batch=1, length=6)
    theirs = as_theirs(model)
    theirs.generation_config.eos_token_id = None  # ours has no end symbol
    expected = theirs.generate(start, do_sample=False, max_new_tokens=18, pad_token_id=0)
    ours = generate_greedy(model, tokenizer.decode(start[0]), 18, tokenizer=tokenizer)
    assert ours == tokenizer.decode(expected[0])


def test_attention_maps_of_grouped_queries_equal_transformers():
    model, idx = shaken(GROUPED), ids(GROUPED)
    theirs = as_theirs(model)
    theirs.set_attn_implementation("eager")
    with torch.inference_mode():
        ours, expected = model(idx, return_attention=True), theirs(idx, output_attentions=True)
    for mine, maps in zip(ours.attentions, expected.attentions, strict=True):
        close(mine, maps)


@pytest.mark.parametrize("theta", [1e4, 1e6])
def test_rotary_tables_equal_transformers_bit_by_bit(theta):
    """Frequencies rounded otherwise turn a far position by another angle: 1e-4 at 4,096."""
    theirs = as_theirs(shaken(replace(LLAMA, rope_theta=theta))).model.rotary_emb
    positions = torch.arange(8192)
    cos, sin = rotary_table(positions, LLAMA.head_size, theta)
    expected = theirs(torch.empty(1), positions[None])
    half = LLAMA.head_size // 2
    assert torch.equal(cos, expected[0][0])
    assert torch.equal(sin[:, half:], expected[1][0, :, half:])


def test_bf16_weights_are_as_near_to_float32_as_transformers_are():
    model, idx = shaken(replace(GROUPED, qkv_bias=True)), ids(GROUPED)
    theirs = as_theirs(model)
    with torch.inference_mode():
        exact = model(idx).logits
        errors = [
            (half(idx).logits.float() - exact).abs().mean().item()
            for half in (model.bfloat16(), theirs.bfloat16())
        ]
    assert 0 < errors[0] < 1.5 * errors[1]
