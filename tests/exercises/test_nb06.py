"""The exercises of notebook 06: typical mistakes are named."""

from functools import partial

import pytest

from tinygpt.exercises import examine
from tinygpt.files import ROOT

from .answers import with_body

NOTEBOOK = ROOT / "notebooks" / "06_gpt2_vs_qwen_moe_ptbr.ipynb"


defined_as = partial(with_body, NOTEBOOK)


def turn(angle: str, split: str = "x.chunk(2, dim=-1)", join: str = "") -> tuple[str, str]:
    together = join or "torch.cat([a * c - b * s, a * s + b * c], dim=-1)"
    start = "T, D = x.shape\nt, i = torch.arange(T)[:, None], torch.arange(D // 2)\n"
    turned = f"a, b = {split}\nc, s = angle.cos(), angle.sin()\nreturn {together}"
    return "rotate_pairs", f"{start}angle = {angle}\n{turned}"


ANGLE = "t / theta ** (2 * i / D)"
BESIDE = "torch.stack([a * c - b * s, a * s + b * c], dim=-1).flatten(1)"
UPDATES = "s = [seconds for what, seconds in events if what == 'update']\nn = tokens_per_update\n"

# other ways to be right
ALTERNATIVES = [
    (
        "rotate_pairs",
        "T, D = x.shape\n"
        "z = torch.complex(x[:, : D // 2], x[:, D // 2 :])\n"
        "angle = torch.outer(torch.arange(T), theta ** -(torch.arange(0, D, 2) / D))\n"
        "z = z * torch.polar(torch.ones_like(angle), angle)\n"
        "return torch.cat([z.real, z.imag], dim=-1)",
    ),
    ("expert_capacity", "return int(-(-factor * K * T // E))"),
    ("perplexity_alone", "return torch.tensor(total - weight * sum(balance_losses)).exp()"),
    ("tokens_per_second", UPDATES + "return n / sorted(s[1:])[len(s[1:]) // 2]"),
]


@pytest.mark.parametrize(("name", "body"), ALTERNATIVES)
def test_another_right_answer_passes(name, body):
    passed, said = examine(defined_as(name, body))
    assert passed, said


