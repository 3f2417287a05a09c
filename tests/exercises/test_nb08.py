"""The exercises of notebook 08: typical mistakes are named."""

from functools import partial

import pytest
import torch

from tinygpt import ModelConfig, TinyGPT
from tinygpt.exercises import examine, nb08
from tinygpt.files import ROOT
from tinygpt.model import upcycle

from ..tools import LLAMA, normal, shaken
from .answers import define, solutions, with_body

NOTEBOOK = ROOT / "notebooks" / "08_upcycling_gpt2.ipynb"


defined_as = partial(with_body, NOTEBOOK)


def merged(sums: str, values: str = "c1 * a1 + c2 * a2", end: str = "m, l, a"):
    return "merge_tiles", (
        "(m1, l1, a1), (m2, l2, a2) = first, second\n"
        "m = torch.maximum(m1, m2)\n"
        f"c1, c2 = (m1 - m).exp(), (m2 - m).exp()\nl, a = {sums}, {values}\nreturn {end}"
    )


RIGHT = "c1 * l1 + c2 * l2"
LOG = "log = logits.log_softmax(-1).gather(-1, experts)\n"
P = "p = logits.softmax(-1).gather(-1, experts)\n"
HALVES = "gate, value = w_in.chunk(2)\nC = w_in.shape[1]\n"
PIECES = (
    "ups = torch.cat([gate.view(G, -1, C), value.view(G, -1, C)], 1)\n"
    "downs = w_out.view(C, G, -1).transpose(0, 1)\n"
)

# other ways to be right
ALTERNATIVES = [
    (
        "merge_tiles",
        "m = torch.stack([first[0], second[0]]).amax(0)\n"
        "l = sum(t[1] * torch.exp(t[0] - m) for t in (first, second))\n"
        "a = sum(t[2] * torch.exp(t[0] - m) for t in (first, second))\n"
        "return [m, l, a]",
    ),
    (
        "safe_weights",
        "z = logits.gather(-1, experts)\nall = logits.logsumexp(-1, keepdim=True)\n"
        "log = z - all\nreturn (log - log.logsumexp(-1, keepdim=True).detach()).exp()",
    ),
    ("cut_gated", HALVES + PIECES + "return ups, downs"),
    (
        "stay_clones",
        "p = (rows @ torch.ones(rows.shape[1])).softmax(0)\n"
        "return torch.tensor(top_k == rows.shape[0] and len(rows.unique(dim=0)) == 1)",
    ),
]


@pytest.mark.parametrize(("name", "body"), ALTERNATIVES)
def test_another_right_answer_passes(name, body):
    passed, said = examine(defined_as(name, body))
    assert passed, said


