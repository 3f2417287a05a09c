"""Every filter against transformers' class of the same name, and against its own definition."""

import doctest
import math
import random
from fractions import Fraction
from itertools import accumulate, pairwise

import numpy as np
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

from tinygpt.config import DecodingConfig
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


def exact_distribution(rng: random.Random) -> tuple[list[int], int]:
    """Probabilities of one to three decimals: the numerators, and what they add up to."""
    whole = 10 ** rng.randint(1, 3)
    cuts = sorted(rng.randint(0, whole) for _ in range(rng.choice([1, 2, 3, 9, 40])))
    return [b - a for a, b in pairwise([0, *cuts, whole])], whole


def in_float32(parts: list[int], whole: int) -> torch.Tensor:
    return (torch.tensor([parts]) / whole).log()


def places(kept: torch.Tensor) -> list[int]:
    return kept[0].isfinite().nonzero()[:, 0].tolist()


def test_top_p_keeps_the_fewest_that_reach_p_by_exact_fractions():
    """Half of the limits are a sum that some of the tokens have exactly."""
    rng, ties = random.Random(0), 0
    for _ in range(4000):
        parts, whole = exact_distribution(rng)
        ranked = sorted(range(len(parts)), key=lambda i: -parts[i])
        sums = list(accumulate(parts[i] for i in ranked))
        limit = rng.choice(sums) if rng.random() < 0.5 else rng.randint(1, whole)
        if not 0 < limit < whole:
            continue
        needed = next(n for n, s in enumerate(sums, start=1) if s >= limit)
        shift = rng.choice([0.0, 0.0, -5.0, 5.0])
        kept = filter_top_p(in_float32(parts, whole) + shift, limit / whole)
        assert places(kept) == sorted(ranked[:needed]), (parts, limit)
        ties += limit in sums
    assert ties > 1000


def test_min_p_and_epsilon_keep_what_equals_the_limit_by_exact_fractions():
    rng, ties = random.Random(0), 0
    for _ in range(4000):
        parts, whole = exact_distribution(rng)
        share = Fraction(rng.randint(1, 20), 20)  # of the largest
        expected = [i for i, n in enumerate(parts) if n > 0 and n >= share * max(parts)]
        assert places(filter_min_p(in_float32(parts, whole), float(share))) == expected
        limit = rng.choice([n for n in parts if n] + [rng.randint(1, whole)])
        expected = [i for i, n in enumerate(parts) if n >= limit or n == max(parts)]
        if limit < whole:
            assert places(filter_epsilon(in_float32(parts, whole), limit / whole)) == expected
        ties += share * max(parts) in parts[1:]
    assert ties > 200


def test_typical_keeps_the_fewest_that_reach_its_mass():
    """Among equal tokens all are as typical: the first k have the mass k / V."""
    for V in (3, 7, 10, 50):
        for k in range(1, V):
            kept = filter_typical(in_float32([1] * V, V), k / V)
            assert places(kept) == list(range(k)), (V, k)


def test_what_is_no_tie_is_left_alone():
    """p = .999 over 65 symbols, and nearer to 1: as in plain float64, of 8,000 rows at most one."""
    logits = random_logits(65, 3)
    p, order = logits.double().softmax(-1).sort(descending=True)
    before, different = p.cumsum(-1) - p, 0
    for mass in (0.9, 0.999, 0.999999, 1 - 1e-9):
        expected = torch.zeros_like(before < mass).scatter(-1, order, before < mass)
        different += (filter_top_p(logits, mass).isfinite() != expected).any(-1).sum()
    assert different <= 1


@pytest.mark.parametrize("t", [5e-324, 1e-46, 1e-38, 1e-30, 0.009, 0.01, 1.0, 1e30])
def test_temperatures_to_the_ends_of_their_range(t):
    """By exact fractions; a banned token stays banned, an empty row empty."""
    rows = [
        [2.0, -1.0, 1.999999, -math.inf], [-9e3, -9e3, -1e4, -math.inf],
        [1e-30, 0.0, -1e-30, -math.inf], [0.0, 0.0, 0.0, -math.inf], [1e4, 1e4 - 1, 0, -math.inf],
    ]  # fmt: skip
    result = apply_temperature(torch.tensor(rows), t).softmax(-1)
    for row, p in zip(torch.tensor(rows).tolist(), result.tolist(), strict=True):
        differences = [(Fraction(x) - Fraction(max(row))) / Fraction(t) for x in row[:3]]
        odds = [math.exp(max(d, -1000)) for d in differences]
        assert p == pytest.approx([*(x / sum(odds) for x in odds), 0.0], rel=1e-3, abs=1e-6)
    assert (apply_temperature(torch.full((1, 3), -math.inf), t) == -math.inf).all()


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


EXTREME = [math.inf, -math.inf, math.nan, 1e300, 1e31, -1e31, 1e-31, 1e-46, 5e-324, 10**400]


@pytest.mark.parametrize("value", EXTREME)
def test_penalties_beyond_what_float32_can_tell_are_refused(value):
    tokens = torch.zeros(1, 2, dtype=torch.long)
    with pytest.raises(ConfigError, match="repetition_penalty=.* must be"):
        apply_repetition_penalty(torch.ones(1, 3), tokens, value)
    if abs(value) > 1 or math.isnan(value):
        with pytest.raises(ConfigError, match="frequency=.* must be"):
            apply_frequency_penalty(torch.ones(1, 3), tokens, value, 0.0)
        with pytest.raises(ConfigError, match="presence=.* must be"):
            apply_frequency_penalty(torch.ones(1, 3), tokens, 0.0, value)
        for options in ({"frequency": value}, {"presence": value}, {"repetition_penalty": value}):
            with pytest.raises(ConfigError, match="must be"):
                DecodingConfig(**options)
    if value > 1e30 or not math.isfinite(value):
        with pytest.raises(ConfigError, match="temperature=.* must be"):
            apply_temperature(torch.ones(1, 3), value)


@pytest.mark.parametrize("value", [np.int64(2), np.float32(0.5), torch.tensor(2)])
def test_numbers_of_numpy_and_torch_are_refused_with_the_way_out(value):
    """But numpy's float64 is a Python float."""
    with pytest.raises(ConfigError, match=r"top_k=.* number of Python: int\(\.\.\.\) makes"):
        filter_top_k(torch.ones(1, 3), value)
    with pytest.raises(ConfigError, match=r"temperature=.* of Python: float\(\.\.\.\) makes one"):
        apply_temperature(torch.ones(1, 3), value)
    assert filter_top_p(torch.ones(1, 3), np.float64(0.5)).isfinite().sum() == 2


def test_penalties_out_of_range():
    tokens = torch.zeros(1, 2, dtype=torch.long)
    for penalty in (0.0, -1.0):
        with pytest.raises(ConfigError, match=f"repetition_penalty={penalty} must be between"):
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
