from dataclasses import replace

import pytest
import torch

from tinygpt import generate_beam, generate_greedy, generateV2
from tinygpt.decoding import beam_search

from ..parity import as_theirs
from ..tools import VARIANTS, ready


@pytest.fixture(params=["gpt2", "llama"])
def pair(request):
    """Our model and transformers' with the same weights."""
    model = ready(replace(VARIANTS[request.param], block_size=64))
    theirs = as_theirs(model)
    theirs.generation_config.eos_token_id = None  # ours has no end symbol
    return model, theirs


def their_text(pair, prompt, new, seed=0, **options):
    model, theirs = pair
    idx = torch.tensor([model.tokenizer.encode(prompt)])
    torch.manual_seed(seed)
    options = {"top_k": 0, "pad_token_id": 0, "max_new_tokens": new} | options
    return [model.tokenizer.decode(row) for row in theirs.generate(idx, **options)]


def test_greedy_equals_transformers(pair):
    assert [generate_greedy(pair[0], "ABC", 40)] == their_text(pair, "ABC", 40, do_sample=False)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.7},
        {"top_k": 5},
        {"top_p": 0.8},
        {"min_p": 0.1},
        {"repetition_penalty": 1.3},
        {"temperature": 0.8, "top_k": 10, "top_p": 0.9},
        {"temperature": 1.5, "top_k": 30, "top_p": 0.9, "min_p": 0.02, "repetition_penalty": 1.2},
    ],
)
def test_samples_equal_transformers_token_for_token(pair, options):
    for seed in range(3):
        ours = generateV2(pair[0], "ABC", 40, seed=seed, **options)
        assert [ours] == their_text(pair, "ABC", 40, seed, do_sample=True, **options)


def test_typical_epsilon_eta_and_ngrams_equal_transformers(pair):
    for ours, theirs in (
        ({"typical": 0.7}, {"typical_p": 0.7}),
        ({"epsilon": 0.01}, {"epsilon_cutoff": 0.01}),
        ({"eta": 0.01}, {"eta_cutoff": 0.01}),
        ({"no_repeat_ngram": 2}, {"no_repeat_ngram_size": 2}),
    ):
        text = generateV2(pair[0], "ABC", 40, seed=1, **ours)
        assert [text] == their_text(pair, "ABC", 40, 1, do_sample=True, **theirs)


@pytest.mark.parametrize("n_beams", [1, 2, 5])
def test_beam_search_equals_transformers(pair, n_beams):
    expected = their_text(
        pair, "ABC", 30, do_sample=False, num_beams=n_beams, num_return_sequences=n_beams
    )
    best = beam_search(pair[0], "ABC", 30, n_beams=n_beams)
    assert [text for text, _ in best] == expected
    assert [score for _, score in best] == sorted((s for _, s in best), reverse=True)
    assert generate_beam(pair[0], "ABC", 30, n_beams=n_beams) == expected[0]