# name, body of the function, a word of the diagnosis
MISTAKES = [
    (*turn(f"-{ANGLE}"), "other way round"),
    (*turn("(t + 1) / theta ** (2 * i / D)"), "counted from 0"),
    (*turn("t / theta ** (i / D)"), "exponent is 2i / D"),
    (*turn("t * theta ** (2 * i / D)"), "turn slower"),
    (*turn("t * torch.ones(D // 2)"), "turn alike"),
    (*turn(ANGLE, "x[:, ::2], x[:, 1::2]", BESIDE), "neighbours"),
    (*turn(ANGLE, join="torch.cat([a * c + b * s, a * s + b * c], dim=-1)"), "keeps the length"),
    (*turn("t / 10_000 ** (2 * i / D)"), "theta is given"),
    (*turn(ANGLE, join="torch.cat([a * s + b * c, b * s - a * c], dim=-1)"), "not those asked"),
    (*turn(ANGLE, join="torch.cat([a * s - b * c, a * c + b * s], dim=-1)"), "exchanged"),
    ("rotate_pairs", "return x.clone()", "nothing is turned"),
    (*turn("3 * t * torch.ones(D // 2)"), "not those asked for"),
    (*turn(ANGLE, join="a"), "the shape stays"),
    ("rotate_pairs", "x *= 2\nreturn x", "you changed"),
    ("rotate_pairs", "return 1.0", "a tensor is asked"),
    ("expert_capacity", "return math.ceil(factor * T / E)", "K is missing"),
    ("expert_capacity", "return int(factor * T / E)", "K is missing"),
    ("expert_capacity", "return int(factor * K * T / E)", "round up"),
    ("expert_capacity", "return factor * K * T / E", "whole number"),
    ("expert_capacity", "return math.ceil(K * T / E)", "factor is missing"),
    ("expert_capacity", "return math.ceil(factor * K * T)", "all experts together"),
    ("expert_capacity", "return int(factor * K * T / E) + 1", "rounded up already"),
    ("expert_capacity", "return factor * math.ceil(K * T / E)", "multiply first"),
    ("expert_capacity", "return K * math.ceil(factor * T / E)", "with K too"),
    ("expert_capacity", "return int(factor * K * T / E + 0.5)", "round up"),
    ("expert_capacity", "return 7", "the answer is 160"),
    ("expert_capacity", "return str(math.ceil(factor * K * T / E))", "you return '160'"),
    ("expert_capacity", "return [math.ceil(factor * K * T / E)]", "you return [160]"),
    ("perplexity_alone", "return math.exp(total)", "balance losses and all"),
    ("perplexity_alone", "return total - weight * sum(balance_losses)", "e to it"),
    ("perplexity_alone", "return math.exp(total + weight * sum(balance_losses))", "already"),
    ("perplexity_alone", "return math.exp(total) - weight * sum(balance_losses)", "before the exp"),
    ("perplexity_alone", "return math.exp(total - sum(balance_losses))", "with their weight"),
    (
        "perplexity_alone",
        "return math.exp(total - weight * sum(balance_losses) / len(balance_losses))",
        "no mean",
    ),
    ("perplexity_alone", "return math.exp(total - weight)", "a loss of its own"),
    ("perplexity_alone", "return 2 ** (total - weight * sum(balance_losses))", "base is e"),
    ("perplexity_alone", "return math.exp(total) / sum(balance_losses)", "off the loss"),
    ("perplexity_alone", "return math.exp(total - 0.01 * sum(balance_losses))", "a weight of 0.02"),
    ("perplexity_alone", "return 1.0", "the answer is"),
    (
        "tokens_per_second",
        UPDATES + "return n * len(s) / sum(seconds for _, seconds in events)",
        "evaluations and saving",
    ),
    ("tokens_per_second", UPDATES + "return n * len(s) / sum(s)", "first update"),
    ("tokens_per_second", UPDATES + "return n * len(s[1:]) / sum(s[1:])", "a mean"),
    ("tokens_per_second", UPDATES + "return n * len(s) / s[-1]", "a single update"),
    ("tokens_per_second", UPDATES + "return n / s[-1]", "no measurement"),
    ("tokens_per_second", UPDATES + "return n / min(s)", "lucky"),
    ("tokens_per_second", UPDATES + "return pd.Series(s[1:]).median()", "seconds of an update"),
    ("tokens_per_second", UPDATES + "return 5 * n / pd.Series(s[1:]).median()", "several times"),
    ("tokens_per_second", UPDATES + "return n / pd.Series(sorted(s)[:-1]).median()", "the slowest"),
    (
        "tokens_per_second",
        "s = [s for what, s in events[1:] if what == 'update']\n"
        "return tokens_per_update / pd.Series(s).median()",
        "of all updates",
    ),
    ("tokens_per_second", UPDATES + "return n / pd.Series(s).median()", "of all updates"),
    ("tokens_per_second", UPDATES + "return pd.Series(s[1:]).median() / n", "per token"),
    ("tokens_per_second", UPDATES + "return pd.Series(s[1:]).median() * n", "not multiplied"),
    ("tokens_per_second", UPDATES + "return n / pd.Series(s[6:]).median()", "you return nan"),
    (
        "tokens_per_second",
        "return tokens_per_update / pd.Series([s for _, s in events[1:]]).median()",
        "the updates alone",
    ),
    ("tokens_per_second", "return 7.0", "the answer is"),
]


@pytest.mark.parametrize(("name", "body", "word"), MISTAKES)
def test_typical_mistake_is_diagnosed(name, body, word):
    passed, said = examine(defined_as(name, body))
    assert not passed
    assert said.startswith("✗")
    assert word in said
