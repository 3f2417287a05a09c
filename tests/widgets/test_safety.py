"""Whatever a text, a token or a label holds: it is shown, and never does anything to the page."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import torch

from tinygpt import CharTokenizer, ModelConfig, MoEConfig, TinyGPT
from tinygpt.widgets import (
    attention_explorer,
    frame,
    routing_explorer,
    sampling_playground,
    window_explorer,
)

from ..tools import ByteTokenizer

pytestmark = pytest.mark.usefixtures("short")

EVIL = "</pre><script>alert('1')</script>&amp;\"' onload='x'"
UNSEEN = "\x00\x07\x1b\r\x7f\x85\u061c\u200e\u200f\u2028\u202e\u2066\u2069\ufeff"
FINE = "é 한 עברית\tà 👨\u200d👩 \n"  # what belongs to a text


class Page(HTMLParser):
    """The tags, attributes and text of a page."""

    def __init__(self, page: str):
        super().__init__()
        self.tags, self.attributes, self.text = set(), set(), ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.text += "".join(value or "" for name, value in attrs if name == "title")

    def handle_data(self, data):
        self.text += data


def check_page(*views, says=()):
    """No tag or attribute that is not ours, no character that disturbs; some words are there."""
    page = "".join(view.value for view in views)
    found = Page(page)
    ours = "div p b i span small br table thead tbody tr th td code pre mark details summary"
    ours += " h3 em s q u svg path text polyline circle"
    assert found.tags <= set(ours.split())
    assert not {name for name in found.attributes if name.startswith("on")}
    assert not set(page) & set(UNSEEN)
    for words in says:
        assert words in found.text
    return found


def evil_model():
    """Characters, and whole tokens, that are dangerous."""
    pieces = sorted({c.encode() for c in EVIL + UNSEEN + FINE})
    whole = [b"<script>", b"' onload='x'", "\u202e<b>".encode(), b"&amp;", b"\r\n"]
    tokenizer = ByteTokenizer([*pieces, *whole])
    torch.manual_seed(0)
    config = ModelConfig(tokenizer.vocab_size, 64, 1, 2, 16, moe=MoEConfig(n_experts=2))
    model = TinyGPT(config)
    model.tokenizer = tokenizer
    return model


@pytest.fixture
def model():
    return evil_model()


def test_signs_for_what_is_unseen():
    assert frame.safe("a\u202eb\x00<") == "a&lt;U+202E&gt;b&lt;U+0000&gt;&lt;"
    assert frame.safe(FINE) == FINE
    assert frame.label("\u202e\x1b\u200d \xa0") == "<U+202E><U+001B><U+200D>␣<U+00A0>"
    assert frame.label("é한") == "é한"
    assert frame.safe("\ud83d") == "&lt;U+D83D&gt;"
    for sign in UNSEEN:
        assert sign not in frame.safe(sign) + frame.label(sign) + frame.shown(sign)


def test_the_playground(model):
    text = EVIL + UNSEEN
    playground = sampling_playground(model, text)
    assert playground.message.value == ""
    for name, value in (("replacement", model.config.vocab_size - 3), ("step", 4)):
        getattr(playground, name).value = value
        views = playground.picture, playground.texts
        check_page(*views, says=("alert('1')", "<U+202E>", "onload"))
    labels = [label for label, _ in playground.replacement.options]
    assert "<U+202E><b>" in labels
    assert not set("".join(labels)) & set(UNSEEN)


def test_the_routing_explorer(model):
    text = EVIL + UNSEEN
    n = len(model.tokenizer.encode(text))
    names = [f"<img src=x onerror='alert(1)'>{UNSEEN}", '"&quot;']
    tables = {step: torch.ones(1, model.config.vocab_size, 2) for step in (0, 1)}
    labels = [i % 2 for i in range(n)]
    explorer = routing_explorer(model, text, tables, labels, names)
    explorer.drop.value = 1
    assert explorer.message.value == ""
    views = explorer.picture, explorer.loss, explorer.history
    page = check_page(*views, says=("<img src=x", '"&quot;', "<U+202E>", "<script>"))
    assert "img" not in page.tags


def test_attention_and_windows(model, corpus):
    explorer = attention_explorer(model, EVIL + UNSEEN)
    explorer.off.value = True
    check_page(explorer.wall, explorer.view, explorer.loss, says=["<U+202E>"])
    tokens = torch.tensor(model.tokenizer.encode(EVIL + UNSEEN))
    windows = window_explorer(replace(corpus, tokenizer=model.tokenizer, train=tokens), 0, 8)
    for start in range(windows.start.max + 1):
        windows.start.value = start
        check_page(windows.view)


@pytest.mark.parametrize("kind", [sampling_playground, routing_explorer])
def test_errors(kind):
    tokenizer = CharTokenizer("abc <")
    model = TinyGPT(ModelConfig(5, 16, 1, 2, 16, moe=MoEConfig(n_experts=2)))
    model.tokenizer = tokenizer
    widget = kind(model, "abc")
    control = getattr(widget, "prompt", None) or widget.text
    control.value = EVIL + UNSEEN + "\ud83d"
    page = check_page(widget.message, says=["the model does not know '/', 'p'"])
    assert page.tags == {"div", "b"}
    if kind is sampling_playground:
        control.value = "abc"
        widget.replacement.value = tokenizer.encode("<")[0]
        widget.banned.value = "<"
        check_page(widget.message, says=["never write '<'? You put it"])


def test_a_card_is_safe():
    tokenizer = ByteTokenizer([b"<b>", "\u202e".encode()])
    page = frame.card(tokenizer, "<i>", "<u>\u202e", [0, 1], {0: "pin"})
    assert page.count("<b>") == 1  # the title's own
    assert not re.search("<[iu]>|\u202e", page)


def test_an_error_line_is_safe():
    page = frame.error_line("<b>&\u202e'\"", drawn=False)
    assert "&lt;b&gt;&amp;&lt;U+202E&gt;&#x27;&quot;</div>" in page
    error = RuntimeError("<i>" + "x" * 5000 + "\n  at\x00")
    assert len(frame.explained(error)) < 450
    assert frame.explained(RuntimeError("a\n  b")) == "RuntimeError: a b"