# name, body of the function, a word of the diagnosis
MISTAKES = [
    (*merged("l1 + l2"), "two different maxima"),
    (*merged("c1 * l1 + l2"), "the second sum, too"),
    (*merged("l1 + c2 * l2"), "the first sum, too"),
    (*merged("l1 / c1 + l2 / c2"), "below 1, never above"),
    (*merged("l1 * l2"), "the sums are"),
    (*merged(RIGHT, "(c1 * a1 + c2 * a2) / (c1 * l1 + c2 * l2)"), "divided by the sum already"),
    (*merged(RIGHT, "a1 + a2"), "the same two factors"),
    (*merged(RIGHT, end="m1, l, a"), "the larger of the two"),
    (*merged(RIGHT, end="a / l"), "maximum, sum and values"),
    ("merge_tiles", "first[1].mul_(2)\nreturn first", "you changed"),
    (
        "merge_tiles",
        "(m1, l1, a1), (m2, l2, a2) = first, second\n"
        "m = torch.maximum(m1, m2)\nc1, c2 = (m1 - m).exp(), m2.exp() / m.exp()\n"
        "c2 = c2 + 0 * m2\nreturn m, c1 * l1 + c2 * l2, c1 * a1 + c2 * a2",
        "sees nothing",
    ),
    ("safe_weights", P + "return p", "sum is below 1"),
    ("safe_weights", P + "return p / p.sum(-1, keepdim=True)", "teaches the router nothing"),
    ("safe_weights", P + "return (p / p.sum(-1, keepdim=True)).detach()", "no gradient"),
    ("safe_weights", P + "return p / p.sum(-1, keepdim=True).detach()", "0 / 0 is NaN"),
    ("safe_weights", LOG + "return log.softmax(-1)", "teaches the router nothing"),
    (
        "safe_weights",
        "p = logits.double().softmax(-1).gather(-1, experts)\n"
        "return (p / p.sum(-1, keepdim=True).detach()).float()",
        "in float64, too",
    ),
    (
        "safe_weights",
        P + "return p / (p.sum(-1, keepdim=True).detach() + 1e-9)",
        "are [0.7311, 0.2689], but yours",
    ),
    (
        "safe_weights",
        P + "p = p.detach() + p - p.detach() + 2 * (p - p.detach())\n"
        "return p / p.sum(-1, keepdim=True).detach()",
        "the gradient is not",
    ),
    ("safe_weights", "return logits", "shape (5, 2)"),
    ("safe_weights", P + "return 1 - p", "of the first token"),
    (
        "cut_gated",
        "C = w_in.shape[1]\nreturn w_in.view(G, -1, C), w_out.view(C, G, -1).transpose(0, 1)",
        "another gate",
    ),
    (
        "cut_gated",
        HALVES + PIECES + "return ups, w_out.reshape(G, C, -1)",
        "by its *columns*",
    ),
    ("cut_gated", HALVES + PIECES + "return ups, downs.flip(0)", "do not add up"),
    ("cut_gated", HALVES + PIECES + "return ups.transpose(1, 2), downs", "the shapes are"),
    ("cut_gated", HALVES + PIECES + "return ups", "two stacks"),
    ("stay_clones", "return bool((rows == rows[0]).all())", "a router of zeros"),
    ("stay_clones", "return top_k == len(rows)", "with different weights"),
    ("stay_clones", "return top_k == len(rows) and bool((rows == 0).all())", "equal but not 0"),
    (
        "stay_clones",
        "return top_k == len(rows) and bool((rows == rows[0, 0]).all())",
        "all four, equal rows",
    ),
    ("stay_clones", "return top_k == 4 and rows.std() == 0", "all four, equal rows"),
    ("stay_clones", "return top_k == 4 and bool((rows == rows[0]).all())", "all three of three"),
    ("stay_clones", "return top_k > 2 and bool((rows == rows[0]).all())", "four of six"),
    ("stay_clones", "return rows == rows[0]", "one answer"),
    ("stay_clones", "pass", "`return` missing"),
]


@pytest.mark.parametrize(("name", "body", "word"), MISTAKES)
def test_typical_mistake_is_diagnosed(name, body, word):
    passed, said = examine(defined_as(name, body))
    assert not passed
    assert said.startswith("✗")
    assert word in said


def test_the_gated_cut_is_that_of_upcycling():
    dense = shaken(LLAMA)
    mlp = dense.blocks[0].ffn
    solution = define(NOTEBOOK, "cut_gated", solutions(NOTEBOOK)["cut_gated"])
    ups, downs = solution(mlp.c_fc.weight, mlp.c_proj.weight, 2)
    experts = upcycle(dense, 4, 2, granularity=2).blocks[0].ffn.experts
    assert torch.equal(experts.c_fc.weight, ups.repeat(2, 1, 1))
    assert torch.equal(experts.c_proj.weight, downs.repeat(2, 1, 1))


@pytest.mark.parametrize("case", range(len(nb08.CASES)))
def test_clones_stay_clones_where_the_exercise_says_so(case):
    """By training: a few updates, and whether all copies are still equal to the bit."""
    rows, top_k, right, _ = nb08.CASES[case]
    dense = TinyGPT(ModelConfig(vocab_size=9, block_size=8, n_layer=1, n_head=1, n_embd=2))
    mixture = upcycle(dense, len(rows), top_k, dispatch="loop", balance="loss")
    layer = mixture.blocks[0].ffn
    layer.router.proj.weight.data.copy_(rows)
    optimizer = torch.optim.SGD(mixture.parameters(), lr=0.1)
    idx = (normal(6, 9) * 4).abs().long().clamp(max=8)
    for _ in range(4):
        optimizer.zero_grad()
        mixture(idx[:, :-1], idx[:, 1:]).loss.backward()
        optimizer.step()
    stack = layer.experts.c_fc.weight
    assert torch.equal(stack, stack[:1].expand_as(stack)) == right
