"""Every control is moved, and what is drawn is read: no kernel, no browser."""

import pytest
import torch

from tinygpt import TinyGPT
from tinygpt.widgets import attention_explorer, window_explorer


def test_window_explorer_shows_inputs_targets_and_examples(corpus):
    explorer = window_explorer(corpus, start=4, block_size=3)
    first = explorer.view.value
    x, y = corpus.train[4:7].tolist(), corpus.train[5:8].tolist()
    for i in x + y:
        assert f"<small>{i}</small>" in first
    assert "3 examples in one window" in first
    explorer.start.value = 5
    assert explorer.view.value != first
    explorer.start.value = 4
    assert explorer.view.value == first
    explorer.block_size.value = 20
    assert "20 examples in one window (the middle left out)" in explorer.view.value


def test_window_explorer_reaches_the_end_of_the_text(corpus):
    explorer = window_explorer(corpus)
    explorer.block_size.value = explorer.block_size.max
    explorer.start.value = explorer.start.max
    assert f"{explorer.block_size.max} examples" in explorer.view.value


def test_characters_are_escaped_and_visible(tmp_path):
    from tinygpt import load_corpus

    path = tmp_path / "t.txt"
    path.write_text("<b> &\n" * 30, newline="\n")
    shown = window_explorer(load_corpus(f"file:{path}"), block_size=6).view.value
    assert "&lt;" in shown
    assert "&amp;" in shown
    assert "␣" in shown
    assert "⏎" in shown
    assert "<b>" not in shown


@pytest.fixture
def explorer(small, corpus):
    torch.manual_seed(0)
    model = TinyGPT(small).eval()
    model.tokenizer = corpus.tokenizer
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p), alpha=0.2)
    return attention_explorer(model, "the cat sat")


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
