"""Every filter against transformers' class of the same name, and against its own definition."""

import doctest
import math

import pytest
import torch
from transformers import (
    EpsilonLogitsWarper,
    EtaLogitsWarper,
    MinPLogitsWarper,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from tinygpt.decoding import (
    NONE,
    allow_only,
    apply_frequency_penalty,
    apply_repetition_penalty,
    apply_temperature,
    ban_repeated_ngrams,
    filter_epsilon,
    filter_eta,
    filter_min_p,
    filter_top_k,
    filter_top_p,
    filter_typical,
    filters,
)
from tinygpt.errors import ConfigError

from ..tools import histories, random_logits

PAIRS = {
    "temperature": (apply_temperature, TemperatureLogitsWarper, [0.3, 0.7, 1.0, 2.5]),
    "top-k": (filter_top_k, TopKLogitsWarper, [1, 2, 7, 64, 65, 100]),
    "top-p": (filter_top_p, TopPLogitsWarper, [0.01, 0.3, 0.5, 0.9, 0.99]),
    "min-p": (filter_min_p, MinPLogitsWarper, [0.01, 0.1, 0.5, 1.0]),
    "typical": (filter_typical, TypicalLogitsWarper, [0.05, 0.2, 0.7, 0.95]),
    "epsilon": (filter_epsilon, EpsilonLogitsWarper, [0.0003, 0.02, 0.2, 0.9]),
    "eta": (filter_eta, EtaLogitsWarper, [0.0003, 0.02, 0.2, 0.9]),
}


@pytest.mark.parametrize("V", [2, 65])
@pytest.mark.parametrize("name", PAIRS)
def test_equals_transformers(name, V):
    ours, theirs, values = PAIRS[name]
    for seed, value in enumerate(values):
        logits = random_logits(V, seed)
        before = logits.clone()
        result = ours(logits, value)
        expected = theirs(value)(None, logits.clone())
        # a sum that meets the limit to the last bit may fall on either side
        differs = ((result == -torch.inf) != (expected == -torch.inf)).any(dim=1)
        assert differs.sum() <= 1, f"{name} {value}: {differs.sum()} rows"
        torch.testing.assert_close(result[~differs], expected[~differs])
        assert torch.equal(logits, before), "the input was changed"
        assert result.dtype == torch.float32


@pytest.mark.parametrize("penalty", [0.5, 1.2, 3.0])
def test_repetition_penalty_equals_transformers(penalty):
    logits, tokens = random_logits(65, 0), histories(65, 40, 1)
    expected = RepetitionPenaltyLogitsProcessor(penalty)(tokens, logits.clone())
    torch.testing.assert_close(apply_repetition_penalty(logits, tokens, penalty), expected)
    recent = RepetitionPenaltyLogitsProcessor(penalty)(tokens[:, -5:], logits.clone())
    windowed = apply_repetition_penalty(logits, tokens, penalty, window=5)
    torch.testing.assert_close(windowed, recent)
    assert not torch.equal(windowed, expected)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_ngram_ban_equals_transformers(n):
    logits, tokens = random_logits(65, 0), histories(4, 30, 1)  # few symbols: many repeats
    expected = NoRepeatNGramLogitsProcessor(n)(tokens, logits.clone())
    result = ban_repeated_ngrams(logits, tokens, n)
    torch.testing.assert_close(result, expected)
    assert (result == -torch.inf).any()


def test_bans_equal_transformers():
    logits, banned = random_logits(65, 0), [3, 7, 64]
    expected = SuppressTokensLogitsProcessor(banned)(None, logits.clone())
    allowed = torch.ones(65, dtype=torch.bool)
    allowed[banned] = False
    torch.testing.assert_close(allow_only(logits, allowed), expected)


def test_frequency_and_presence_by_hand():
    logits = torch.zeros(2, 4)
    tokens = torch.tensor([[0, 0, 1], [3, NONE, 3]])
    expected = torch.tensor([[-2.0, -1.5, 0.0, 0.0], [0.0, 0.0, 0.0, -2.0]])
    assert torch.equal(apply_frequency_penalty(logits, tokens, 0.5, 1.0), expected)


def test_padding_counts_nowhere():
    logits = random_logits(65, 0)[:100]
    tokens = histories(5, 12, 1)[:100]
    padded = torch.cat([torch.full((100, 7), NONE), tokens], dim=1)
    for penalise in (
        lambda t: apply_repetition_penalty(logits, t, 1.7),
        lambda t: apply_frequency_penalty(logits, t, 0.3, 0.2),
        lambda t: ban_repeated_ngrams(logits, t, 3),
        lambda t: ban_repeated_ngrams(logits, t, 1),
    ):
        assert torch.equal(penalise(padded), penalise(tokens))
    nothing = torch.full((100, 4), NONE)
    assert torch.equal(ban_repeated_ngrams(logits, nothing, 2), logits)


def test_exactly_k_survive_ties_and_the_first_wins():
    logits = torch.tensor([[1.0, 2.0, 2.0, 2.0, 0.0], [5.0, 5.0, 5.0, 5.0, 5.0]])
    kept = filter_top_k(logits, 2).isfinite()
    assert kept.tolist() == [[False, True, True, False, False], [True, True, False, False, False]]


def test_top_p_keeps_the_token_that_crosses():
    p = torch.tensor([[0.1, 0.2, 0.3, 0.4]])
    kept = {q: filter_top_p(p.log(), q).isfinite().sum().item() for q in (0.3, 0.41, 0.69, 0.71)}
    assert kept == {0.3: 1, 0.41: 2, 0.69: 2, 0.71: 3}
    assert filter_top_p(p.log(), 1e-9).isfinite().sum() == 1


def test_the_order_of_temperature_and_top_p_matters():
    """With logits 3, 2, 1 and p = .8: cooling first leaves one token, cutting first two."""
    logits = torch.tensor([[3.0, 2.0, 1.0]])
    cooled_first = filter_top_p(apply_temperature(logits, 0.5), 0.8)
    cut_first = apply_temperature(filter_top_p(logits, 0.8), 0.5)
    assert cooled_first.isfinite().sum() == 1
    assert cut_first.isfinite().sum() == 2


@pytest.mark.parametrize(
    ("function", "value"),
    [
        (apply_temperature, -0.1),
        (apply_temperature, math.nan),
        (filter_top_k, -1),
        (filter_top_p, 0.0),
        (filter_top_p, 1.01),
        (filter_min_p, -0.1),
        (filter_min_p, 1.1),
        (filter_typical, 0.0),
        (filter_epsilon, 1.0),
        (filter_eta, -0.1),
    ],
)
def test_values_out_of_range(function, value):
    with pytest.raises(ConfigError, match=f"={value} must be"):
        function(torch.zeros(1, 3), value)


def test_penalties_out_of_range():
    tokens = torch.zeros(1, 2, dtype=torch.long)
    for penalty in (0.0, -1.0):
        with pytest.raises(ConfigError, match=f"repetition_penalty={penalty} must be above 0"):
            apply_repetition_penalty(torch.zeros(1, 3), tokens, penalty)
    with pytest.raises(ConfigError, match="repetition_window=0"):
        apply_repetition_penalty(torch.zeros(1, 3), tokens, 1.2, window=0)
    with pytest.raises(ConfigError, match="no_repeat_ngram=-1"):
        ban_repeated_ngrams(torch.zeros(1, 3), tokens, -1)


def test_the_worked_examples_in_the_docstrings_are_true():
    flags = doctest.NORMALIZE_WHITESPACE
    names = {"torch": torch} | vars(filters)
    assert doctest.testmod(filters, extraglobs=names, optionflags=flags).attempted >= 11
    assert doctest.testmod(filters, extraglobs=names, optionflags=flags).failed == 0
