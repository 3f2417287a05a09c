import re

import pytest
import torch

from tinygpt.widgets import attention_explorer


def test_every_slider_of_the_attention_explorer_changes_the_picture(explorer):
    for slider in (explorer.layer, explorer.head, explorer.query):
        before, value = explorer.view.value, slider.value
        slider.value = slider.min if value == slider.max else slider.max
        assert explorer.view.value != before
        slider.value = value
        assert explorer.view.value == before


def test_the_shown_weights_are_the_models(explorer):
    explorer.query.value = 2
    weights = explorer.maps[0][0, 2]
    assert weights[:3].sum().item() == pytest.approx(1)
    for w in weights[:3].tolist():
        assert f">{w:.2f}</td>" in explorer.view.value


def test_tokens_of_several_characters_and_parts_of_one(byte_model):
    tokenizer, text = byte_model.tokenizer, "the cat sat é\n\n" * 9
    explorer = attention_explorer(byte_model, text)
    tokens = tokenizer.encode(text)[: byte_model.config.block_size]
    assert len(tokens) == 24
    assert explorer.query.description == "token"
    assert explorer.query.max == 23
    explorer.query.value, explorer.head.value, explorer.layer.value = 3, 1, 1
    with torch.inference_mode():
        maps = byte_model(torch.tensor([tokens]), return_attention=True).attentions
    for w in maps[1][0, 1, 3, :4].tolist():
        assert f">{w:.2f}</td>" in explorer.view.value
    tiles = re.findall(r">([^<>]+)</span>", explorer.view.value)
    x = ["the", "␣cat", "␣sat", "&lt;20&gt;&lt;C3&gt;", "&lt;A9&gt;", "⏎⏎"]
    assert tiles[:24] == 4 * x
    assert "<p>token 3, " in explorer.view.value
    assert "character" not in explorer.view.value
