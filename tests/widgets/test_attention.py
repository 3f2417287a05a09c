"""Every control of the attention explorer is moved, and what is drawn is read."""

import asyncio
import base64
import io
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tinygpt import CharTokenizer, ModelConfig, TinyGPT, generateV2
from tinygpt.errors import ConfigError
from tinygpt.measure import measure_heads, read, without_heads
from tinygpt.widgets import attention as module
from tinygpt.widgets import attention_chart as chart
from tinygpt.widgets import attention_explorer, pictures
from tinygpt.widgets.frame import signed

TEXT = "ann:\nhi, <b> it's\n\nbob:\na hat & a bin\n"


@pytest.fixture(autouse=True)
def short(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "WRITTEN", 20)
    monkeypatch.setattr(pictures, "PICTURES", tmp_path / "pictures")


@pytest.fixture(scope="module")
def model():
    """Three layers of two heads with opinions."""
    torch.manual_seed(0)
    tokenizer = CharTokenizer.from_text(TEXT + "0")
    config = ModelConfig(tokenizer.vocab_size, block_size=48, n_layer=3, n_head=2, n_embd=16)
    model = TinyGPT(config).eval()
    model.tokenizer = tokenizer
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p), alpha=0.2)
        for block in model.blocks:
            block.attn.c_attn.weight.mul_(3)
    return model


@pytest.fixture
def explorer(model):
    return attention_explorer(model, TEXT)


def maps_of(model, text):
    with torch.inference_mode():
        out = model(torch.tensor([model.tokenizer.encode(text)]), return_attention=True)
    return torch.cat(out.attentions).numpy(), torch.cat(out.attention_scores).numpy()


def rows(page: str) -> list[list[str]]:
    """The folded table: place, token, how far back, value."""
    body = page[page.index("<details>") : page.index("</details>")]
    return [
        re.findall(r"<td.*?>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", body)[1:]
    ]


def values(page: str) -> dict[int, float]:
    return {int(row[0]): float(row[3].replace("−", "-")) for row in rows(page)}


def images(page: str) -> list[np.ndarray]:
    found = re.findall(r"data:image/png;base64,([^)]*)\)", page)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) for data in found]


# --- what is drawn is what the model did ---------------------------------------------------------


@pytest.mark.parametrize("scores", [False, True])
def test_each_layer_head_and_place_shows_the_models_numbers(explorer, model, scores):
    maps = maps_of(model, TEXT)[scores]
    explorer.scores.value = scores
    for layer, head, place in ((0, 0, 0), (2, 1, 20), (1, 0, len(TEXT) - 1), (1, -1, 9)):
        explorer.layer.value, explorer.head.value, explorer.query.value = layer, head, place
        row = (maps[layer].mean(0) if head < 0 else maps[layer, head])[place, : place + 1]
        found = values(explorer.view.value)
        assert [found[i] for i in range(place + 1)] == pytest.approx(row.tolist(), abs=6e-4)
        assert list(found.values()) == sorted(found.values(), reverse=True)
        name = f"Layer {layer}, " + ("mean of heads" if head < 0 else f"head {head}")
        assert f"<h3>{name}: rows read columns</h3>" in explorer.view.value
    assert not explorer.message.value


def test_the_map_and_the_thumbnails_are_the_weights_in_one_scale(explorer, model):
    weights, _ = maps_of(model, TEXT)
    explorer.layer.value, explorer.head.value = 2, 1
    scale = chart.Scale(0, 1, root=True)
    (large,) = images(explorer.view.value)
    assert np.array_equal(
        large[..., :3], scale.colours(weights[2, 1])[..., :3] * (large[..., 3:] > 0)
    )
    assert np.array_equal(large[..., 3] > 0, np.tri(len(TEXT), dtype=bool))  # the rest is hatched
    thumbnails = images(explorer.wall.value)
    assert len(thumbnails) == 6
    for image, expected in zip(thumbnails, weights.reshape(6, len(TEXT), -1), strict=True):
        seen = image[..., 3] > 0
        assert np.array_equal(image[seen], scale.colours(expected)[seen])


def test_the_maps_are_there_to_compute_with(explorer, model):
    explorer.text.value, explorer.scores.value = "hi, hat", True
    assert torch.equal(explorer.maps, torch.tensor(maps_of(model, "hi, hat")[0]))


def test_scores_have_the_same_colours_in_all_maps(explorer, model):
    explorer.scores.value = True
    _, scores = maps_of(model, TEXT)
    finite = scores[np.isfinite(scores)]
    scale = chart.Scale(finite.min(), finite.max())
    for image, expected in zip(
        images(explorer.wall.value), scores.reshape(6, len(TEXT), -1), strict=True
    ):
        seen = image[..., 3] > 0
        assert np.array_equal(image[seen], scale.colours(expected)[seen])
    assert f">{finite.max():.1f}<" in explorer.view.value


