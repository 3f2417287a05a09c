"""Hostile inputs of all widgets: one clear error when they are made, one clear line afterwards."""

import html
import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from tinygpt import CharTokenizer, ModelConfig, MoEConfig, TinyGPT
from tinygpt.errors import ConfigError, UnknownCharacterError
from tinygpt.widgets import (
    attention_explorer,
    routing_explorer,
    sampling_playground,
    window_explorer,
)
from tinygpt.widgets.passages import LONGEST

from ..conftest import LINES

pytestmark = pytest.mark.usefixtures("short")


@pytest.fixture
def mixture(corpus):
    torch.manual_seed(0)
    V = corpus.tokenizer.vocab_size
    model = TinyGPT(ModelConfig(V, 24, 2, 2, 16, moe=MoEConfig(n_experts=4)))
    model.tokenizer = corpus.tokenizer
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p), alpha=0.2)
    return model


MADE = {
    "playground": lambda model: sampling_playground(model, "the"),
    "routing": lambda model: routing_explorer(model, "the cat"),
    "attention": lambda model: attention_explorer(model, "the cat"),
}


def refused(match, make, *args, **options):
    """One clear error of this package."""
    with pytest.raises((ConfigError, UnknownCharacterError), match=match) as caught:
        make(*args, **options)
    message = str(caught.value)
    assert 20 < len(message) < 400
    assert "\n" not in message
    assert "Traceback" not in message


class NotATokenizer:
    vocab_size = 21


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_a_model_that_cannot_be_read_is_refused(make, mixture, corpus):
    for wrong in (None, "laptop", 5, nn.Linear(2, 2), corpus, TinyGPT, mixture.state_dict()):
        refused("model must be a TinyGPT, not", make, wrong)
    for tokenizer, match in (
        (None, "this model has no tokenizer; set model.tokenizer"),
        (NotATokenizer(), "must be a Tokenizer, not a NotATokenizer"),
        (CharTokenizer("the ca"), "the tokenizer has 6 symbols, the model's vocab_size is 21"),
    ):
        mixture.tokenizer = tokenizer
        refused(match, make, mixture)
    mixture.tokenizer = corpus.tokenizer
    for value in (math.nan, math.inf):
        kept = mixture.blocks[1].ln_1.weight[3].item()
        with torch.no_grad():
            mixture.blocks[1].ln_1.weight[3] = value
            refused("blocks.1.ln_1.weight hold NaN or infinity", make, mixture)
            mixture.blocks[1].ln_1.weight[3] = kept
    make(mixture)


def test_weights_that_overflow_are_refused(mixture):
    with torch.no_grad():
        mixture.wte.weight.mul_(1e38)
    refused("gives NaN or infinity as attention", attention_explorer, mixture, "the")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "the text is empty"),
        ("the é", "not in this tokenizer's alphabet"),
        (5, "text must be a text, not a int"),
        (["the"], "text must be a text, not a list"),
        (b"the", "text must be a text, not a bytes"),
    ],
)
def test_a_text_without_attention_is_refused(mixture, text, match):
    refused(match, attention_explorer, mixture, text)


def test_attention_of_one_token_and_of_many(mixture):
    one = attention_explorer(mixture, "t")
    assert one.query.disabled
    assert "are read" not in one.view.value
    many = attention_explorer(mixture, LINES)
    assert f"The first 24 of {len(LINES)} characters are read." in many.view.value
    assert many.query.max == 23


def test_windows_refuse_what_they_cannot_show(corpus):
    for wrong in (None, "tinyplays", corpus.train):
        refused("corpus must be a Corpus, not", window_explorer, wrong)
    short = "has length [01]; a window with a target needs at least 2"
    for n in (0, 1):
        refused(short, window_explorer, replace(corpus, train=corpus.train[:n]))
    refused("no tokenizer", window_explorer, replace(corpus, tokenizer=None))
    last = len(corpus.train) - 33
    for start in (-1, last + 1, 10**30, 1.5, math.nan, None, "3", [1], True, "x" * 999):
        refused(f"start=.* must be a whole number from 0 to {last}", window_explorer, corpus, start)
    for size in (0, -1, 33, 2.0, None, "8"):
        refused(
            "block_size=.* must be a whole number from 1 to 32", window_explorer, corpus, 0, size
        )
    window_explorer(corpus, np.int64(last), torch.tensor(32))
    two = replace(corpus, train=corpus.train[:2])
    refused("block_size=8 must be a whole number from 1 to 1", window_explorer, two)
    assert "1 example in one window" in window_explorer(two, 0, 1).view.value


