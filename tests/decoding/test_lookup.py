from dataclasses import replace

import pytest
import torch

import tinygpt
from tinygpt import generate_greedy
from tinygpt.decoding import Writer, generate_lookup
from tinygpt.decoding.lookup import _speculate

from ..tools import ALPHABET, VARIANTS, ready


@pytest.mark.parametrize(("ngram", "draft"), [(1, 1), (1, 8), (2, 4), (3, 20)])
def test_prompt_lookup_equals_greedy(model, ngram, draft):
    for prompt in ("ABCABCAB", "A", ALPHABET[:30]):
        expected = generate_greedy(model, prompt, 45)
        assert generate_lookup(model, prompt, 45, ngram=ngram, draft=draft) == expected


def test_prompt_lookup_needs_fewer_passes_where_text_repeats():
    model = ready(replace(VARIANTS["gpt2"], block_size=200))
    with torch.no_grad():
        for block in model.blocks:  # nearly a bigram model: its greedy text soon loops
            block.attn.c_proj.weight.zero_()
        model.wpe.weight.zero_()
    writer = Writer(model, ["ABC"], 150, None, tinygpt.DecodingConfig(temperature=0.0))
    passes = _speculate(writer, ngram=2, draft=8)
    assert writer.text(0) == generate_greedy(model, "ABC", 150)
    assert passes < 100