def test_the_text_is_there_in_tiles_with_their_titles(explorer, model):
    explorer.query.value = 12
    page = explorer.view.value[explorer.view.value.index("<div class='read") :]
    page = page[: page.index("</div>")]
    tiles = re.findall(r"<b class='(\w*)'.*?title='(.*?)'>(.*?)</b>", page)
    marks = {" ": "␣", "\n": "⏎", "<": "&lt;", ">": "&gt;", "&": "&amp;", "'": "&#x27;"}
    assert [tile[2] for tile in tiles] == [marks.get(c, c) for c in TEXT]
    assert [tile[0] for tile in tiles] == [""] * 12 + ["here"] + ["later"] * (len(TEXT) - 13)
    w = maps_of(model, TEXT)[0][0, 0, 12]
    assert tiles[3][1] == f"3 :: {w[3]:.3f}"
    assert tiles[13][1].endswith("not seen: it comes later")
    assert page.count("<br>") == 4  # two line ends in a row take one


def test_axes_have_letters_and_places_titles(explorer, model):
    page = explorer.view.value
    axes = re.findall(r"<div class='axis.*?>(.*?)</div>", page)
    for axis in axes:
        letters = re.findall(r"<b class='(?:here)?'>(.*?)</b>", axis)
        assert letters[:6] == ["a", "n", "n", ":", "⏎", "h"]
        assert len(letters) == len(TEXT)
    assert len(axes) == 2
    w = maps_of(model, TEXT)[0][0, 0]
    assert f"<i style='--t:5;--s:3' title='h reads :: {w[5, 3]:.2f}'></i>" in page
    assert page.count("<i style=") == len(TEXT) * (len(TEXT) + 1) / 2


def test_the_figures_of_the_head_are_those_that_are_measured(explorer, model):
    tokens = torch.tensor(model.tokenizer.encode(TEXT + "0"))  # the last one is only predicted
    table = measure_heads(model, tokens, model.tokenizer)
    for layer, head in ((0, 1), (2, 0)):
        explorer.layer.value, explorer.head.value = layer, head
        explorer.scores.value = head == 0  # those of the weights, all the same
        row = table[(table.layer == layer) & (table["head"] == head)].iloc[0]
        cells = re.findall(r"scope='row'>(.*?)</th><td>(.*?)</td>", explorer.view.value)
        assert dict(cells) == {
            "entropy": f"{row.entropy:.2f} nats",
            "looks back": f"{row.distance:.1f}",
            "on the one before": f"{100 * row.previous_token:.0f} %",
            "on its like before": f"{100 * row.same_token:.0f} %",
            "on the speaker": f"{100 * row.speaker_line:.0f} %",
        }
    explorer.text.value = "hi"
    assert ("on the speaker", "–") in re.findall(
        r"scope='row'>(.*?)</th><td>(.*?)</td>", explorer.view.value
    )


def test_every_control_changes_what_it_should_and_back_again(explorer):
    views = [explorer.wall, explorer.view, explorer.loss]
    for control, value, changes in (
        (explorer.layer, 1, (True, True, False)),
        (explorer.head, 1, (True, True, False)),
        (explorer.head, -1, (True, True, False)),
        (explorer.scores, True, (True, True, False)),
        (explorer.query, 3, (False, True, False)),
        (explorer.off, True, (True, False, True)),
        (explorer.seed, 2, (False, False, True)),
        (explorer.text, "bob", (True, True, True)),
    ):
        before, old = [view.value for view in views], control.value
        control.value = value
        assert tuple(v.value != b for v, b in zip(views, before, strict=True)) == changes, control
        control.value = old
        assert [view.value for view in views] == before


def test_the_row_slider_follows_the_text(explorer):
    explorer.text.value = "hat"
    assert (explorer.query.max, explorer.query.value) == (2, 2)
    explorer.text.value = "t"
    assert explorer.query.disabled
    assert math.isnan(explorer.results["loss"])
    assert "Of one character alone there is no loss." in explorer.loss.value
    assert "nan" not in explorer.loss.value + explorer.wall.value + explorer.view.value
    explorer.text.value = "a hat"
    assert (explorer.query.max, explorer.query.disabled) == (4, False)
    assert explorer.query.value == 4  # it was at the end
    explorer.query.value = 2
    explorer.text.value = "a hat in a bin"
    assert (explorer.query.max, explorer.query.value) == (13, 2)
    explorer.text.value = "a hat?"
    assert "the model does not know &#x27;?&#x27;" in explorer.message.value
    assert "old" in explorer.view.value
    explorer.text.value = ""
    assert "the text is empty" in explorer.message.value
    explorer.text.value = "a hat"
    assert (explorer.message.value, "class='tg '" in explorer.view.value) == ("", True)


