"""The exercises of notebook 07: typical mistakes are named."""

from functools import partial

import pytest
import torch

from tinygpt.exercises import examine
from tinygpt.files import ROOT
from tinygpt.measure import variation

from .answers import with_body

NOTEBOOK = ROOT / "notebooks" / "07_sparse_moe_tinystories.ipynb"


defined_as = partial(with_body, NOTEBOOK)


PADS = "pads = targets == end\n"
STACK = "shape = (n_experts, n_in, n_out)\n"
COUNTS = "c = torch.bincount(experts.flatten(), minlength=n_experts).double()\n"


def uniform(bound: str) -> tuple[str, str]:
    return "start_stack", f"{STACK}return torch.empty(shape).uniform_(-({bound}), {bound})"


# other ways to be right
ALTERNATIVES = [
    (
        "merge_pair",
        "done, i = [], 0\n"
        "while i < len(tokens):\n"
        "    found = tuple(tokens[i : i + 2]) == tuple(pair)\n"
        "    done.append(''.join(pair) if found else tokens[i])\n"
        "    i += 2 if found else 1\n"
        "return done",
    ),
    (
        "text_loss",
        PADS + "filling = pads & (pads.cumsum(1) > 1)\n"
        "return nats.masked_fill(filling, 0).sum() / (~filling).sum()",
    ),
    (
        "text_loss",
        PADS + "marked = torch.cat([pads, torch.ones(len(pads), 1, dtype=torch.bool)], dim=1)\n"
        "first = marked.int().argmax(dim=1, keepdim=True)\n"
        "return nats[torch.arange(nats.shape[1]) <= first].mean()",
    ),
    (
        "text_loss",
        "rows = targets.tolist()\n"
        "ends = [row.index(end) + 1 if end in row else len(row) for row in rows]\n"
        "return torch.cat([n[:k] for n, k in zip(nats, ends)]).mean()",
    ),
    (
        "start_stack",
        "layers = [torch.nn.Linear(n_in, n_out) for _ in range(n_experts)]\n"
        "return torch.stack([layer.weight.T for layer in layers])",
    ),
    (
        "load_cv",
        "load = torch.nn.functional.one_hot(experts, n_experts).sum((0, 1)) / experts.numel()\n"
        "return load.std(correction=0) * n_experts",
    ),
]


@pytest.mark.parametrize(("name", "body"), ALTERNATIVES)
def test_another_right_answer_passes(name, body):
    passed, said = examine(defined_as(name, body))
    assert passed, said


ONCE = (
    "for i in range(len(tokens) - 1):\n"
    "    if tuple(tokens[i : i + 2]) == tuple(pair):\n"
    "        return tokens[:i] + [''.join(pair)] + tokens[i + 2 :]\n"
    "return list(tokens)"
)
IN_PLACE = "tokens[:] = ['x']\nreturn tokens"
FROM_THE_RIGHT = (
    "done, i = [], len(tokens)\n"
    "while i > 0:\n"
    "    found = tuple(tokens[max(0, i - 2) : i]) == tuple(pair)\n"
    "    done.insert(0, ''.join(pair) if found else tokens[i - 1])\n"
    "    i -= 2 if found else 1\n"
    "return done"
)

