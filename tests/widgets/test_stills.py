"""A widget that is not run shows a sentence and a still picture with its finding."""

import json

import nbformat
import pytest
from IPython.core.formatters import DisplayFormatter

from tinygpt import widgets

from ..execute import WIDGET, still
from ..plots.test_base import Images
from .conftest import noise


@pytest.fixture
def made(model, corpus, short):
    """A maker of each widget."""
    experts = noise(corpus.tokenizer)
    return {
        "window": lambda: widgets.window_explorer(corpus),
        "playground": lambda: widgets.sampling_playground(model, "the "),
        "attention": lambda: widgets.attention_explorer(model, "the cat"),
        "routing": lambda: widgets.routing_explorer(experts, "the cat sat"),
        "lab": lambda: widgets.router_lab(corpus),
    }


def shown(widget):
    data, _ = DisplayFormatter().format(widget)
    return data


FOUND = {
    "window": "A window of 8 inputs and 8 targets",
    "playground": "After “the␣”, after each step. model itself:",
    "attention": "How many tokens each looks back",
    "routing": "of 11 characters as first choice expert 0",
    "lab": "Share of the fixed text after 0 updates",
}


@pytest.mark.parametrize("name", FOUND)
def test_a_widget_brings_a_sentence_and_a_picture(made, name):
    widget = made[name]()
    data = shown(widget)
    assert data[WIDGET]["model_id"] == widget.model_id
    assert data["text/plain"].startswith(f"{widget.about} This is a still picture")
    assert FOUND[name] in data["text/plain"]
    page = data["text/html"]
    assert page.startswith("<p>")
    (image,) = Images(page[page.index("<img") :]).found
    assert image["alt"] in data["text/plain"]
    assert image["src"].startswith("data:image/png;base64,")
    assert len(page) < 250_000


def test_the_picture_is_that_of_the_controls(made):
    playground = made["playground"]()
    playground.temperature.value, playground.top_k.value = 0.0, 3
    assert "top-k 3: 1 characters, entropy 0.00" in shown(playground)["text/plain"]
    explorer = made["routing"]()
    explorer.layer.value = 1
    assert "Layer 1: of 11 characters" in shown(explorer)["text/plain"]


def test_a_widget_with_an_error_keeps_its_sentence(made):
    explorer = made["routing"]()
    explorer.text.value = ""
    data = shown(explorer)
    assert data["text/plain"].startswith(explorer.about)
    assert "<img" not in data["text/html"]


def test_tokens_that_are_more_than_characters(subword_model, byte_model, short):
    for model in (subword_model, byte_model):
        assert "expert 0" in widgets.routing_explorer(model).still().alt
        assert "after each step" in widgets.sampling_playground(model, "the").still().alt
        assert "Attention maps" in widgets.attention_explorer(model).still().alt


def test_of_an_executed_notebook_the_still_pictures_are_left(made):
    output = nbformat.v4.new_output("execute_result", shown(made["window"]()), execution_count=1)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(outputs=[output])])
    notebook.metadata["widgets"] = {}
    still(notebook)
    left = notebook.cells[0].outputs[0]["data"]
    assert set(left) == {"text/html", "text/plain"}
    assert "widget" not in json.dumps(notebook.metadata)
