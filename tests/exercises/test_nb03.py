"""The exercises of notebook 03: typical mistakes are named."""

from functools import partial

import pytest
import torch

from tinygpt.decoding import filter_top_p
from tinygpt.exercises import examine
from tinygpt.exercises.nb03 import TENTHS
from tinygpt.files import ROOT

from ..tools import random_logits
from .answers import cells, define, solutions, with_body

NOTEBOOK = ROOT / "notebooks" / "03_decoding_strategies.ipynb"


# other ways to be right
ALTERNATIVES = [
    ("draw", "return torch.multinomial(logits.softmax(-1), 1, generator=generator).item()"),
    (
        "draw",
        "times = torch.empty(len(logits)).exponential_(generator=generator)\n"
        "return int((times / logits.softmax(-1)).argmin())",
    ),
    ("sharpen", "return (p.log() / temperature).softmax(-1)"),
    (
        "keep_top_k",
        "kept = logits.argsort(dim=1, descending=True, stable=True).argsort(dim=1) < k\n"
        "return torch.where(kept, logits, -torch.inf)",
    ),
    (
        "keep_top_p",
        "p_sorted, order = logits.softmax(-1).sort(dim=-1, descending=True)\n"
        "gone = p_sorted.cumsum(-1) >= p - 1e-6\n"
        "gone = gone.roll(1, -1)\n"
        "gone[:, 0] = False\n"
        "return logits.masked_fill(gone.gather(1, order.argsort(-1)), -torch.inf)",
    ),
    (
        "keep_top_p",
        "p_sorted, order = logits.double().softmax(-1).sort(dim=-1, descending=True)\n"
        "before = (p_sorted.cumsum(-1) - p_sorted).round(decimals=6)\n"
        "return logits.masked_fill((before >= p).gather(1, order.argsort(-1)), -torch.inf)",
    ),
    (
        "cut_at_stop",
        "text = ''\n"
        "while stop not in text:\n"
        "    character = next(characters, None)\n"
        "    if character is None:\n"
        "        return text\n"
        "    text += character\n"
        "return text.removesuffix(stop)",
    ),
]


@pytest.mark.parametrize(("name", "body"), ALTERNATIVES)
def test_another_right_answer_passes(name, body):
    passed, said = examine(defined_as(name, body))
    assert passed, said


defined_as = partial(with_body, NOTEBOOK)


TIMES = (
    "p = logits.softmax(-1)\ntimes = torch.empty(len(logits)).exponential_(generator=generator)\n"
)
TOP_K = "order = logits.argsort(dim=-1, descending=True, stable=True)\nstay = order[:, :k]\n"
NUCLEUS = (
    "order = logits.argsort(dim=-1, descending=True)\n"
    "q = logits.softmax(dim=-1).gather(1, order)\n"
    "mass = q.cumsum(dim=-1)\n"
    "none = torch.zeros_like(logits, dtype=torch.bool)\n"
)