# name, body of the function, a word of the diagnosis
MISTAKES = [
    ("merge_pair", "return list(tokens)", "nothing was joined"),
    ("merge_pair", ONCE, "all places"),
    ("merge_pair", FROM_THE_RIGHT, "from left to right"),
    ("merge_pair", IN_PLACE, "you changed the list"),
    ("merge_pair", "return ' '.join(tokens)", "a list is asked"),
    ("merge_pair", "return [''.join(tokens)]", "too much was joined"),
    ("merge_pair", "return [t for t in tokens if t not in pair]", "letters were lost"),
    (
        "merge_pair",
        "found = [t for t in ''.join(tokens).replace(''.join(pair), '#')]\n"
        "return [''.join(pair) if t == '#' else t for t in found]",
        "taken apart again",
    ),
    (
        "merge_pair",
        "for i, (a, b) in enumerate(zip(tokens, tokens[1:])):\n"
        "    if (a[-1], b[0]) == tuple(pair):\n"
        "        return tokens[:i] + [a + b] + tokens[i + 2 :]\n"
        "return list(tokens)",
        "all places",
    ),
    ("text_loss", "return nats.mean()", "padding too"),
    ("text_loss", PADS + "return nats[~pads].mean()", "first end mark"),
    ("text_loss", PADS + "return nats[pads].mean()", "loss of the end marks"),
    ("text_loss", PADS + "return (nats * (~pads | (pads.cumsum(1) == 1))).mean()", "in the number"),
    (
        "text_loss",
        PADS + "real = ~pads | (pads.cumsum(1) == 1)\n"
        "return ((nats * real).sum(1) / real.sum(1)).mean()",
        "mean of means",
    ),
    ("text_loss", PADS + "return nats[~pads | (pads.cumsum(1) == 1)].sum()", "a mean is asked"),
    (
        "text_loss",
        PADS + "return nats[~pads | (pads.cumsum(1) == 1)].sum() / len(nats)",
        "not of rows",
    ),
    ("text_loss", "nats *= targets != end\nreturn nats.mean()", "you changed the losses"),
    ("text_loss", "targets[:] = 0\nreturn nats.mean()", "you changed the targets"),
    ("text_loss", PADS + "return nats[~pads | (pads.cumsum(0) == 1)].mean()", "dim=1"),
    ("text_loss", PADS + "return nats[pads.cumsum(1) * pads == 1].mean()", "end marks alone"),
    ("text_loss", PADS + "return nats[~pads & (pads.cumsum(1) == 1)].mean()", "you return nan"),
    (
        "text_loss",
        PADS + "first = pads.int().argmax(1, keepdim=True)\n"
        "return nats[torch.arange(nats.shape[1]) <= first].mean()",
        "`argmax` says 0",
    ),
    (
        "text_loss",
        PADS + "nats, pads = nats[pads.any(1)], pads[pads.any(1)]\n"
        "return nats[~pads | (pads.cumsum(1) == 1)].mean()",
        "without an end mark is left out",
    ),
    ("text_loss", "return nats", "a mean or a sum missing"),
    ("text_loss", "return 5.0", "the loss is"),
    (*uniform("(n_in * n_out) ** -0.5"), "kaiming_uniform_"),
    (*uniform("n_out ** -0.5"), "1 / √n_out"),
    (*uniform("(n_experts * n_in) ** -0.5"), "number of experts is in it"),
    (*uniform("1 / n_in"), "square root is missing"),
    (*uniform("(3 / n_in) ** 0.5"), "three times"),
    (*uniform("(6 / n_in) ** 0.5"), "default for ReLU"),
    (*uniform("0.5"), "should reach from"),
    ("start_stack", "return torch.zeros(n_experts, n_in, n_out)", "must be drawn"),
    ("start_stack", "return torch.rand(n_experts, n_out, n_in)", "is asked"),
    (
        "start_stack",
        STACK + "return torch.empty(shape).uniform_(0, n_in ** -0.5)",
        "should be negative",
    ),
    (
        "start_stack",
        STACK + "return (torch.rand(shape).round() * 2 - 1) * n_in ** -0.5",
        "should be uniform",
    ),
    (
        "start_stack",
        "one = torch.empty(n_in, n_out).uniform_(-(n_in ** -0.5), n_in ** -0.5)\n"
        "return one.repeat(n_experts, 1, 1)",
        "all experts are alike",
    ),
    ("start_stack", "return torch.full((n_experts, n_in, n_out), 3e38)", "lay in memory"),
    ("start_stack", f"{STACK}return torch.randn(shape) / math.sqrt(n_in)", "normal distribution"),
    (*uniform("1 / math.sqrt(3 * n_in)"), "standard deviation"),
    ("start_stack", "return None", "a tensor is asked"),
    (
        "load_cv",
        "c = experts.flatten().unique(return_counts=True)[1].double()\n"
        "return c.std(correction=0) / c.mean()",
        "got nothing are missing",
    ),
    ("load_cv", COUNTS + "return c.std() / c.mean()", "divide by E"),
    ("load_cv", COUNTS + "return c.var(correction=0) / c.mean()", "variance over the mean"),
    ("load_cv", COUNTS + "return c.var(correction=0) / c.mean() ** 2", "its square"),
    ("load_cv", COUNTS + "return c.std(correction=0)", "number of tokens"),
    ("load_cv", COUNTS + "return c.std(correction=0) / c.sum()", "not by their sum"),
    ("load_cv", COUNTS + "return c.max() / c.mean()", "fullest over the mean"),
    ("load_cv", COUNTS + "return c.max() / c.mean() - 1", "above the mean"),
    (
        "load_cv",
        "c = torch.bincount(experts[:, 0], minlength=n_experts).double()\n"
        "return c.std(correction=0) / c.mean()",
        "only the first choices",
    ),
    ("load_cv", "return 9.0", "the CV is"),
]


@pytest.mark.parametrize(("name", "body", "word"), MISTAKES)
def test_typical_mistake_is_diagnosed(name, body, word):
    passed, said = examine(defined_as(name, body))
    assert not passed
    assert said.startswith("✗")
    assert word in said


def test_the_largest_variation_is_what_the_praise_says():
    alone, pair = torch.zeros(16), torch.zeros(16)
    alone[0], pair[:2] = 1.0, 1.0
    assert round(variation(alone), 2) == 3.87
    assert round(variation(pair), 2) == 2.65