# --- without a head ------------------------------------------------------------------------------


@pytest.mark.parametrize("off", [((1, 0),), ((2, 0), (2, 1))])
def test_loss_and_text_without_heads(explorer, model, off):
    explorer.layer.value, explorer.head.value = off[0][0], -1 if len(off) > 1 else off[0][1]
    explorer.off.value, explorer.seed.value = True, 5
    other, tokens = without_heads(model, off), torch.tensor(model.tokenizer.encode(TEXT))
    options = {"max_new_tokens": 20, "seed": 5, "temperature": 0.8}
    found = explorer.results
    assert found == {
        "loss": read(model, tokens).loss,
        "loss without": read(other, tokens).loss,
        "text": generateV2(model, TEXT, **options),
        "text without": generateV2(other, TEXT, **options),
    }
    difference = signed(found["loss without"] - found["loss"])
    name = "layer 1, head 0" if len(off) == 1 else "layer 2, all heads"
    assert f"without {name}: <b>{difference}</b>" in explorer.loss.value
    kinds = re.findall(r"<div class='([\w ]*)' title='layer (\d), head (\d)", explorer.wall.value)
    assert {(int(n), int(h)) for kind, n, h in kinds if "off" in kind} == set(off)


def test_the_words_name_no_head_that_is_not_chosen_any_more(explorer):
    explorer.finish()
    explorer.head.value, explorer.layer.value = 1, 1
    explorer.finish()
    assert "head 0" not in explorer.loss.value
    assert "Switch a head off" in explorer.loss.value
    explorer.off.value = True
    explorer.finish()
    assert "without layer 1, head 1" in explorer.loss.value


def test_each_thumbnail_says_what_is_lost_without_its_head(explorer, model, monkeypatch):
    tokens = torch.tensor(model.tokenizer.encode(TEXT))
    whole = read(model, tokens).loss
    for layer, head in ((0, 0), (2, 1)):
        lost = signed(read(without_heads(model, [(layer, head)]), tokens).loss - whole)
        assert f"title='layer {layer}, head {head}: {lost} nats without it'" in explorer.wall.value
        assert f">{lost}</div>" in explorer.wall.value
    monkeypatch.setattr(module, "TRIED", 5)
    many = attention_explorer(model, TEXT)
    assert "lost" not in many.wall.value
    assert "without it" not in many.wall.value


def test_nothing_is_left_on_the_model(explorer, model):
    before = {name: p.clone() for name, p in model.state_dict().items()}
    explorer.off.value, explorer.head.value = True, -1
    assert "loss without" in explorer.results
    assert all(torch.equal(p, before[name]) for name, p in model.state_dict().items())
    explorer.off.value = False
    assert sorted(explorer.results) == ["loss", "text"]


def test_what_is_counted_is_not_counted_again(explorer, monkeypatch):
    sent = []
    for view in (explorer.wall, explorer.loss):
        view.observe(lambda change: sent.append(change["owner"]), names="value")
    explorer.query.value = 3
    assert sent == []
    explorer.head.value = 1
    assert sent == [explorer.wall]
    explorer.text.value = "Q"  # not in the alphabet
    explorer.text.value = TEXT
    assert "'tg '" in explorer.loss.value


def test_losses_come_after_the_picture_in_a_notebook(model):
    async def cell():
        explorer = attention_explorer(model, TEXT)
        explorer.text.value = "a hat in a bin"
        explorer.off.value, explorer.head.value = True, 1
        first = explorer.wall.value, explorer.loss.value
        for _ in range(500):
            await asyncio.sleep(0.001)
            if "pending" not in explorer.loss.value:
                break
        return first, explorer

    (wall, loss), explorer = asyncio.run(cell())
    assert "&nbsp;</div>" in wall
    assert "pending" in loss
    assert "&nbsp;" not in explorer.wall.value
    assert "without layer 0, head 1" in explorer.loss.value


# --- texts and models of all sizes ---------------------------------------------------------------


def test_without_a_text_there_is_one_that_the_model_can_write(model):
    assert attention_explorer(model).text.value
    tokenizer = CharTokenizer("xyz")
    other = TinyGPT(ModelConfig(3, 8, 1, 1, 4))
    other.tokenizer = tokenizer
    assert attention_explorer(other).text.value == "xyzxyz"