@pytest.mark.parametrize("prompt", [None, 5, ["the"], b"the"])
def test_a_prompt_that_is_no_text_is_refused(mixture, prompt):
    refused("prompt must be a text, not", sampling_playground, mixture, prompt)


GOOD = torch.ones(2, 21, 4)


@pytest.mark.parametrize(
    ("tables", "match"),
    [
        ([GOOD], "tables must be a dict of steps and tensors, not a list"),
        (GOOD, "tables must be a dict of steps and tensors, not a Tensor"),
        ({0: None}, "the table of step 0 must be a tensor, not None"),
        ({0: GOOD.numpy()}, "the table of step 0 must be a tensor, not a ndarray"),
        ({0: GOOD, 5: GOOD[:1]}, r"the table of step 5 has shape \(1, 21, 4\), this model has"),
        ({0: GOOD[0]}, r"shape \(21, 4\)"),
        ({0: GOOD[:, :20]}, r"shape \(2, 20, 4\)"),
        ({0: -GOOD}, "must hold counts from 0 on"),
        ({0: GOOD / 0}, "must hold counts from 0 on"),
        ({0: GOOD * 0}, "some of them in each layer"),
        ({0: GOOD * math.nan}, "must hold counts from 0 on"),
        ({"step 1": GOOD}, "the step of a table='step 1' must be a whole number"),
        ({-1: GOOD}, "the step of a table=-1 must be"),
    ],
)
def test_tables_of_another_model_are_refused(mixture, tables, match):
    refused(match, routing_explorer, mixture, "the cat", tables)


def test_tables_in_any_order(mixture):
    tables = {step: GOOD + step for step in (20, 0, 10)}
    explorer = routing_explorer(mixture, "the cat", tables)
    assert explorer.step.options == (0, 10, 20)
    assert explorer.step.value == 20
    assert not re.search(r"\bnan\b", explorer.history.value)


@pytest.mark.parametrize(
    ("text", "labels", "names", "match"),
    [
        ("the", [0, 1], None, "2 labels, but the text has 3 characters"),
        ("the", [], None, "0 labels, but the text has 3"),
        ("the", [0, 0.5, 1], None, "labels must be whole numbers"),
        ("the", torch.ones(3), None, "labels must be whole numbers"),
        ("the", ["a", "b", "c"], None, "labels must be whole numbers"),
        ("the", [0, None, 1], None, "labels must be whole numbers"),
        ("the", 5, None, "labels must be whole numbers"),
        ("the", torch.zeros(3, 2, dtype=torch.long), None, "labels must be whole numbers"),
        ("the", [0, -2, 1], None, "label -2 must be at least 0, or -1 for none"),
        ("the", [0, 10**12, 1], None, "label 1000000000000 must be less than 1000"),
        ("the", [0, 1, 2], ["a", "b"], "label 2 has no name; label_names has 2"),
        ("the", [0, 1, 0], ["a", 7], "the name of label 1 must be a text, not a int"),
        ("the", [0, 1, 0], "ab", "label_names must be a list of texts, not a str"),
        ("the", [0, 1, 0], 3, "label_names must be a list of texts, not a int"),
        ("the", None, ["a"], "label_names are the names of labels; give labels="),
        (None, [0, 1, 2], None, "labels are of the tokens of a text; give text="),
        ("thé", [0, 1, 2], None, "text: the model does not know 'é'; take it out"),
        (5, None, None, "text must be a text, not a int"),
    ],
)
def test_labels_that_do_not_fit_are_refused(mixture, text, labels, names, match):
    refused(match, routing_explorer, mixture, text, None, labels, names)


def test_labels_of_any_whole_numbers(mixture):
    for labels in ((0, 1, -1), np.array([0, 1, -1]), torch.tensor([0, 1, -1], dtype=torch.int8)):
        explorer = routing_explorer(mixture, "the", labels=labels)
        assert "<h3>Styles</h3>" in explorer.figures.value
    nothing_known = routing_explorer(mixture, "the", labels=[-1, -1, -1])
    assert nothing_known.message.value == ""
    assert "Styles" not in nothing_known.figures.value


# --- on a control: one line, and the last picture stays ------------------------------------------


