import itertools
import math

import pytest
import torch

from tinygpt.corpora import Corpus, load_corpus, write_plays
from tinygpt.errors import ConfigError
from tinygpt.measure import (
    CLASSES,
    classes,
    co_activation,
    measure_routing,
    mutual_information,
    positions_read,
    routing_over_training,
    saturation,
    specialisation,
    token_labels,
)
from tinygpt.text import CharTokenizer

from ..tools import model_of, random_ids


def test_classes():
    names = [CLASSES[i] for i in classes("aéyçÉB 7\n.\t")]
    vowel, consonant = "vowels", "consonants"
    assert names[:6] == [vowel, vowel, consonant, consonant, "capitals", "capitals"]
    assert names[6:] == ["space", "digits", "newline", "punctuation", "space"]
    assert classes("aeiou").unique().tolist() == [0]
    tokens = [" the", "  ", "\n\n", ".\n", " Cat", "", "<C3>", "at 7"]
    names = [CLASSES[i] for i in classes(tokens)]
    assert names[:4] == [consonant, "space", "newline", "punctuation"]
    assert names[4:] == ["capitals", "punctuation", "punctuation", vowel]


TOP_P = {"top_k": 3, "top_p": 0.6}


def choices(**moe) -> torch.Tensor:
    """Of one layer for some tokens, `(N, K)`; 4 where a place stays free."""
    return measure_routing(model_of(**moe), random_ids(1, 24 * 5 + 10)[0]).experts[0]


def chosen(row: torch.Tensor) -> set[int]:
    return {e for e in row.tolist() if e < 4}


@pytest.mark.parametrize("moe", [{}, {"top_k": 2}, TOP_P])
def test_saturation_counts_the_choices_of_the_final_router_that_were_made_before(moe):
    experts, final = choices(**moe), choices(**moe).roll(1, 0)
    pairs = [(chosen(a), chosen(b)) for a, b in zip(experts, final, strict=True)]
    total = sum(len(b) for _, b in pairs)
    same, by_chance = saturation(experts, final, 4)
    assert same == pytest.approx(sum(len(a & b) for a, b in pairs) / total)
    assert saturation(experts.flip(-1), final, 4)[0] == same  # the order of a token's experts
    # by chance: each of the earlier choices with each token, not only its own
    others = sum(len(a & b) for (a, _), (_, b) in itertools.product(pairs, pairs))
    assert by_chance == pytest.approx(others / len(pairs) / total)
    assert saturation(final, final, 4)[0] == 1


def test_a_collapsed_router_is_saturated_by_chance_too():
    zeros = torch.zeros(10, 1, dtype=torch.int16)
    assert saturation(zeros, zeros, 4) == (1, 1)
    assert saturation(zeros, zeros + 1, 4) == (0, 0)


@pytest.mark.parametrize("moe", [{"top_k": 2}, TOP_P])
def test_co_activation_counts_the_tokens_that_two_experts_share(moe):
    experts = choices(**moe)
    sets = [chosen(row) for row in experts]
    found = co_activation(experts, 4)
    for i, j in itertools.product(range(4), range(4)):
        mine = [s for s in sets if i in s]
        expected = 0 if i == j else sum(j in s for s in mine) / len(mine)
        assert found[i, j].item() == pytest.approx(expected)
    if moe == {"top_k": 2}:
        torch.testing.assert_close(found.sum(1), torch.ones(4, dtype=torch.float64))


def test_co_activation_of_idle_experts_is_unknown_and_of_single_ones_refused():
    found = co_activation(torch.tensor([[0, 2], [2, 0]]), 3)
    assert found[1].isnan().all()
    assert found[0].tolist() == found[2].tolist()[::-1] == [0, 0, 1]
    with pytest.raises(ConfigError, match="top_k >= 2"):
        co_activation(torch.zeros(5, 1, dtype=torch.int16), 3)


def test_specialisation_in_closed_form():
    sure = specialisation(torch.tensor([[50, 0, 0], [0, 0, 0], [0, 0, 50]]))
    assert sure.nats == sure.entropy == pytest.approx(math.log(2))
    assert sure.share == pytest.approx(1)
    assert sure.chance == 1 / 200  # of the two labels and the two experts that there are
    assert specialisation(torch.tensor([[5, 15], [10, 30]])).nats == pytest.approx(0, abs=1e-9)
    for table in (torch.tensor([[5, 5]]), torch.zeros(3, 4)):
        assert math.isnan(specialisation(table).share)
        assert specialisation(table).nats == 0


