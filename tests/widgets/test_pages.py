"""Widgets as one HTML file each: what is in it is what the widget says."""

import base64
import gzip
import json
import re

import numpy as np
import pytest
import torch

from tinygpt import widgets
from tinygpt.config import DecodingConfig
from tinygpt.errors import ConfigError
from tinygpt.widgets import pages
from tinygpt.widgets.stages import stages

from .conftest import noise


def data_of(path):
    """What a page holds."""
    packed = re.search(r"id='data'>([^<]+)<", path.read_text(encoding="utf-8"))[1]
    return json.loads(gzip.decompress(base64.b64decode(packed)))


def state(data, number, *places):
    """What a view of a page of states shows at these places of its dials."""
    view = data["views"][number]
    return data["drawn"][view["states"][",".join(map(str, places))]]


@pytest.fixture
def playground(model, short):
    return widgets.sampling_playground(model, "the ")


def test_the_playground_s_page_has_the_logits_after_each_token(playground, tmp_path):
    page = playground.save_page(tmp_path / "new" / "playground.html")
    data = data_of(page)
    logits = np.frombuffer(base64.b64decode(data["logits"]), "<f4").reshape(10, -1)
    assert "".join(data["pieces"][t] for t in data["tokens"]) == next(
        iter(playground.results.values())
    )
    for place in (0, 9):
        tokens = torch.tensor(data["tokens"][: data["first"] + place])[None]
        with torch.inference_mode():
            expected = playground.model(tokens[:, -40:]).logits[0, -1].numpy()
        assert np.array_equal(logits[place], expected)
    assert [slider[0] for slider in data["sliders"]] == [
        *("place", "repetition", "window", "temperature", "top-k", "top-p", "min-p")
    ]


def test_pages_name_no_address(playground, tmp_path):
    text = playground.save_page(tmp_path / "page.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert not re.search(r"https?:|//[a-z]+\.|src=['\"]?(?!data:)", text.split("<script>")[0])
    assert not re.search(r"https?:|import\(|fetch\(", text)


def test_what_is_wrong_is_said_and_nothing_is_written(playground, tmp_path, monkeypatch):
    playground.prompt.value = "é"
    with pytest.raises(ConfigError, match="does not know"):
        playground.save_page(tmp_path / "page.html")
    playground.prompt.value = "the "
    monkeypatch.setattr(pages, "LARGEST", 100)
    with pytest.raises(ConfigError, match="take a shorter text or a smaller model"):
        playground.save_page(tmp_path / "page.html")
    assert not list(tmp_path.iterdir())


def test_the_routing_explorer_s_page_has_each_state(corpus, short, tmp_path):
    model = noise(corpus.tokenizer)
    tables = {step: torch.ones(2, corpus.tokenizer.vocab_size, 4) for step in (0, 5)}
    explorer = widgets.routing_explorer(model, "the cat sat", tables)
    data = data_of(explorer.save_page(tmp_path / "routing.html"))
    assert [dial["label"] for dial in data["dials"]] == ["text", "layer", "drop", "step"]
    assert data["dials"][2]["places"] == ["none", *(f"expert {e}" for e in range(4))]
    for layer, drop in ((0, -1), (1, 2)):
        explorer.layer.value, explorer.drop.value = layer, drop
        explorer.finish()
        assert state(data, 0, 0, layer, drop + 1) == explorer.picture.value
        assert state(data, 1, 0, layer, drop + 1) == explorer.loss.value
        assert state(data, 2, 0, layer) == explorer.figures.value
    explorer.step.value = 0
    assert state(data, 3, 1, 0) == explorer.history.value


def test_the_attention_explorer_s_page_has_each_state(model, short, tmp_path):
    explorer = widgets.attention_explorer(model, "the cat")
    data = data_of(explorer.save_page(tmp_path / "attention.html"))
    assert [len(dial["places"]) for dial in data["dials"]] == [1, 3, 2, 7]
    explorer.head.value, explorer.scores.value, explorer.query.value = 1, True, 4
    explorer.finish()
    assert state(data, 0, 0, 1, 1) == explorer.wall.value
    reading = state(data, 2, 0, 1, 1, 4)
    assert reading.removeprefix("<div class='tg '>").removesuffix("</div>") in explorer.view.value
    assert "<em style='--t:var(--dial-3)'>" in state(data, 1, 0, 1, 1)
    assert "<em style='--t:4'>" in explorer.view.value


def test_the_window_explorer_s_page_has_each_window(corpus, tmp_path):
    explorer = widgets.window_explorer(corpus, start=4, block_size=3)
    data = data_of(explorer.save_page(tmp_path / "windows.html"))
    assert [dial["places"][dial["start"]] for dial in data["dials"]] == ["4", "3"]
    explorer.start.value, explorer.block_size.value = 9, 8
    sizes = data["dials"][1]["places"]
    assert state(data, 0, 5, sizes.index("8")) == explorer.view.value


def test_the_router_lab_s_page_has_its_history(corpus, tmp_path):
    lab = widgets.router_lab(corpus)
    with pytest.raises(ConfigError, match="nothing is trained yet; press Start"):
        lab.save_page(tmp_path / "lab.html")
    lab.advance(10)
    data = data_of(lab.save_page(tmp_path / "lab.html"))
    assert data["dials"][0]["places"] == ["0", "5", "10"]
    shown = state(data, 0, 2).removeprefix("<div class='tg '>").removesuffix("</div>")
    assert lab.picture.value.removeprefix("<div class='tg '>").startswith(shown)
    assert state(data, 0, 0) != state(data, 0, 1)


def distribution(playground, data, place, options):
    """The last stage, in Python."""
    before = torch.tensor(data["tokens"][: data["first"] + place])
    config = DecodingConfig(
        temperature=options["temperature"],
        top_k=options["top-k"],
        top_p=options["top-p"],
        min_p=options["min-p"],
        repetition_penalty=options["repetition"],
        repetition_window=options["window"],
        banned=playground.banned.value,
    )
    logits = playground._read(tuple(before.tolist()))
    return [stage.p for stage in stages(logits, before, config, playground.tokenizer)]