def line_of(widget):
    """The line that is shown, if there is one, without its frame."""
    shown = widget.message.value
    assert "Traceback" not in shown
    assert "\n" not in shown
    return html.unescape(re.sub("<.*?>", "", shown)).replace(
        "Below, pale: what was drawn last.", ""
    )


TEXTS = {
    "nothing": "",
    "one": "t",
    "unknown": "the é",
    "many unknown": "".join(map(chr, range(0x4E00, 0x4E00 + 500))),
    "longer than the block": LINES,
    "long": LINES * 40,
    "control characters": "the \x00\x1b\u202e\ufeff",
    "half a character": "the \ud83d",
    "a space": " ",
}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("kind", ["playground", "routing", "banned"])
def test_a_text_that_is_typed(mixture, caplog, capfd, kind, name):
    text = TEXTS[name]
    widget = MADE["routing" if kind == "routing" else "playground"](mixture)
    control = {"routing": "text", "playground": "prompt", "banned": "banned"}[kind]
    views = [v for v in (getattr(widget, n, None) for n in ("picture", "texts", "loss")) if v]
    before, old = [view.value for view in views], getattr(widget, control).value
    fine = {"one", "a space", "longer than the block", "long"}
    if kind == "routing":
        fine = {"longer than the block"}
    if kind == "banned":
        fine = {"nothing", "one", "a space"}
    getattr(widget, control).value = text
    if name in fine:
        assert line_of(widget) == ""
        assert all("class='tg old'" not in view.value for view in views)
    else:
        assert 20 < len(line_of(widget)) < 450
        pale = [shown.replace("class='tg '", "class='tg old'") for shown in before]
        assert [view.value for view in views] == pale
    getattr(widget, control).value = old
    assert widget.message.value == ""
    assert [view.value for view in views] == before
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


def test_the_line_names_the_limit(mixture):
    playground, explorer = MADE["playground"](mixture), MADE["routing"](mixture)
    playground.prompt.value = TEXTS["many unknown"]
    assert "'一', '丁'" in line_of(playground)
    assert "and 490 more; take it out" in line_of(playground)
    explorer.text.value = TEXTS["long"]
    assert f"it needs 2 to {LONGEST} characters" in line_of(explorer)


@pytest.mark.parametrize("kind", ["playground", "routing"])
@pytest.mark.parametrize("value", [-5, 2**31, 10**30])
def test_a_seed_out_of_range_is_the_nearest_one(mixture, kind, value):
    widget = MADE[kind](mixture)
    widget.seed.value = value
    assert widget.seed.value == (0 if value < 0 else 2**31 - 1)
    assert widget.message.value == ""


def test_weights_that_are_ruined_later_are_said(mixture):
    playground, explorer = MADE["playground"](mixture), MADE["routing"](mixture)
    attention = MADE["attention"](mixture)
    picture, routing = playground.picture.value, explorer.picture.value
    with torch.no_grad():
        mixture.ln_f.weight.fill_(math.nan)
    playground.prompt.value, explorer.text.value = "cat", "a cat"
    for widget in (playground, explorer):
        assert "the model gives NaN or infinity" in line_of(widget)
        with pytest.raises(ConfigError, match="NaN or infinity"):
            widget.results  # noqa: B018
    old = "class='tg '", "class='tg old'"
    assert playground.picture.value == picture.replace(*old)
    assert explorer.picture.value == routing.replace(*old)
    attention.head.value = 1  # was read before
    assert attention.message.value == ""


def test_a_window_that_cannot_be_shown_is_said(corpus):
    train = corpus.train.clone()
    train[50], train[60] = 99, -1
    explorer = window_explorer(replace(corpus, train=train))
    shown = explorer.view.value
    for start, token in ((45, 99), (55, -1)):
        explorer.start.value = start
        assert f"id {token} is not in 0 to 20, the ids of this tokenizer" in line_of(explorer)
        assert explorer.view.value == shown.replace("class='tg-plain '", "class='tg-plain old'")
        assert explorer.view.value != shown
    explorer.start.value = 0
    assert explorer.view.value == shown
    assert explorer.message.value == ""


def test_a_long_prompt_is_shown_from_its_end(mixture):
    playground = MADE["playground"](mixture)
    playground.prompt.value = LINES * 40
    assert len(playground.texts.value) < 20_000
    assert f"<span>…{(LINES * 40)[-60:].lstrip()}</span>" in playground.texts.value  # in sight
    assert playground.results["greedy"].startswith(LINES * 40)
