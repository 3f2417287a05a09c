import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from tinygpt.errors import ConfigError
from tinygpt.measure import (
    agreement,
    dead_experts,
    max_violation,
    measure_routing,
    mutual_information,
    variation,
)
from tinygpt.model import balance_loss, z_loss

from ..tools import (
    SHAPE,
    close,
    collapsed,
    layer_of,
    model_of,
    normal,
    random_ids,
    routing_of,
    shaken,
)


def test_load_and_its_statistics_in_closed_form():
    experts = torch.tensor([[[0], [0], [0], [2]], [[0], [2], [1], [0]]])
    routing = routing_of(torch.zeros(2, 4, 4), experts=experts)
    assert routing.counts().tolist() == [5, 1, 2, 0]
    close(routing.load(), torch.tensor([5, 1, 2, 0]) / 8)
    valid = torch.tensor([[True, False, False, True], [False, False, True, True]])
    close(routing.load(valid), torch.tensor([2, 1, 1, 0]) / 4)
    load = routing.load()
    assert load.sum() == 1
    assert variation(load) == pytest.approx(np.std([5, 1, 2, 0]) / 2)
    assert max_violation(load) == pytest.approx(5 / 2 - 1)
    assert dead_experts(load) == [3]
    assert dead_experts(load, share=0.6) == [1, 3]
    even = torch.full((4,), 0.25)
    assert (variation(even), max_violation(even), dead_experts(even)) == (0, 0, [])


def test_entropy_lies_between_certainty_and_ignorance():
    assert collapsed(0).entropy().item() == pytest.approx(0, abs=1e-6)
    assert routing_of(torch.zeros(1, 3, 5)).entropy().item() == pytest.approx(math.log(5))
    half = routing_of(torch.tensor([[[0.0, 0.0, -99.0]]]))
    assert half.entropy().item() == pytest.approx(math.log(2))
    sigmoid = replace(half, probs=torch.full((1, 1, 3), 0.2))  # scores need not add up to 1
    assert sigmoid.entropy().item() == pytest.approx(math.log(3))


@pytest.mark.parametrize("moe", [{}, {"top_k": 3, "top_p": 0.6}])
def test_a_table_counts_labels_and_experts(moe):
    routing, labels = layer_of(**moe).router(normal(3, 15, 16)), random_ids(3, 15) % 7 - 1
    expected = torch.zeros(6, 4, dtype=torch.long)
    for b, t, k in itertools.product(*map(range, routing.experts.shape)):
        if labels[b, t] >= 0 and routing.experts[b, t, k] < 4:
            expected[labels[b, t], routing.experts[b, t, k]] += 1
    assert torch.equal(routing.table(labels, 6), expected)


def test_mutual_information_in_closed_form():
    independent = torch.outer(torch.tensor([1, 2, 3]), torch.tensor([4, 0, 5, 1]))
    assert mutual_information(independent) == pytest.approx(0, abs=1e-9)
    shares = torch.tensor([2, 3, 5])
    entropy = -sum(p * math.log(p) for p in (0.2, 0.3, 0.5))
    assert mutual_information(shares.diag()) == pytest.approx(entropy)
    assert mutual_information(shares.diag()[:, [2, 0, 1]]) == pytest.approx(entropy)


def test_agreement_is_one_up_to_the_names_of_experts_and_nought_if_independent():
    logits = normal(1, 64, 4) * 3
    first = routing_of(logits, 2)
    renamed = routing_of(logits[..., [2, 0, 3, 1]], 2)
    assert agreement(first, renamed) == pytest.approx(1)
    rows = torch.arange(64).view(1, 64, 1)
    here, there = (routing_of(torch.zeros(1, 64, 4), experts=e) for e in (rows % 4, rows // 4 % 4))
    assert agreement(here, there) == pytest.approx(0, abs=1e-9)
    halves = routing_of(torch.zeros(1, 64, 4), experts=rows % 4 // 2)  # of 2 bits, 1 is known
    assert agreement(here, halves) == agreement(halves, here) == pytest.approx(0.5)
    assert math.isnan(agreement(collapsed(0), collapsed(1)))


@pytest.mark.parametrize(
    "moe", [{"top_k": 2}, {"top_k": 3, "top_p": 0.6, "every": 2, "jitter": 0.3}]
)
def test_a_report_counts_every_token_of_the_split(moe):
    model, tokens = model_of(**moe).train(), random_ids(1, 24 * 5 + 10)[0]
    report = measure_routing(model, tokens)
    assert model.training
    model.eval()
    layers = 2 // moe.get("every", 1)
    tables = torch.zeros(layers, 65, 4, dtype=torch.long)
    figures, counted = torch.zeros(3, layers), len(tokens) - 1
    whole, rest = tokens[: 24 * 5].view(5, 24), tokens[24 * 5 : -1][None]
    for x in (whole, rest):  # the last, shorter window weighs as many tokens as it has
        for i, r in enumerate(model(x, return_routing=True).routing):
            tables[i] += r.table(x, 65)
            one = torch.stack([balance_loss(r), z_loss(r), r.entropy()])
            figures[:, i] += one.detach() * x.numel() / counted
    assert torch.equal(report.tables, tables)
    if "top_p" not in moe:
        assert (report.tables.sum((1, 2)) == counted * 2).all()
    close(torch.stack([report.balance_loss, report.z_loss, report.entropy]), figures)
    close(report.load, tables.sum(1) / tables.sum((1, 2))[:, None])
    assert report.load_cv == pytest.approx(max(variation(row) for row in report.load))


def test_a_report_of_a_dense_model_is_refused():
    with pytest.raises(ConfigError, match="has no experts"):
        measure_routing(shaken(SHAPE), random_ids()[0])
