"""The exercises of notebook 04: typical mistakes are named."""

from functools import partial

import pytest

from tinygpt.exercises import examine
from tinygpt.files import ROOT

from .answers import with_body

NOTEBOOK = ROOT / "notebooks" / "04_moe_gate_experts.ipynb"


defined_as = partial(with_body, NOTEBOOK)


CHOSEN = "experts = (p + bias).argmax(dim=1)\nweights = p.amax(dim=1)\n"
WEIGHED = (
    "experts = (p + bias).argmax(dim=1)\nrows = torch.arange(len(p))\nweights = p[rows, experts]\n"
)


COUNTED = WEIGHED + "c = torch.bincount(experts, minlength=p.shape[1]).float()\n"
SHARES = (
    "E = logits.shape[1]\n"
    "f = torch.bincount(experts.flatten(), minlength=E) / experts.numel()\n"
    "P = logits.softmax(dim=1).mean(dim=0)\n"
)


CAPACITY = "B, T, K = experts.shape\ncapacity = math.ceil(factor * K * T / n_experts)\n"
RANKED = (
    CAPACITY + "hot = F.one_hot(experts.flatten(1), n_experts)\n"
    "rank = (hot.cumsum(dim=1) * hot).sum(dim=2)\n"
)


ONE_ROW = (
    "hot = F.one_hot(experts.flatten(), n_experts)\nrank = (hot.cumsum(dim=0) * hot).sum(dim=1)\n"
)


# other ways to be right
ALTERNATIVES = [
    (
        "gate",
        "z = torch.einsum('nc,ec->ne', x, W)\ntop = z.softmax(1).topk(1)\n"
        "return top.indices[:, 0], top.values[:, 0]",
    ),
    (
        "top_k_gate",
        "z, experts = logits.sort(dim=1, descending=True)\n"
        "p = z.softmax(dim=1) if k == 1 else z[:, :k].softmax(dim=1)\n"
        "return experts[:, :k], p[:, :k]",
    ),
    (
        "switch_loss",
        "p = logits.softmax(dim=1)\nN, E = p.shape\n"
        "f = F.one_hot(experts, E).sum(dim=(0, 1)) / experts.numel()\n"
        "return E * f @ p.sum(dim=0) / N",
    ),
    ("gate", "w, expert = (x @ W.T).softmax(-1).max(-1)\nreturn [expert, w]"),
    (
        "biased_step",
        COUNTED + "step = torch.sign(c.mean() - c)\n"
        "return experts, weights, bias + rate * (step - step.mean())",
    ),
    (
        "drop_mask",
        CAPACITY + "mask = torch.zeros(B, T, K, dtype=torch.bool)\n"
        "for b in range(B):\n"
        "    taken = [0] * n_experts\n"
        "    for t in range(T):\n"
        "        for k in range(K):\n"
        "            taken[experts[b, t, k]] += 1\n"
        "            mask[b, t, k] = taken[experts[b, t, k]] > capacity\n"
        "return mask",
    ),
]


@pytest.mark.parametrize(("name", "body"), ALTERNATIVES)
def test_another_right_answer_passes(name, body):
    passed, said = examine(defined_as(name, body))
    assert passed, said


