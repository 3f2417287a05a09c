"""The exercises of notebook 06, each with a diagnosis of the usual mistakes.

T positions, D channels of a head, E experts, K of them per token
"""

import math
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor

from ..model import rotary_table, rotate
from .registry import NotYet, exercise
from .tools import expect, is_number, is_tensor

Numbers = list[tuple[float, str]]  # wrong answers, and what is wrong with them


def _explain(seen: str, got: float, right: float, mistakes: Numbers) -> None:
    """Say which of the usual mistakes gave a number; nothing if it is right."""
    expect(not math.isnan(got), "you return nan: is it the mean of nothing, or 0 / 0?")
    if math.isclose(got, right, rel_tol=1e-5, abs_tol=1e-9):
        return
    for value, why in mistakes:
        expect(not math.isclose(got, value, rel_tol=1e-5, abs_tol=1e-9), f"{seen}: {why}.")
    raise NotYet(f"{seen} the answer is {right:,.4g}, but you return {got:,.4g}.")


@exercise
def rotate_pairs(answer: Callable) -> str:
    generator = torch.Generator().manual_seed(6)
    for D, theta in ((4, 100.0), (8, 10_000.0)):
        x = torch.randn(5, D, generator=generator)
        given = x.clone()
        got = is_tensor(answer(given, theta))
        expect(torch.equal(given, x), "you changed the tensor that was given.")
        expect(
            got.shape == x.shape,
            f"the shape stays {tuple(x.shape)}, but you return {tuple(got.shape)}.",
        )
        right = rotate(x, *rotary_table(torch.arange(5), D, theta))
        if not torch.allclose(got, right, atol=1e-5):
            _explain_turn(x, got, theta)
    return (
        "right. Nothing here is learned, and nothing is added to x: each pair keeps its length. "
        "The scores of two tokens know only how far apart they are."
    )


def _explain_turn(x: Tensor, got: Tensor, theta: float) -> None:
    """Say which of the usual mistakes turned x otherwise; x and `got` are `(T, D)`."""
    T, D = x.shape
    t, half = torch.arange(T)[:, None], D // 2
    steps = torch.arange(half)
    expect(not torch.allclose(got, x), "x comes back as it was: nothing is turned.")
    mistakes = [
        (-t * theta ** (-2 * steps / D), "it turns the other way round: position -1 for 1."),
        ((t + 1) * theta ** (-2 * steps / D), "positions are counted from 0, not from 1."),
        (t * theta ** (-steps / D), "the exponent is 2i / D. Half of it turns too fast."),
        (t * theta ** (2 * steps / D), "the later pairs turn slower: divide by theta^(2i / D)."),
        (t * torch.ones(half), "all pairs turn alike; each needs an angle of its own."),
        (t * 10_000.0 ** (-2 * steps / D), "theta is given, and you take 10,000 whatever it is."),
        (
            torch.pi / 2 - t * theta ** (-2 * steps / D),
            "cosine and sine are exchanged: at position 0 nothing is turned.",
        ),
    ]
    for angle, why in mistakes:
        expect(not torch.allclose(got, _turned(x, angle), atol=1e-5), why)
    angle = t * theta ** (-2 * steps / D)
    beside = torch.arange(D).view(half, 2).T.flatten()  # even channels first, then the odd ones
    wrong = torch.empty_like(x)
    wrong[:, beside] = _turned(x[:, beside], angle)
    expect(
        not torch.allclose(got, wrong, atol=1e-5),
        "your pairs are neighbours, channels 2i and 2i + 1. Here channel i is paired with "
        "channel i + D/2. Weights made for one layout are wrong in the other, and no error says "
        "so.",
    )
    lengths = got.norm(dim=-1), x.norm(dim=-1)
    expect(
        torch.allclose(*lengths, atol=1e-4),
        "a turn keeps the length of each pair, and yours does not: a cos + b sin and so on, with "
        "one minus sign.",
    )
    raise NotYet("the lengths are kept, but the angles or the pairs are not those asked for.")


def _turned(x: Tensor, angle: Tensor) -> Tensor:
    """x `(T, D)` with channels i and i + D/2 turned by `angle` `(T, D/2)`."""
    a, b = x.chunk(2, dim=-1)
    cos, sin = angle.cos(), angle.sin()
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


