"""Saved pages in Chromium with the network off: they move, and compute what Python does."""

import random

import numpy as np
import pytest
import torch

from tinygpt import ModelConfig, TinyGPT, widgets

from .test_browser import browser  # noqa: F401
from .widgets.conftest import noise
from .widgets.test_pages import data_of, distribution

pytestmark = pytest.mark.full


@pytest.fixture
def opened(browser, tmp_path):  # noqa: F811
    """Opens a saved page without a network; afterwards nothing else may have been asked for."""
    context = browser.new_context(offline=True, viewport={"width": 1366, "height": 768})
    page, asked, errors = context.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text))

    def open_it(widget):
        path = widget.save_page(tmp_path / "page.html")
        page.goto(path.as_uri())
        page.wait_for_selector(".views .tg, .views .tg-plain")
        return page, data_of(path)

    yield open_it
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert errors == []
    context.close()


def move(page, label, key="ArrowRight", times=1):
    """Move a dial by keyboard; its view follows at once."""
    dial = page.locator(".dials").get_by_label(label)
    dial.focus()
    for _ in range(times):
        page.keyboard.press(key)


def fits(page):
    """Nothing is wider than the window, on a laptop and on a telephone."""
    for width, height in ((1366, 768), (390, 844)):
        page.set_viewport_size({"width": width, "height": height})
        assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")


@pytest.fixture
def model(corpus):
    torch.manual_seed(0)
    V = corpus.tokenizer.vocab_size
    model = TinyGPT(ModelConfig(vocab_size=V, block_size=40, n_layer=1, n_head=2, n_embd=16))
    model.tokenizer = corpus.tokenizer
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p), alpha=0.5)
    return model


def test_the_playground_s_filters_give_python_s_distribution(opened, model):
    playground = widgets.sampling_playground(model, "the cat ")
    playground.banned.value = "m"
    page, data = opened(playground)
    rng = random.Random(0)
    for _ in range(200):
        options = {
            "repetition": rng.choice([1, 1.3, 2]),
            "window": rng.choice([1, 16, 128]),
            "temperature": rng.choice([0, 0.05, 0.8, 1, 2]),
            "top-k": rng.choice([0, 1, 5, 40]),
            "top-p": rng.choice([0.05, 0.5, 0.9, 1]),
            "min-p": rng.choice([0, 0.02, 0.5]),
        }
        place = rng.randrange(120)
        found = page.evaluate(
            "([place, options]) => distributions(data, place, options).map(stage => stage.p)",
            [place, options],
        )
        expected = distribution(playground, data, place, options)
        assert len(found) == len(expected)
        for mine, python in zip(found, expected, strict=True):
            assert np.abs(np.array(mine) - python).max() < 1e-6, options
    fits(page)


def test_the_playground_s_page_follows_its_sliders(opened, model):
    page, _ = opened(widgets.sampling_playground(model, "the cat "))
    assert page.locator(".head b").all_inner_texts()[2:4] == ["temperature", "0.8"]
    move(page, "temperature")
    assert page.locator(".head b").all_inner_texts()[3] == "0.85"
    before = page.locator(".tg").first.inner_text()
    move(page, "character", times=3)
    assert "at place 4" in page.locator(".tg").first.inner_text()
    assert page.locator(".tg").first.inner_text() != before
    move(page, "top-k", "Home")
    assert "top-k" not in page.locator(".head b").all_inner_texts()
    assert page.evaluate(
        "() => document.querySelector('.chart').getBoundingClientRect().bottom <= innerHeight"
    )


def test_the_routing_explorer_s_page_follows_its_menus(opened, corpus):
    page, _ = opened(widgets.routing_explorer(noise(corpus.tokenizer), "the cat sat on the mat"))
    tiles = page.locator(".tiles").inner_html()
    page.get_by_label("layer").select_option("1")
    assert page.locator(".tiles").inner_html() != tiles
    expert = page.locator(".tiles b i").first.inner_text()
    page.get_by_label("drop").select_option(f"expert {expert}")
    assert page.locator(".tiles .off").count() > 0
    assert f"without expert {expert}" in page.locator(".views").inner_text()
    fits(page)


def test_the_attention_explorer_s_page_follows_its_dials(opened, model):
    page, _ = opened(widgets.attention_explorer(model, "the cat sat on the mat"))
    frame = page.locator(".map em")
    top = frame.bounding_box()["y"]
    move(page, "character", "Home")
    assert frame.bounding_box()["y"] < top
    assert page.locator(".read .later").count() == 21
    page.locator("label", has_text="head").locator("select").select_option("mean")
    assert "mean of heads" in page.locator(".views").inner_text()
    fits(page)


def test_the_window_explorer_s_page_follows_its_dials(opened, corpus):
    page, _ = opened(widgets.window_explorer(corpus))
    before = page.locator(".views").inner_text()
    move(page, "start")
    assert page.locator(".views").inner_text() != before
    page.get_by_label("block size").select_option("4")
    assert "4 examples in one window" in page.locator(".views").inner_text()
    fits(page)


def test_the_router_lab_s_page_has_a_slider_of_time(opened, corpus):
    lab = widgets.router_lab(corpus)
    lab.advance(20)
    page, _ = opened(lab)
    assert page.locator(".facts b").first.inner_text() == "20"
    move(page, "updates", "Home")
    assert page.locator(".facts b").first.inner_text() == "0"
    fits(page)