# name, body of the function, a word of the diagnosis
MISTAKES = [
    ("gate", "weight, expert = (x @ W.T).softmax(-1).max(-1)\nreturn weight, expert", "exchanged"),
    ("gate", "weight, expert = (x @ W.T).max(-1)\nreturn expert, weight", "softmax is missing"),
    (
        "gate",
        "z = x @ W.T\nexpert = z.argmax(-1)\n"
        "return expert, z.softmax(0).gather(1, expert[:, None])[:, 0]",
        "runs over the tokens",
    ),
    ("gate", "weight, expert = (x @ W.T).softmax(0).max(-1)\nreturn expert, weight", "dim=-1"),
    ("gate", "weight, expert = (x @ W.T).softmax(0).max(0)\nreturn expert, weight", "5 tokens"),
    ("gate", "weight, expert = (x @ W.T).softmax(-1).min(-1)\nreturn expert, weight", "the least"),
    (
        "gate",
        "p = (x @ W.T).softmax(-1)\nw, expert = p.max(-1)\nreturn expert, w / w",
        "All your weights are 1",
    ),
    (
        "gate",
        "w, expert = (x @ W.T).detach().softmax(-1).max(-1)\nreturn expert, w",
        "no gradient",
    ),
    ("gate", "return (x @ W.T).softmax(-1)", "two tensors are asked"),
    ("gate", "w, e = (x @ W.T).softmax(-1).max(-1)\nreturn e.tolist(), w", "expert should be a"),
    ("gate", "w, expert = (x @ W).softmax(-1).max(-1)\nreturn expert, w", "RuntimeError"),
    ("gate", "w, expert = (x @ W.T).softmax(-1).max(-1)", "`return` missing"),
    (
        "top_k_gate",
        "z, experts = logits.topk(k, dim=1)\nreturn experts, z.softmax(dim=1)",
        "would stay random",
    ),
    (
        "top_k_gate",
        "p, experts = logits.softmax(dim=1).topk(k)\n"
        "return experts, p / p.sum(dim=1, keepdim=True)",
        "would stay random",
    ),
    ("top_k_gate", "p, experts = logits.softmax(dim=1).topk(k)\nreturn experts, p", "by their sum"),
    ("top_k_gate", "z, experts = logits.topk(k)\nreturn experts, z", "a softmax is missing"),
    (
        "top_k_gate",
        "p, experts = logits.softmax(dim=1).topk(k)\n"
        "return experts, p.detach() if k == 1 else p / p.sum(1, keepdim=True)",
        "for k = 1 the numbers are right",
    ),
    (
        "biased_step",
        "experts = (p + bias).argmax(1)\nweights = p.gather(1, experts[:, None])[:, 0]\n"
        "counts = torch.bincount(experts).float()\n"
        "return experts, weights, bias + rate * (counts.mean() - counts).sign()",
        "counts them with minlength",
    ),
    (
        "switch_loss",
        "E, p = logits.shape[1], logits.softmax(1)\n"
        "chosen = logits.topk(experts.shape[1]).indices\n"
        "f = torch.bincount(chosen.flatten(), minlength=E) / chosen.numel()\n"
        "return E * (f * p.mean(0)).sum()",
        "the loss should be",
    ),
    (
        "top_k_gate",
        "z, experts = logits.topk(k)\nreturn experts, logits.softmax(dim=0).gather(1, experts)",
        "runs over the tokens",
    ),
    (
        "top_k_gate",
        "p, experts = logits.softmax(dim=1).topk(k)\nreturn experts, p / p.sum() if k > 1 else p",
        "all tokens together",
    ),
    (
        "top_k_gate",
        "p, experts = logits.softmax(dim=1).topk(k)\n"
        "return experts, p / p.sum(dim=0) if k > 1 else p",
        "over the tokens (dim=0)",
    ),
    (
        "top_k_gate",
        "p, experts = logits.softmax(dim=1).topk(k)\n"
        "return experts, p.softmax(dim=1) if k > 1 else p",
        "softmax of probabilities",
    ),
    (
        "top_k_gate",
        "p, experts = logits.softmax(dim=1).topk(k, largest=False)\nreturn experts, p",
        "the least probable",
    ),
    (
        "top_k_gate",
        "experts = logits.topk(k).indices.sort(dim=1).values\n"
        "return experts, logits.softmax(dim=1).gather(1, experts)",
        "The best comes first",
    ),
    ("top_k_gate", "return logits.softmax(dim=1).topk(k)[0]", "two tensors are asked"),
    ("top_k_gate", "p, e = logits.softmax(dim=0).topk(k)\nreturn e, p", "run over the tokens?"),
    (
        "top_k_gate",
        "p, experts = logits.softmax(dim=1).topk(k)\nreturn p, experts",
        "are exchanged",
    ),
    (
        "top_k_gate",
        "p, experts = logits.softmax(dim=0).topk(k, dim=0)\nreturn experts, p",
        "of shape",
    ),
    (
        "top_k_gate",
        "p, experts = logits.detach().softmax(dim=1).topk(k)\n"
        "return experts, p / p.sum(dim=1, keepdim=True) if k > 1 else p",
        "no gradient",
    ),
    ("top_k_gate", "logits.softmax(dim=1)", "`return` missing"),
    ("switch_loss", SHARES + "return (f * P).sum()", "factor E is missing"),
    ("switch_loss", SHARES + "return E * f.mean() * P.mean()", "product of two means"),
    ("switch_loss", SHARES + "return f.mean() * P.mean()", "a constant"),
    ("switch_loss", SHARES + "return (f * P).mean()", "mean of the products"),
    ("switch_loss", SHARES + "return E * (P * P).sum()", "Your f are probabilities"),
    ("switch_loss", SHARES + "return E * (f * f).sum()", "f twice"),
    (
        "switch_loss",
        SHARES + "return E * (f * P).sum() * experts.shape[1]",
        "2 times too much",
    ),
    (
        "switch_loss",
        SHARES + "f = torch.bincount(experts[:, 0], minlength=E) / len(logits)\n"
        "return E * (f * P).sum()",
        "Only the first choices",
    ),
    (
        "switch_loss",
        SHARES + "p = logits.softmax(dim=1)\n"
        "some = torch.zeros_like(p).scatter(1, experts, p.gather(1, experts))\n"
        "return E * (f * some.mean(dim=0)).sum()",
        "chosen experts only",
    ),
    (
        "switch_loss",
        SHARES + "z = torch.full_like(logits, -torch.inf)\n"
        "z = z.scatter(1, experts, logits.gather(1, experts))\n"
        "return E * (f * z.softmax(dim=1).mean(dim=0)).sum()",
        "chosen experts only",
    ),
    ("switch_loss", SHARES + "return E * (f * P * len(logits)).sum()", "grows with the batch"),
    ("switch_loss", SHARES + "return E * (f * experts.numel() * P).sum()", "f are counts"),
    ("switch_loss", SHARES + "return E * (f * logits.mean(dim=0)).sum()", "A softmax is missing"),
    (
        "switch_loss",
        SHARES + "return E * (f * logits.softmax(dim=0).mean(dim=0)).sum()",
        "over the tokens",
    ),
    ("switch_loss", SHARES + "return (E * (f * P).sum()).detach()", "no gradient"),
    ("switch_loss", SHARES + "return (E * (f * P).sum()).item()", "a tensor is asked"),
    ("switch_loss", SHARES + "return E * f * P", "one number"),
    ("switch_loss", SHARES + "return E * (f * P.mean()).sum()", "P is one number"),
    (
        "switch_loss",
        SHARES + "soft = P + (f - P).detach()\nreturn E * (soft * P).sum()",
        "its gradient is not",
    ),
    (
        "switch_loss",
        "f = torch.bincount(experts.flatten()) / experts.numel()\nE = len(f)\n"
        "return E * (f * logits.softmax(dim=1).mean(dim=0)[:E]).sum()",
        "minlength",
    ),
    (
        "biased_step",
        "experts = p.argmax(dim=1)\nreturn experts, p.amax(dim=1), bias",
        "without the bias",
    ),
    (
        "biased_step",
        "experts = (p - bias).argmax(dim=1)\nreturn experts, p.amax(dim=1), bias",
        "bias subtracted",
    ),
    (
        "biased_step",
        "weights, experts = (p + bias).max(dim=1)\nreturn experts, weights, bias",
        "never weighs",
    ),
    ("biased_step", CHOSEN + "return experts, weights, bias", "largest p"),
    (
        "biased_step",
        COUNTED + "return experts, weights, bias - rate * torch.sign(c.mean() - c)",
        "The sign is wrong",
    ),
    (
        "biased_step",
        COUNTED + "return experts, weights, bias + rate * (c.mean() - c)",
        "the difference itself",
    ),
    (
        "biased_step",
        COUNTED + "return experts, weights, bias - rate * (c.mean() - c)",
        "with the wrong sign",
    ),
    (
        "biased_step",
        COUNTED + "return experts, weights, bias + rate * (c.mean() - c) / len(p)",
        "difference of shares",
    ),
    (
        "biased_step",
        WEIGHED + "c = torch.bincount(p.argmax(dim=1), minlength=p.shape[1]).float()\n"
        "return experts, weights, bias + rate * torch.sign(c.mean() - c)",
        "without the bias",
    ),
    (
        "biased_step",
        WEIGHED + "c = p.mean(dim=0)\n"
        "return experts, weights, bias + rate * torch.sign(c.mean() - c)",
        "mean probabilities",
    ),
    (
        "biased_step",
        COUNTED + "bias += rate * torch.sign(c.mean() - c)\nreturn experts, weights, bias",
        "changed a tensor",
    ),
    (
        "biased_step",
        COUNTED + "return experts, weights, rate * torch.sign(c.mean() - c)",
        "The old bias is gone",
    ),
    (
        "biased_step",
        COUNTED + "return experts, weights, bias + torch.sign(c.mean() - c)",
        "rate is missing",
    ),
    ("biased_step", WEIGHED + "return experts, weights, bias", "have not moved"),
    (
        "biased_step",
        COUNTED + "return experts, weights, bias + rate * (1 - 2 * (c >= c.mean()).float())",
        "sign(0) is 0",
    ),
    ("biased_step", WEIGHED + "return experts, weights", "three tensors are asked"),
    ("biased_step", WEIGHED + "return experts, p.max(-1), bias", "weights should be a tensor"),
    ("drop_mask", RANKED + "return (rank <= capacity).view(B, T, K)", "True means dropped"),
    (
        "drop_mask",
        CAPACITY + "hot = F.one_hot(experts, n_experts)\n"
        "return (hot.cumsum(dim=1) * hot).sum(dim=3) > capacity",
        "first and second choices apart",
    ),
    (
        "drop_mask",
        CAPACITY + ONE_ROW + "return (rank > capacity).view(B, T, K)",
        "has a count of its own",
    ),
    (
        "drop_mask",
        CAPACITY + ONE_ROW + "capacity = math.ceil(factor * K * B * T / n_experts)\n"
        "return (rank > capacity).view(B, T, K)",
        "with a capacity for all of it",
    ),
    ("drop_mask", RANKED + "return (rank >= capacity).view(B, T, K)", "One too many"),
    (
        "drop_mask",
        RANKED + "capacity = math.ceil(factor) * math.ceil(K * T / n_experts)\n"
        "return (rank > capacity).view(B, T, K)",
        "four experts and factor 1.5",
    ),
    ("drop_mask", RANKED + "return (rank - 1 > capacity).view(B, T, K)", "One too few"),
    (
        "drop_mask",
        RANKED + "return (rank > math.floor(factor * K * T / n_experts)).view(B, T, K)",
        "rounded down",
    ),
    (
        "drop_mask",
        RANKED + "return (rank > math.ceil(factor * T / n_experts)).view(B, T, K)",
        "factor K is missing",
    ),
    (
        "drop_mask",
        CAPACITY + "hot = F.one_hot(experts.transpose(1, 2).flatten(1), n_experts)\n"
        "rank = (hot.cumsum(dim=1) * hot).sum(dim=2)\n"
        "return (rank > capacity).view(B, K, T).transpose(1, 2)",
        "depends on the future",
    ),
    (
        "drop_mask",
        CAPACITY + "hot = F.one_hot(experts.flatten(1).flip(1), n_experts)\n"
        "rank = (hot.cumsum(dim=1) * hot).sum(dim=2)\n"
        "return (rank > capacity).flip(1).view(B, T, K)",
        "First come",
    ),
    (
        "drop_mask",
        CAPACITY + "rank = torch.arange(1, T * K + 1).expand(B, -1)\n"
        "return (rank > capacity).view(B, T, K)",
        "those of the same expert",
    ),
    (
        "drop_mask",
        CAPACITY + "hot = F.one_hot(experts.flatten(1), n_experts)\n"
        "rank = (hot.cumsum(dim=0) * hot).sum(dim=2)\n"
        "return (rank > capacity).view(B, T, K)",
        "across the batch",
    ),
    ("drop_mask", "return torch.zeros_like(experts, dtype=torch.bool)", "Nothing is dropped"),
    ("drop_mask", RANKED + "return rank > capacity", "of the same shape"),
]


@pytest.mark.parametrize(("name", "body", "word"), MISTAKES)
def test_typical_mistake_is_diagnosed(name, body, word):
    passed, said = examine(defined_as(name, body))
    assert not passed
    assert said.startswith("✗")
    assert word in said