@exercise
def expert_capacity(answer: Callable) -> str:
    cases = ((512, 8, 2, 1.25), (512, 6, 1, 1.1), (10, 4, 1, 1.0), (9, 4, 1, 1.0), (10, 4, 2, 1.0))
    for T, E, K, factor in cases:
        got = is_number(answer(T, E, K, factor))
        right = math.ceil(factor * K * T / E)
        seen = f"For {T} tokens, {E} experts, {K} per token and a factor of {factor}"
        whole = factor * K * T / E
        mistakes = [
            (math.floor(whole), "round up: with less, an even load would be dropped"),
            (whole, "an expert takes a whole number of tokens: round up"),
            (math.ceil(K * T / E), "the factor is missing"),
            (math.ceil(factor * K * T), "that is for all experts together"),
            (K * math.ceil(factor * T / E), "multiply first, with K too, then round up"),
            (math.floor(whole) + 1, "a whole number is rounded up already: nothing is added"),
            (factor * math.ceil(K * T / E), "multiply first, then round up"),
        ]
        if K > 1:  # a whole number here, however rounded
            why = "K is missing. Each token makes K choices, so an even share is K T / E"
            mistakes.append((factor * T / E, why))
        _explain(seen, got, right, mistakes)
    return (
        "right. Without K, top-2 with a factor of 1.25 keeps at most 62.5 % of all choices, "
        "however even the load; the rest is thrown away."
    )


@exercise
def perplexity_alone(answer: Callable) -> str:
    for total, balance, weight in ((3.43, [1.0] * 11 + [1.4], 0.01), (2.9, [1.1, 0.9, 1.3], 0.02)):
        _check_perplexity(answer, total, balance, weight)
    return (
        "right. In twelve layers an even load adds 0.12 nats: a perplexity that is 13 % too high, "
        "and usually still higher where the load is uneven."
    )


def _check_perplexity(answer: Callable, total: float, balance: list[float], weight: float) -> None:
    got = is_number(answer(total, list(balance), weight))
    added = weight * sum(balance)
    seen = f"For a total of {total}, {len(balance)} layers and a weight of {weight}"
    mistakes = [
        (math.exp(total), "that is e to the total, balance losses and all"),
        (total - added, "that is the cross-entropy; a perplexity is e to it"),
        (math.exp(total + added), "the balance losses are in the total already: take them off"),
        (math.exp(total) - added, "take them off the loss, before the exponential"),
        (math.exp(total - sum(balance)), "they were added with their weight"),
        (math.exp(total - weight * sum(balance) / len(balance)), "the layers are summed, no mean"),
        (math.exp(total - weight), "each layer has a loss of its own"),
        (2 ** (total - added), "the loss is in nats, so the base is e"),
        (math.exp(total) / sum(balance), "take them off the loss, with their weight"),
    ]
    _explain(seen, got, math.exp(total - added), mistakes)


LOGS = (
    (
        ("update", 9.0),  # which builds and warms what the others find
        ("update", 0.5),
        ("update", 0.4),
        ("evaluation", 6.0),
        ("update", 0.5),
        ("saving", 2.0),
        ("update", 0.6),
        ("update", 2.5),  # something else ran on the machine
    ),
    # what comes first need not be an update, nor the first update the slowest
    (("evaluation", 4.0), ("update", 0.5), ("update", 0.8), ("update", 3.0), ("update", 0.9)),
)


@exercise
def tokens_per_second(answer: Callable) -> str:
    for events in LOGS:
        _check_speed(answer, events, 1000)
    return (
        "right. Say beside it on what it was measured: machine, threads, batch, context, and "
        "whether activations were computed twice."
    )


def _check_speed(answer: Callable, events: tuple[tuple[str, float], ...], tokens: int) -> None:
    got = is_number(answer(list(events), tokens))
    updates = [seconds for what, seconds in events if what == "update"]
    right, everything = median(updates[1:]), sum(seconds for _, seconds in events)
    later, slow = len(updates) - 1, "the first update warms up, however long it takes"
    seen = f"For the events {[*events]} and {tokens:,} tokens per update"
    mistakes = [
        (tokens * len(updates) / everything, "evaluations and saving are in the time"),
        (tokens * len(updates) / sum(updates), "the first update, which warms up, is in it"),
        (
            tokens * later / sum(updates[1:]),
            "a mean: one update that something else slowed down counts for many. Take the median",
        ),
        (tokens * len(updates) / updates[-1], "all tokens over the time of a single update"),
        (tokens / updates[-1], "one update is no measurement"),
        (tokens / min(updates), "the quickest update is a lucky one. Take the median"),
        (right, "that is the seconds of an update, not the tokens in a second"),
        (tokens * later / right, "each update has these tokens: do not count them several times"),
        (tokens / median(updates), "that median is of all updates; the first one warms up"),
        (tokens / median(sorted(updates)[:-1]), f"you drop the slowest update; {slow}"),
        (
            tokens / median([seconds for _, seconds in events[1:]]),
            "that median has evaluations and saving in it. Take the updates alone",
        ),
        (right / tokens, "that is seconds per token; tokens per second is the other way round"),
        (tokens * right, "the tokens of an update are divided by its seconds, not multiplied"),
    ]
    _explain(seen, got, tokens / right, mistakes)