# name, body of the function, a word of the diagnosis
MISTAKES = [
    ("draw", "return logits.argmax().item()", "greedy"),
    ("draw", f"{TIMES}return (p * times).argmax().item()", "multiplied"),
    ("draw", f"{TIMES}return (logits / times).argmax().item()", "divide the logits"),
    ("draw", f"{TIMES}return (p / times).argmin().item()", "rings last"),
    ("draw", f"{TIMES}return (1 / times).argmax().item()", "equally often"),
    ("draw", f"{TIMES}return (p / times).argmax()", "`.item()`"),
    ("draw", f"{TIMES}return (p / times).max().item()", "whole number"),
    ("draw", f"{TIMES}(p / times).argmax().item()", "`return` missing"),
    ("draw", "return torch.multinomial(logits.softmax(-1), 1).item()", "generator=generator"),
    (
        "draw",
        "torch.manual_seed(2)\nreturn torch.multinomial(logits.softmax(-1), 1).item()",
        "the same seed in each call",
    ),
    (
        "draw",
        "u = torch.rand(1, generator=generator)\n"
        "return int((logits.softmax(-1).cumsum(0) < u).sum())",
        "draw by draw",
    ),
    (
        "draw",
        "times = torch.rand(len(logits), generator=generator)\n"
        "return (logits.softmax(-1) / times).argmax().item()",
        "exponential",
    ),
    ("draw", f"{TIMES}logits -= 1\nreturn (p / times).argmax().item()", "changed the logits"),
    ("sharpen", "return p / temperature", "add up to 2"),
    ("sharpen", "return p * temperature", "add up to 0.5"),
    ("sharpen", "q = p / temperature\nreturn q / q.sum()", "normalising takes that back"),
    ("sharpen", "q = p * temperature\nreturn q / q.sum()", "normalising takes that back"),
    ("sharpen", "q = p**temperature\nreturn q / q.sum()", "upside down"),
    ("sharpen", "return (p.log() * temperature).softmax(-1)", "upside down"),
    ("sharpen", "return p ** (1 / temperature)", "divide by the sum"),
    ("sharpen", "return (p / temperature).softmax(-1)", "a softmax takes logits"),
    ("sharpen", "return (p * temperature).softmax(-1)", "a softmax takes logits"),
    ("sharpen", "return p.softmax(-1) ** (1 / temperature)", "should turn"),
    ("sharpen", "return p.log() / temperature", "are these logits?"),
    ("sharpen", "q = p * p.log()\nreturn q / q.sum()", "nan"),
    ("sharpen", "q = p**2\nreturn q / q.sum()", "T = 2 should turn"),
    ("sharpen", "return F.one_hot(p.argmax(), len(p)).float()", "temperature 0"),
    ("sharpen", "p **= 1 / temperature\nreturn p / p.sum()", "in place"),
    ("sharpen", "return (p ** (1 / temperature)).sum()", "shape ()"),
    ("sharpen", "q = p ** (1 / temperature)", "`return` missing"),
    ("sharpen", "return [x ** (1 / temperature) for x in p]", "a tensor is asked"),
    (
        "keep_top_k",
        "smallest = logits.topk(k).values[:, -1:]\n"
        "return logits.masked_fill(logits < smallest, -torch.inf)",
        "keep 4 characters",
    ),
    (
        "keep_top_k",
        "smallest = logits.topk(min(k + 1, logits.shape[1])).values[:, -1:]\n"
        "return logits.masked_fill(logits <= smallest, -torch.inf)",
        "dropped together",
    ),
    (
        "keep_top_k",
        "order = logits.flip(1).argsort(dim=-1, descending=True, stable=True)\n"
        "stay = logits.shape[1] - 1 - order[:, :k]\n"
        "return torch.full_like(logits, -torch.inf).scatter(1, stay, logits.gather(1, stay))",
        "of equal logits the first",
    ),
    (
        "keep_top_k",
        f"{TOP_K}return torch.zeros_like(logits).scatter(1, stay, logits.gather(1, stay))",
        "minus infinity",
    ),
    (
        "keep_top_k",
        f"{TOP_K}most = logits.amax(1, keepdim=True).expand(stay.shape)\n"
        "return torch.full_like(logits, -torch.inf).scatter(1, stay, most)",
        "must keep its logit",
    ),
    (
        "cut_at_stop",
        "text, n = '', 0\n"
        "for c in characters:\n"
        "    text += c\n"
        "    if c == stop[n]:\n        n += 1\n"
        "    elif n and c == stop[n - 1]:\n        pass\n"
        "    else:\n        n = int(c == stop[0])\n"
        "    if n == len(stop):\n        return text[:-n]\n"
        "return text",
        "may have begun before",
    ),
    ("keep_top_k", f"{TOP_K}return logits.gather(1, stay)", "same shape"),
    ("keep_top_k", f"{TOP_K}return stay", "same shape"),
    (
        "keep_top_k",
        f"{TOP_K}result = torch.full_like(logits, -torch.inf)\n"
        "return result.scatter(1, stay, logits.gather(1, stay)).softmax(-1)",
        "minus infinity",
    ),
    (
        "keep_top_k",
        "stay = logits.argsort(dim=-1)[:, :k]\n"
        "return torch.full_like(logits, -torch.inf).scatter(1, stay, logits.gather(1, stay))",
        "the smallest",
    ),
    (
        "keep_top_k",
        "flat = logits.flatten()\nstay = flat.argsort(descending=True)[:k]\n"
        "result = torch.full_like(flat, -torch.inf)\nresult[stay] = flat[stay]\n"
        "return result.view_as(logits)",
        "whole batch",
    ),
    (
        "keep_top_k",
        f"{TOP_K}return torch.full_like(logits, -torch.inf).scatter(1, stay, 0.0)",
        "minus infinity",
    ),
    (
        "keep_top_k",
        f"{TOP_K}return torch.full_like(logits, -torch.inf).scatter(1, stay, 7.0)",
        "must keep its logit",
    ),
    (
        "keep_top_k",
        f"{TOP_K}result = logits\nfor row, kept in zip(result, stay):\n"
        "    values = row[kept].clone()\n    row[:] = -torch.inf\n    row[kept] = values\n"
        "return result",
        "changed the logits",
    ),
    (
        "keep_top_k",
        "_, stay = logits.sort(dim=-1, descending=True, stable=True)\n"
        "stay = stay.unfold(1, k, 1)[:, 0]\n"
        "return torch.full_like(logits, -torch.inf).scatter(1, stay, logits.gather(1, stay))",
        "keeps all 5",
    ),
    (
        "keep_top_p",
        f"{NUCLEUS}return logits.masked_fill(~none.scatter(1, order, mass <= p), -torch.inf)",
        "crosses p",
    ),
    (
        "keep_top_p",
        f"{NUCLEUS}stay = (mass - q < p).roll(1, 1)\nstay[:, 0] = True\n"
        "return logits.masked_fill(~none.scatter(1, order, stay), -torch.inf)",
        "one too many",
    ),
    (
        "keep_top_p",
        f"{NUCLEUS}return logits.masked_fill(~none.scatter(1, order, mass - q <= p), -torch.inf)",
        "have exactly 0.5",
    ),
    (
        "keep_top_p",
        f"{NUCLEUS}return logits.masked_fill(mass - q >= p, -torch.inf)",
        "back to the characters' places",
    ),
    (
        "keep_top_p",
        "order = logits.argsort(dim=-1)\n"
        "q = logits.softmax(dim=-1).gather(1, order)\n"
        "stay = torch.zeros_like(logits, dtype=torch.bool)\n"
        "stay = stay.scatter(1, order, q.cumsum(dim=-1) - q < p)\n"
        "return logits.masked_fill(~stay, -torch.inf)",
        "descending order",
    ),
    (
        "keep_top_p",
        "q, order = logits.sort(dim=-1, descending=True)\n"
        "stay = torch.zeros_like(logits, dtype=torch.bool)\n"
        "stay = stay.scatter(1, order, q.cumsum(dim=-1) - q < p)\n"
        "return logits.masked_fill(~stay, -torch.inf)",
        "need a softmax",
    ),
    (
        "keep_top_p",
        "q, order = logits.exp().sort(dim=-1, descending=True)\n"
        "stay = torch.zeros_like(logits, dtype=torch.bool)\n"
        "stay = stay.scatter(1, order, q.cumsum(dim=-1) - q < p)\n"
        "return logits.masked_fill(~stay, -torch.inf)",
        "is a softmax missing?",
    ),
    (
        "keep_top_p",
        f"{NUCLEUS}return torch.where(none.scatter(1, order, mass - q < p), logits, 0.0)",
        "minus infinity",
    ),
    (
        "keep_top_p",
        f"{NUCLEUS}return none.scatter(1, order, mass - q < p)",
        "logits are asked",
    ),
    (
        "keep_top_p",
        f"{NUCLEUS}stay = none.scatter(1, order, mass - q < p)\n"
        "return logits.log_softmax(-1).masked_fill(~stay, -torch.inf)",
        "must not change",
    ),
    (
        "keep_top_p",
        f"{NUCLEUS}return logits.masked_fill(none.scatter(1, order, mass - q < p), -torch.inf)",
        "turn it round",
    ),
    (
        "keep_top_p",
        "q, order = logits.softmax(-1).sort(dim=-1, descending=True)\n"
        "stay = torch.zeros_like(logits, dtype=torch.bool)\n"
        "stay = stay.scatter(1, order, q.cumsum(dim=0) - q < p)\n"
        "return logits.masked_fill(~stay, -torch.inf)",
        "along the row",
    ),
    (
        "keep_top_p",
        "stay = logits.softmax(-1) >= p\nreturn logits.masked_fill(~stay, -torch.inf)",
        "nothing",
    ),
    (
        "keep_top_p",
        f"{NUCLEUS}stay = none.scatter(1, order, mass - q < p)\n"
        "logits[~stay] = -torch.inf\nreturn logits",
        "changed the logits",
    ),
    (
        "keep_top_p",
        f"{NUCLEUS}before = mass - q\nif len(logits) > 1:\n    before = q.cumsum(dim=0) - q\n"
        "return logits.masked_fill(~none.scatter(1, order, before < p), -torch.inf)",
        "A row must not depend",
    ),
    (
        "keep_top_p",
        f"{NUCLEUS}return logits.masked_fill(~none.scatter(1, order, mass - q < p), -torch.inf)",
        "equals p but for rounding",
    ),
    (
        "keep_top_p",
        f"{NUCLEUS}gone = (mass >= p).roll(1, -1)\ngone[:, 0] = False\n"
        "return logits.masked_fill(none.scatter(1, order, gone), -torch.inf)",
        "equals p but for rounding",
    ),
    (
        "keep_top_p",
        "p_sorted, order = logits.double().softmax(-1).sort(dim=-1, descending=True)\n"
        "gone = p_sorted.cumsum(-1) - p_sorted >= p\n"
        "return logits.masked_fill(gone.gather(1, order.argsort(-1)), -torch.inf)",
        "equals p but for rounding",
    ),
    (
        "cut_at_stop",
        "text, matched = '', 0\n"
        "for character in characters:\n"
        "    text += character\n"
        "    matched = matched + 1 if character == stop[matched] else 0\n"
        "    if matched == len(stop):\n"
        "        return text[: -len(stop)]\n"
        "return text",
        "may have begun before",
    ),
    (
        "cut_at_stop",
        "text, matched = '', 0\n"
        "for character in characters:\n"
        "    text += character\n"
        "    matched = matched + 1 if character == stop[matched] else int(character == stop[0])\n"
        "    if matched == len(stop):\n"
        "        return text[: -len(stop)]\n"
        "return text",
        "'aaab, and'",
    ),
    ("cut_at_stop", "return ''.join(characters).split(stop)[0]", "read to the end"),
    ("cut_at_stop", "return ''.join(characters).rsplit(stop, 1)[0]", "ends at the first"),
    ("cut_at_stop", "return ''.join(characters)", "not noticed"),
    (
        "cut_at_stop",
        "text = ''\nfor character in characters:\n    text += character\n"
        "    if text.endswith(stop):\n        return text\nreturn text",
        "not part of the text",
    ),
    (
        "cut_at_stop",
        "text = ''\nfor character in characters:\n    if text.endswith(stop):\n"
        "        return text[: -len(stop)]\n    text += character\nreturn text",
        "after the character is added",
    ),
    (
        "cut_at_stop",
        "text = ''\nfor character in characters:\n    text += character\n"
        "    if text.endswith(stop):\n        return text[:-1]\nreturn text",
        "Only a part",
    ),
    (
        "cut_at_stop",
        "text = ''\nfor character in characters:\n    text += character\n"
        "    if text.endswith(stop):\n        return text[: -len(stop)]\nreturn ''",
        "has no '!'",
    ),
    (
        "cut_at_stop",
        "text = ''\nfor character in characters:\n    text += character\n"
        "    if text.endswith(stop):\n        return text[: -len(stop)]",
        "`return` missing",
    ),
    (
        "cut_at_stop",
        "text = ''\nfor character in characters:\n    text += character\n"
        "    if text.endswith(stop):\n        return text.rstrip(stop)\nreturn text",
        "a set of characters",
    ),
    (
        "cut_at_stop",
        "text = ''\nfor character in characters:\n    if text.endswith(stop):\n"
        "        return text[: -len(stop)]\n    text += character\n"
        "return text.removesuffix(stop)",
        "too far",
    ),
]


def test_notebook_solution_and_package_agree_on_ties_and_elsewhere():
    """The `top_p` of the notebook goes through the characters one by one."""
    code = next(cell for cell in cells(NOTEBOOK, "code") if cell.startswith("def top_p("))
    by_hand = define(NOTEBOOK, "top_p", code)
    solution = define(NOTEBOOK, "keep_top_p", solutions(NOTEBOOK)["keep_top_p"])
    tied = [
        ((torch.tensor([tenths]) / 10).log(), sum(tenths[:n]) / 10)
        for tenths in TENTHS
        for n in range(1, len(tenths))
    ]
    other = [(row[None], p) for row in random_logits(65, 0, rows=300) for p in (0.1, 0.9, 0.999)]
    for logits, p in tied + other:
        expected = filter_top_p(logits, p)
        assert torch.equal(by_hand(logits, p), expected)
        assert torch.equal(solution(logits, p), expected)


@pytest.mark.parametrize(("name", "body", "word"), MISTAKES)
def test_typical_mistake_is_diagnosed(name, body, word):
    passed, said = examine(defined_as(name, body))
    assert not passed
    assert said.startswith("✗")
    assert word in said
