"""The widgets on the tokens of a trained tokenizer."""

import html
import re

import pytest
import torch

from tinygpt import BPETokenizer, generate_greedy, generateV2
from tinygpt.decoding import stream_tokens
from tinygpt.widgets import attention_explorer, frame, routing_explorer, sampling_playground

TEXT = "O coração 😀 don't"  # the sign is three tokens


@pytest.fixture(autouse=True)
def short_texts(short):
    """Texts of a few tokens only."""


def test_playground(subword_model):
    playground = sampling_playground(subword_model, TEXT)
    playground.length.value, playground.banned.value = 20, "e"
    expected = generateV2(subword_model, TEXT, 20, seed=1, **playground.options)
    assert playground.results["all sliders together"] == expected
    assert playground.results["greedy"] == generate_greedy(subword_model, TEXT, 20)
    assert "e" not in expected.removeprefix(TEXT)
    assert "<b>Token 1</b>" in playground.picture.value
    assert "The menu offers the 300 most probable tokens" in playground.picture.value
    playground.banned.value = "\ud800"
    assert "never write: the model does not know" in playground.message.value


def test_the_end_of_a_text_has_a_name_where_it_is_shown(subword_model):
    tokenizer = subword_model.tokenizer
    shown = frame.card(tokenizer, "name", "", [tokenizer.end_of_text, 5], {0: "pin"})
    assert "<mark class='pin'>&lt;|endoftext|&gt;</mark>" in shown
    tokens = [tokenizer.encode("the")[0], tokenizer.end_of_text]
    assert "".join(frame.spelled(tokenizer, tokens)) == tokenizer.decode(tokens)


def test_routing_explorer(subword_model):
    explorer = routing_explorer(subword_model, TEXT)
    pieces = [subword_model.tokenizer.pieces[i] for i in subword_model.tokenizer.encode(TEXT)]
    tiles = explorer.picture.value[: explorer.picture.value.index("<details>")]
    found = [html.unescape(tile) for tile in re.findall(r"'>([^<]*)<i>", tiles)]
    assert found == [frame.label(piece) for piece in pieces]
    assert "<20><F0><9F>" in found
    expected = generateV2(subword_model, TEXT, 10, seed=1, temperature=0.8)
    assert explorer.results["text"] == expected
    for name in explorer.passages:  # with labels for tokens, where styles are known
        explorer.source.value = name
        assert explorer.message.value == ""
    assert "a tinyplays scene, with its speaking styles" in explorer.passages


def test_attention_explorer(subword_model):
    explorer = attention_explorer(subword_model, TEXT)
    tokens = subword_model.tokenizer.encode(TEXT)
    explorer.layer.value, explorer.head.value, explorer.query.value = 1, 1, 3
    with torch.inference_mode():
        maps = subword_model(torch.tensor([tokens]), return_attention=True).attentions
    weight = maps[1][0, 1, 3, 2].item()
    pieces = [frame.shown(subword_model.tokenizer.pieces[token]) for token in tokens]
    assert re.findall(r"title='\d+ .*?'>([^<>]+)</b>", explorer.view.value) == pieces
    assert f"{weight:.3f}" in explorer.view.value


def test_texts_may_end_early(subword_model):
    options = sampling_playground(subword_model, "the word").options
    tokens = list(stream_tokens(subword_model, "the word", 10, seed=1, **options))

    class Early(BPETokenizer):
        end_of_text = tokens[5]

    subword_model.tokenizer = Early(subword_model.tokenizer.tokens, subword_model.tokenizer.merges)
    expected = generateV2(subword_model, "the word", 10, seed=1, **options)
    before = tokens[: tokens.index(tokens[5])]
    assert expected == "the word" + subword_model.tokenizer.decode(before)
    playground = sampling_playground(subword_model, "the word")
    playground.step.value = 9
    assert playground.results["all sliders together"] == expected
    assert playground.results["greedy"] == generate_greedy(subword_model, "the word", 10)
    assert playground.message.value == ""
    assert f"<b>Token {len(before) + 1}</b>" in playground.picture.value  # there is no ninth
    shown = frame.compared(subword_model.tokenizer, "name", "", before, [*before, 5])
    assert f"parts after {len(before)} tokens" in shown
    explorer = routing_explorer(subword_model, "the word")
    explorer.drop.value = 0
    assert explorer.message.value == ""
    expected = generateV2(subword_model, "the word", 10, seed=1, temperature=0.8)
    assert explorer.results["text"] == expected