def test_chance_is_what_independent_choices_seem_to_tell():
    generator = torch.Generator().manual_seed(0)
    told = []
    for _ in range(300):
        cells = torch.randint(6, (200, 2), generator=generator) % torch.tensor([5, 4])
        table = torch.zeros(5, 4).index_put_(tuple(cells.T), torch.ones(200), accumulate=True)
        told.append(specialisation(table))
    mean = sum(each.nats for each in told) / len(told)
    assert mean == pytest.approx(told[0].chance, rel=0.1)


@pytest.mark.parametrize("limit", [None, 48])
def test_positions_are_those_of_the_tokens_that_are_read(limit):
    model, tokens = model_of(top_k=2), random_ids(1, 24 * 5 + 10)[0]
    read = positions_read(model, len(tokens), limit)
    report = measure_routing(model, tokens, limit)
    assert report.experts.shape == (2, len(read), 2)
    tables = torch.zeros(2, 65, 4, dtype=torch.long)
    for layer, (n, position) in itertools.product(range(2), enumerate(read.tolist())):
        for expert in report.experts[layer, n].tolist():
            tables[layer, tokens[position], expert] += 1
    assert torch.equal(tables, report.tables)
    assert len(read) == (len(tokens) - 1 if limit is None else limit)


def test_labels_are_those_of_the_tokens_that_are_read():
    model, text = model_of(), "Ah, I see.\n" * 20
    tokenizer = CharTokenizer.from_text(text)
    tokens = torch.tensor(tokenizer.encode(text))
    corpus = Corpus("own", tokenizer, tokens, tokens, None, "here", lambda: text)
    (labels,) = token_labels(model, corpus, 48).values()
    read = positions_read(model, len(tokens), 48).tolist()
    assert labels.tolist() == classes([text[i] for i in read]).tolist()


def test_styles_of_tinyplays_are_those_of_its_derivation():
    corpus, model = load_corpus("tinyplays"), model_of()
    labels = token_labels(model, corpus, 480)
    assert list(labels) == ["class", "style"]
    plays, start = write_plays(), len(corpus.train)
    read = positions_read(model, len(corpus.val), 480).tolist()
    assert labels["style"].tolist() == [int(plays.style[start + i]) for i in read]
    assert corpus.tokenizer.decode(corpus.val[:50]) == plays.text[start : start + 50]


def test_rows_of_a_training_compare_each_step_with_the_last():
    tokens = random_ids(1, 24 * 5 + 10)[0]
    models = [model_of(top_k=2) for _ in range(3)]
    for seed, model in enumerate(models):
        for router in (block.ffn.router for block in model.blocks):
            torch.nn.init.normal_(router.proj.weight, generator=torch.manual_seed(seed))
    reports = {step: measure_routing(m, tokens) for step, m in zip((9, 0, 5), models, strict=True)}
    label = torch.arange(len(tokens) - 1) % 3 - 1
    rows = routing_over_training(reports, {"third": label})
    assert [(r["step"], r["layer"]) for r in rows] == list(itertools.product((0, 5, 9), (0, 1)))
    assert [r["saturation"] == 1 for r in rows] == [False] * 4 + [True] * 2
    row, report = rows[3], reports[5]  # the second layer
    loads = [0] * 4
    table = torch.zeros(2, 4)
    for n, pair in enumerate(report.experts[1].tolist()):
        for expert in pair:
            loads[expert] += 1
            if label[n] >= 0:
                table[label[n], expert] += 1
    assert row["max_violation"] == pytest.approx(max(loads) / (sum(loads) / 4) - 1)
    assert row["saturation"] == saturation(report.experts[1], reports[9].experts[1], 4)[0]
    assert row["entropy"] == report.entropy[1].item()
    assert row["third_nats"] == pytest.approx(mutual_information(table))
    assert row["third_share"] == pytest.approx(row["third_nats"] / math.log(2), rel=0.01)