def test_a_long_text_is_read_from_its_beginning(model):
    explorer = attention_explorer(model, TEXT * 3)
    assert f"The first 48 of {3 * len(TEXT)} characters are read." in explorer.view.value
    assert explorer.query.max == 47
    large = attention_explorer(wide_model(1, 1, 400), "ab" * 300)
    assert "The first 256 of 600 characters" in large.view.value
    assert "letters up to 64" in large.view.value
    assert len(large.view.value) < 450_000
    assert "<b class=''>a</b>" not in large.view.value


def wide_model(n_layer, n_head, block_size=16):
    torch.manual_seed(0)
    model = TinyGPT(ModelConfig(2, block_size, n_layer, n_head, n_embd=n_head * 2))
    model.tokenizer = CharTokenizer("ab")
    return model


def test_all_heads_of_a_large_model_are_there_with_their_names():
    explorer = attention_explorer(wide_model(12, 12), "abbab")
    assert len(images(explorer.wall.value)) == 144
    for n, h in ((0, 0), (11, 11)):
        assert f"title='layer {n}, head {h}'" in explorer.wall.value
    explorer.layer.value, explorer.head.value = 11, -1
    assert explorer.wall.value.count("class='here '") == 12


def test_tokens_of_several_characters_and_parts_of_one(byte_model):
    tokenizer, text = byte_model.tokenizer, "the cat sat é\n\n" * 9
    explorer = attention_explorer(byte_model, text)
    tokens = tokenizer.encode(text)[: byte_model.config.block_size]
    assert len(tokens) == 24
    assert explorer.query.description == "token"
    explorer.query.value, explorer.head.value, explorer.layer.value = 3, 1, 1
    with torch.inference_mode():
        maps = byte_model(torch.tensor([tokens]), return_attention=True).attentions
    expected = maps[1][0, 1, 3, :4].tolist()
    assert [values(explorer.view.value)[i] for i in range(4)] == pytest.approx(expected, abs=6e-4)
    tiles = re.findall(r"title='\d+ .*?'>([^<>]+)</b>", explorer.view.value)
    x = ["the", "␣cat", "␣sat", "&lt;20&gt;&lt;C3&gt;", "&lt;A9&gt;", "⏎⏎"]
    assert tiles == 4 * x
    assert "Token 3, “" in explorer.view.value
    assert "character" not in explorer.view.value


# --- files ---------------------------------------------------------------------------------------


def saved(explorer) -> Path:
    name = re.search(r"<b>(.*?)</b>", explorer.saved.value)[1]
    return Path(name)


def test_pictures_are_saved_one_beside_the_other(explorer):
    assert explorer.saved.value == ""
    explorer.png.click()
    first = saved(explorer)
    assert first == pictures.PICTURES / "attention-weights-layer-0-head-0.png"
    content = first.read_bytes()
    assert Image.open(first).size > (500, 500)
    explorer.png.click()
    assert saved(explorer).name == "attention-weights-layer-0-head-0-2.png"
    assert first.read_bytes() == content
    explorer.scores.value, explorer.head.value, explorer.layer.value = True, -1, 1
    explorer.svg.click()
    path = saved(explorer)
    assert path.name == "attention-scores-layer-1-mean-of-heads.svg"
    svg = path.read_text(encoding="utf-8")
    assert "<svg" in svg
    assert "http" not in re.sub(
        r'xmlns(:\w+)?="[^"]*"|<!DOCTYPE[^>]*>|<rdf:.*?</rdf:RDF>', "", svg, flags=re.S
    )
    assert sorted(p.name for p in pictures.PICTURES.iterdir()) == [
        "attention-scores-layer-1-mean-of-heads.svg",
        "attention-weights-layer-0-head-0-2.png",
        "attention-weights-layer-0-head-0.png",
    ]


def test_a_picture_that_cannot_be_saved_is_an_error_line(explorer, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(pictures, "PICTURES", tmp_path / "file")
    explorer.png.click()
    assert "NotADirectoryError" in explorer.message.value or "Exists" in explorer.message.value
    explorer.layer.value = 1
    assert explorer.message.value == ""


def test_no_pyplot_figure_is_left(explorer):
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    for place in range(10):
        explorer.query.value = place
    explorer.png.click()
    assert plt.get_fignums() == before


def test_a_model_whose_scores_overflow_is_refused(model):
    broken = wide_model(1, 1)
    with torch.no_grad():
        broken.blocks[0].attn.c_attn.weight.mul_(1e30)
    with pytest.raises(ConfigError, match="gives NaN or infinity as"):
        attention_explorer(broken, "ab")
