"""Every control of the routing explorer is moved, and what is drawn is read."""

import asyncio
import html
import math
import re
from dataclasses import replace

import pytest
import torch

from tinygpt import CharTokenizer, ModelConfig, MoEConfig, TinyGPT, generateV2, plots
from tinygpt.corpora import STYLES, write_plays
from tinygpt.errors import ConfigError
from tinygpt.measure import (
    classes,
    measure_routing,
    mutual_information,
    read,
    variation,
    without_expert,
)
from tinygpt.widgets import frame, routing_chart, routing_explorer, routing_figures, routing_history
from tinygpt.widgets import routing as module
from tinygpt.widgets.passages import LONGEST, passages

ALPHABET = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ !,.:;?<&'-\n"


def both(explorer):
    """The tiles, and the figures below them."""
    return explorer.picture.value + explorer.figures.value


TEXT = "The cat, <b>& the Dog:\n\nit's raining on and on; who cares?\n".replace(">", "")


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(module, "WRITTEN", 40)


def build(**moe):
    """Three layers of noise, the middle one dense."""
    torch.manual_seed(0)
    options = {"n_experts": 4, "every": 2, "first_dense": 0} | moe
    config = ModelConfig(
        len(ALPHABET), block_size=24, n_layer=4, n_head=2, n_embd=16, moe=MoEConfig(**options)
    )
    model = TinyGPT(config).eval()
    model.tokenizer = CharTokenizer(ALPHABET)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p), alpha=0.2)
    return model


@pytest.fixture(scope="module")
def model():
    return build()


@pytest.fixture(scope="module")
def tables(model):
    """What a training would have recorded: the same model, more and more of another one."""
    other, found = build(), {}
    for step in (0, 10, 20):
        tokens = torch.tensor(model.tokenizer.encode(write_plays(2000, seed=step).text))
        found[step] = measure_routing(other, tokens).tables
        with torch.no_grad():
            other.blocks[1].ffn.router.proj.weight.mul_(2)
    return found


@pytest.fixture
def explorer(model, tables):
    return routing_explorer(model, TEXT, tables)


def numbers(page: str) -> list[str]:
    """The experts that the tiles of the text show."""
    shown = page[page.index("<div class='tiles' ") :]
    return re.findall(r"<i>(.*?)</i></b>", shown[: shown.index("</div>")])


def kinds(page: str) -> list[str]:
    shown = page[page.index("<div class='tiles' ") :]
    return re.findall(r"<b class='(.*?)'", shown[: shown.index("</div>")])


def routing(model, text, place):
    return read(model, torch.tensor(model.tokenizer.encode(text))).routings[place]


def test_each_tile_shows_its_expert_and_weight(explorer, model):
    chosen = routing(model, TEXT, 0)
    experts, weights = chosen.experts[0, :, 0].tolist(), chosen.weights[0, :, 0].tolist()
    assert len(set(experts)) > 1
    assert numbers(explorer.picture.value) == [str(e) for e in experts]
    assert kinds(explorer.picture.value) == [f"e{e}" for e in experts]
    shades = re.findall(r"<b class='e\d' style='--a:(.*?)'", explorer.picture.value)[: len(TEXT)]
    assert shades == [f"{plots.tint(w):.2f}" for w in weights]
    rows = re.findall(r"<tr><td>(\d+)</td>(.*?)</tr>", explorer.picture.value)
    assert [int(i) for i, _ in rows] == list(range(1, len(TEXT) + 1))
    for (_, cells), e, w in zip(rows, experts, weights, strict=True):
        assert f"<td>{e} ({w:.2f})</td>" in cells


def test_what_is_shown_is_what_the_model_does(explorer, model):
    explorer.text.value = TEXT[:20]  # within the block
    tokens = torch.tensor([model.tokenizer.encode(TEXT[:20])])
    with torch.inference_mode():
        out = model(tokens[:, :-1], tokens[:, 1:], return_routing=True)
    chosen = out.routing[0].experts[0, :, 0].tolist()
    assert [int(e) for e in numbers(explorer.picture.value)[:-1]] == chosen
    assert explorer.results["loss"] == pytest.approx(out.lm_loss.item(), abs=1e-5)


def test_another_layer_changes_picture_loss_and_history(explorer, model):
    views = explorer.picture, explorer.loss, explorer.history
    before = [view.value for view in views]
    explorer.layer.value = 1
    assert [int(e) for e in numbers(explorer.picture.value)] == (
        routing(model, TEXT, 1).experts[0, :, 0].tolist()
    )
    assert all(view.value != old for view, old in zip(views, before, strict=True))
    assert "<b>Layer 3</b>" in explorer.picture.value  # the second one with experts
    assert "<tr class='here'><th scope='row'>layer 3</th>" in both(explorer)
    explorer.layer.value = 0
    assert [view.value for view in views] == before


def test_typing_changes_the_picture_and_the_menu_follows(explorer, model):
    before = explorer.picture.value, explorer.history.value
    explorer.text.value = "Sun & rain"
    assert numbers(explorer.picture.value) == [
        str(e) for e in routing(model, "Sun & rain", 0).experts[0, :, 0].tolist()
    ]
    assert explorer.source.value == "what is typed"
    assert explorer.history.value == before[1]
    explorer.source.value = "the given text"
    assert (explorer.picture.value, explorer.history.value) == before
    explorer.source.value = "what is typed"  # says nothing new
    assert explorer.text.value == TEXT


def test_the_menu_offers_texts_that_the_model_can_read(explorer):
    for name in explorer.passages:
        explorer.source.value = name
        assert explorer.message.value == ""
        assert explorer.text.value == explorer.passages[name].text
        assert 100 < len(explorer.text.value) <= LONGEST or name == "the given text"
    assert len(explorer.passages) == 3
    assert list(passages(CharTokenizer("xyz"))) == ["a short passage"]
    assert passages(CharTokenizer("xyz"))["a short passage"].text == "xyzxyz"


def test_html_is_escaped_and_line_ends_are_shown(explorer):
    picture = both(explorer)
    for escaped in ("&lt;", "&amp;", "&#x27;"):
        assert f">{escaped}<i>" in picture  # a tile
        assert f"<td>{escaped}</td>" in picture  # its row in the table
        assert re.search(rf"title='\d+ {escaped} expert", picture)
    shown = re.findall(r"'>([^<]*)<i>", picture[: picture.index("<div class='side'")])
    assert html.unescape("".join(shown)) == "".join(map(plots.visible, TEXT))
    assert not re.search(r"&(?!(lt|amp|#x27);)", picture)
    assert picture.count("⏎<i>") == TEXT.count("\n") == 3
    shown = picture[picture.index("<div class='tiles'") : picture.index("<div class='side'")]
    assert shown.count("<br>") == 2  # two line ends in a row take one line
    explorer.drop.value = 1
    assert not re.search(r"&(?!(lt|amp|#x27);)", explorer.loss.value)
    assert html.escape(TEXT, quote=True) in explorer.loss.value.replace("…", "")


def cells(page, title):
    """The numbers of a titled table, a list per expert."""
    part = page[page.index(f"<h3>{title}</h3>") :]
    part = part[: part.index("</table>")]
    rows = re.findall(r"<tr class='e.*?</tr>", part)
    return [[int(n) for n in re.findall(r"<td.*?>(\d+)</td>", row)] for row in rows]


def test_each_class_goes_somewhere(explorer, model):
    table = torch.tensor(cells(both(explorer), "Character classes"))
    assert table.shape == (4, 6)  # no digits in the text
    assert ((table.sum(0) - 100).abs() <= 2).all()  # rounded
    counts = re.findall(r"<small>(\d+)</small>", both(explorer))
    assert sum(map(int, counts)) == len(TEXT)
    expected = routing(model, TEXT, 0).table(classes(TEXT)[None], 7)
    spaces = expected[3] / expected[3].sum()
    assert table[:, 3].tolist() == [round(100 * s) for s in spaces.tolist()]
    told = f"<b>{mutual_information(expected):.2f} nats</b> about the character class"
    assert told in both(explorer)


def test_information_of_known_tables():
    even, sure = torch.full((2, 2), 25), torch.tensor([[50, 0], [0, 50], [0, 0]])
    assert "<b>0.00 nats</b>" in routing_figures.information(even, "class")
    shown = routing_figures.information(sure, "class")
    assert f"<b>{math.log(2):.2f} nats</b> about the class of the 0.69 there are (100 %)" in shown
    assert "about 0.01 with" in shown  # 1 / 200
    one = routing_figures.information(torch.tensor([[5, 5]]), "class")
    assert "<b>0.00 nats</b> about the class:" in one  # nothing there to tell


def test_loads_and_layers(explorer, model):
    load = routing(model, TEXT, 0).load()
    for share in load.tolist():
        assert f"<span>{100 * share:.1f} %</span>" in both(explorer)
    scale = max(1.08 * float(load.max()), 1.3 / 4)
    assert both(explorer).count(f"<em style='--x:{0.25 / scale:.4f}'>") == 4
    assert f"<td>{variation(load):.2f}</td>" in both(explorer)
    entropy = routing(model, TEXT, 0).entropy().item()
    assert f"<td>{entropy:.2f} nats</td>" in both(explorer)
    assert f"<td>{100 * entropy / math.log(4):.0f} %</td>" in both(explorer)
    chosen = routing(model, TEXT, 0)
    collapsed = replace(chosen, experts=torch.zeros_like(chosen.experts))
    shown = routing_figures.layers([collapsed], [0], classes(TEXT), 0)
    assert "<td>3.00</td>" in shown  # max violation E - 1
    assert "<td>1, 2, 3</td>" in shown


def test_a_second_expert_is_a_line_and_its_row_says_so():
    model = build(top_k=2, norm_topk_prob=True)
    explorer = routing_explorer(model, TEXT)
    chosen = routing(model, TEXT, 0)
    lines = re.findall(r"border-bottom-color:(#\w+)", explorer.picture.value)
    colours = [plots.EXPERT_COLOURS[e] for e in chosen.experts[0, :, 1].tolist()]
    assert lines == colours
    assert (chosen.weights[0, :, 0] >= chosen.weights[0, :, 1]).all()
    second = f"{int(chosen.experts[0, 0, 1])} ({float(chosen.weights[0, 0, 1]):.2f})"
    assert f"<td>{second}</td>" in explorer.picture.value
    assert "the line below: its second expert" in explorer.picture.value
    assert sum(map(int, re.findall(r"<small>(\d+)</small>", both(explorer)))) == 2 * len(TEXT)


def test_a_place_that_is_not_used_is_marked():
    experts, weights = torch.tensor([[1, 4], [4, 4]]), torch.tensor([[0.9, 0.0], [0.0, 0.0]])
    shown = routing_chart.tiles("ab", experts, weights, 4)
    assert "<b class='e1' style='--a:0.66' title='1 a expert 1: 0.90'>a<i>1</i></b>" in shown
    assert "<b class='none' title='2 b no expert'>b<i>–</i></b>" in shown
    assert "<td>none</td>" in routing_chart.facts("ab", experts, weights, 4)
    model = build(n_experts=4, top_k=3, top_p=0.6)
    assert "border-bottom-color" in routing_explorer(model, TEXT).picture.value


def test_many_experts_are_told_apart_by_stripes_and_numbers():
    explorer = routing_explorer(build(n_experts=20), TEXT)
    assert {kind for kind in kinds(explorer.picture.value) if "again" in kind} == {
        f"e{int(n) % 8} again" for n in numbers(explorer.picture.value) if int(n) >= 8
    }
    assert "<i class='e1 again'" in both(explorer)
    assert "</span>expert 19" in both(explorer)
    assert "loads many" in both(explorer)
    explorer.drop.value = used(explorer)[0]
    assert explorer.results["loss without"] != explorer.results["loss"]
    assert "lost without it" not in explorer.loss.value  # not each of so many
    assert len(set(plots.EXPERT_COLOURS)) == 8


def used(explorer):
    return [int(e) for e in numbers(explorer.picture.value)]


def test_dropping_an_expert_changes_loss_text_and_tiles(explorer, model):
    before, picture = explorer.results, both(explorer)
    assert set(before) == {"loss", "text"}
    mine = used(explorer)[0]
    explorer.drop.value = mine
    after = explorer.results
    assert after["loss"] == before["loss"]
    assert after["text"] == before["text"]
    assert after["loss without"] != pytest.approx(before["loss"], abs=1e-4)
    assert after["text without"] != before["text"]
    assert after["text without"].startswith(TEXT)
    cut = without_expert(model, 0, mine)
    assert after["loss without"] == read(cut, torch.tensor(model.tokenizer.encode(TEXT))).loss
    assert after["text without"] == generateV2(cut, TEXT, 40, seed=1, temperature=0.8)
    assert after["text"] == generateV2(model, TEXT, 40, seed=1, temperature=0.8)
    off = [kind.endswith(" off") for kind in kinds(explorer.picture.value)]
    assert off == [e == mine for e in used(explorer)]
    assert f"white, its number struck out: expert {mine}, dropped" in explorer.picture.value
    assert f"<b>Layer 1 without expert {mine}</b>" in explorer.loss.value
    assert f"{after['loss']:.3f} nats per character with all experts" in explorer.loss.value
    assert f"{after['loss without']:.3f} without" in explorer.loss.value
    difference = routing_figures.signed(after["loss without"] - after["loss"])
    assert f"<b>{difference}</b>" in explorer.loss.value
    assert f"<span>{difference}</span>" in explorer.loss.value  # among the bars
    assert "<mark class='parts'>" in explorer.loss.value
    explorer.drop.value = -1
    assert explorer.results == before
    assert both(explorer) == picture
    assert "<mark" not in explorer.loss.value


def test_stripes_only_mean_that_the_colours_begin_again():
    assert re.search(r"b\.off \{ background:#fff !important \}", routing_chart.STYLE)
    assert routing_chart.STYLE.count(routing_chart._STRIPES) == 1  # and not for dropped ones


def test_dropping_an_unused_expert_changes_nothing(model):
    explorer = routing_explorer(model, TEXT)
    letters = "".join(
        c for c, e in zip(TEXT, used(explorer), strict=True) if e == used(explorer)[0]
    )
    explorer.text.value = letters[:2]
    idle = next(e for e in range(4) if e not in used(explorer))
    explorer.drop.value = idle
    assert explorer.results["loss without"] == explorer.results["loss"]
    assert "<b>0.000</b>" in explorer.loss.value
    assert " off'" not in explorer.picture.value


def test_where_an_expert_is_missed_is_said():
    before, after = torch.tensor([1.0, 1.0, 1.0]), torch.tensor([3.0, 1.0, 0.5])
    shown = routing_figures.damage(before, after, torch.tensor([True, False, False]))
    assert "3 predictions: 1.000 nats" in shown
    assert "+2.000 at its own characters (1)" in shown
    assert "−0.250 at the others (2)" in shown
    never = routing_figures.damage(before, before, torch.tensor([False] * 3))
    assert "its own" not in never


def test_the_seed_changes_the_texts_alone(explorer):
    explorer.drop.value = 0
    picture, before = both(explorer), explorer.results
    explorer.seed.value = 5
    assert both(explorer) == picture
    after = explorer.results
    assert after["text"] != before["text"]
    assert after["loss without"] == before["loss without"]
    assert "seed 5" in explorer.loss.value


def test_the_same_text_has_no_mark():
    tokenizer, names = CharTokenizer("enos <\n"), ["all", "without"]

    def compare(prompt, *texts):
        whole, without = map(tokenizer.encode, texts)
        return frame.comparison(tokenizer, prompt, whole, without, names)

    shown = compare("p" * 70, "one <\n", "one <\n")
    assert "the same text" in shown
    assert "<mark" not in shown
    assert "one &lt;\n" in shown
    assert f"<span>…{'p' * 60}</span>" in shown
    shown = compare("p", "one\n", "ones")
    assert "one<mark class='parts'>s</mark>" in shown


def test_in_a_notebook_the_picture_comes_first_and_the_texts_follow(model, tables):
    async def cell():
        explorer = routing_explorer(model, TEXT, tables)
        loss = explorer.loss.value
        explorer.drop.value = 2
        explorer.drop.value = used(explorer)[0]
        assert explorer.loss.value == loss.replace("class='tg '", "class='tg pending'")
        assert " off'" in explorer.picture.value
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) <= 2
        while "pending" in explorer.loss.value:
            await asyncio.sleep(0.01)
        return explorer

    explorer = asyncio.run(cell())
    assert f"without expert {explorer.drop.value}" in explorer.loss.value


def test_in_a_notebook_results_wait(model):
    async def cell():
        explorer = routing_explorer(model, TEXT)
        explorer.drop.value = used(explorer)[0]
        return explorer.results, explorer.loss.value

    results, shown = asyncio.run(cell())
    assert results["loss without"] != results["loss"]
    assert "class='tg '" in shown


def test_the_step_shows_what_was_recorded(explorer, tables, model):
    assert explorer.step.value == 20
    picture, seen = explorer.picture.value, set()
    for step, table in tables.items():
        explorer.step.value = step
        shown = explorer.history.value
        assert f"at step {step}</p>" in shown
        counts = [int(n.replace(",", "")) for n in re.findall(r"<small>([\d,]+)</small>", shown)]
        assert sum(counts) == table[0].sum()
        assert f"{variation(table[0].sum(0)):.2f}</text>" in shown
        assert f"{mutual_information(table[0]):.2f}</text>" in shown
        assert f"<td>{mutual_information(table[0]):.3f}</td>" in shown
        seen.add(shown)
    assert len(seen) == 3
    assert explorer.picture.value == picture
    explorer.layer.value = 1
    assert explorer.history.value not in seen


def test_each_character_is_listed_with_the_expert_that_takes_most_of_it():
    table = torch.tensor([[1, 9], [6, 2], [0, 0], [30, 0]])
    rows = re.findall(r"<tr>.*?</tr>", routing_chart.alphabet(table, "ab\nc"))
    assert [re.findall(r"<b .*?>(.)<i>", row) for row in rows] == [["c", "b"], ["a"]]
    assert "--a:0.72" in rows[0]  # all of c
    none = routing_chart.alphabet(torch.tensor([[3, 0]]), "a")
    assert "<div class='tiles'>–</div>" in none


def test_the_mark_of_a_curve_stands_at_its_step():
    shown = routing_history.curve([0, 50, 200], [1.0, 0.5, 0.25], 50, "load CV", 1.0)
    assert "points='0.0,0.0 75.0,45.0 300.0,67.5'" in shown
    assert "<circle cx='75.0' cy='45.0'" in shown
    assert "load CV: 1.00 at step 0, 0.50 at step 50, 0.25 at step 200" in shown
    assert "points='0.0,90.0'" in routing_history.curve([7], [0.0], 7, "load CV", 0.0)


def test_without_tables_nothing_of_training_is_shown(model):
    explorer = routing_explorer(model)
    assert explorer.history.value == ""
    assert explorer.training.layout.display == "none"


def test_the_scene_comes_with_its_styles(explorer):
    assert "<h3>Styles</h3>" not in both(explorer)
    explorer.source.value = next(name for name in explorer.passages if "tinyplays" in name)
    assert explorer.passages[explorer.source.value].text in write_plays(4000, seed=3).text
    picture = both(explorer)
    table = torch.tensor(cells(picture, "Styles"))
    assert table.shape[0] == 4
    assert table.shape[1] >= 3
    assert ((table.sum(0) - 100).abs() <= 2).all()
    styles = [name for name in STYLES if f"<th>{name}<br>" in picture]
    assert len(styles) == table.shape[1]
    assert "about the style of the" in picture
    assert f"<td>{styles[0]}</td>" in picture
    explorer.text.value = explorer.text.value[:-1]  # no longer that scene
    assert "<h3>Styles</h3>" not in both(explorer)


def test_own_labels(model):
    labels = [-1, 0, 0, 1]
    explorer = routing_explorer(model, "abcd", labels=labels, label_names=["x<", "y"])
    assert "<th>x&lt;<br><small>2</small></th><th>y<br><small>1</small></th>" in (both(explorer))
    assert "<td>x&lt;</td>" in both(explorer)
    assert "<td>–</td>" in both(explorer)
    unnamed = routing_explorer(model, "abcd", labels=torch.tensor(labels))
    assert "<th>1<br>" in both(unnamed)
    with pytest.raises(ConfigError, match="2 labels, but the text has 4"):
        routing_explorer(model, "abcd", labels=[0, 1])
    with pytest.raises(ConfigError, match="label 1 has no name"):
        routing_explorer(model, "abcd", labels=labels, label_names=["x"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("the 7 é", "the model does not know &#x27;7&#x27;, &#x27;é&#x27;; take it out"),
        ("", "the text has length 0; it needs 2 to 600 characters"),
        ("a" * 601, "the text has length 601; it needs 2 to 600"),
    ],
)
def test_what_is_wrong_is_said_and_the_last_picture_stays(explorer, text, message):
    picture, loss = explorer.picture.value, explorer.loss.value
    explorer.text.value = text
    assert message in explorer.message.value
    assert explorer.message.value.count("role='alert'") == 1
    assert explorer.picture.value == picture.replace("class='tg '", "class='tg old'")
    assert explorer.loss.value == loss.replace("class='tg '", "class='tg old'")
    explorer.layer.value = 1  # still wrong
    assert message in explorer.message.value
    explorer.layer.value, explorer.text.value = 0, TEXT
    assert explorer.message.value == ""
    assert (explorer.picture.value, explorer.loss.value) == (picture, loss)


def test_a_bad_start_says_so(model):
    explorer = routing_explorer(model, "7 x 7")
    assert "the model does not know &#x27;7&#x27;" in explorer.message.value
    assert explorer.picture.value == ""
    explorer.source.value = "a short passage"
    assert explorer.message.value == ""


def test_the_longest_text_can_be_read(model):
    assert len(numbers(routing_explorer(model, (TEXT * 20)[:LONGEST]).picture.value)) == LONGEST
    assert len(numbers(routing_explorer(model, "ab").picture.value)) == 2


def test_models_that_cannot_be_shown_are_refused(model, tables, small):
    with pytest.raises(ConfigError, match="no tokenizer"):
        routing_explorer(TinyGPT(model.config))
    dense = TinyGPT(small)
    dense.tokenizer = CharTokenizer(ALPHABET[: small.vocab_size])
    with pytest.raises(ConfigError, match="no experts"):
        routing_explorer(dense)
    with pytest.raises(ConfigError, match="table of step 3 has shape .1, 2, 4."):
        routing_explorer(model, tables={3: torch.zeros(1, 2, 4)})


def test_shared_experts_stay_and_a_bias_free_layer_works():
    torch.manual_seed(0)
    config = ModelConfig(
        *(len(ALPHABET), 24, 1, 2, 16),
        mlp="swiglu",
        mlp_bias=False,
        moe=MoEConfig(n_experts=3, n_shared=1, scores="sigmoid", balance="bias"),
    )
    model = TinyGPT(config)
    model.tokenizer = CharTokenizer(ALPHABET)
    explorer = routing_explorer(model, TEXT)
    explorer.drop.value = used(explorer)[0]
    assert explorer.results["loss without"] != explorer.results["loss"]
    assert model.training


# --- tokens that are several characters, or a part of one ----------------------------------------

SPOKEN = "the cat sat. \u00e9\n\nthe \U0001f600 sat\n"


@pytest.fixture
def spoken(byte_model):
    shape = 2, byte_model.config.vocab_size, 4
    tables = {0: torch.ones(shape), 5: torch.arange(2.0 * shape[1] * 4).view(shape)}
    labels = [i % 3 - 1 for i, _ in enumerate(byte_model.tokenizer.encode(SPOKEN))]
    return routing_explorer(byte_model, SPOKEN, tables, labels, ["x", "y"])


def test_each_token_has_a_tile(spoken, byte_model):
    tokens = byte_model.tokenizer.encode(SPOKEN)
    chosen = routing(byte_model, SPOKEN, 0).experts[0, :, 0].tolist()
    assert numbers(spoken.picture.value) == [str(e) for e in chosen]
    tiles = spoken.picture.value[: spoken.picture.value.index("<details>")]
    shown = html.unescape("".join(re.findall(r"'>([^<]*)<i>", tiles)))
    pieces = [byte_model.tokenizer.pieces[t] for t in tokens]
    assert shown == "".join(map(plots.visible, pieces))
    assert "<F0>" in shown
    assert "␣cat" in shown
    assert tiles.count("<br>") == 2
    rows = re.findall(r"<tr><td>\d+</td><td>(.*?)</td><td>(.*?)</td>", spoken.picture.value)
    assert dict(rows)["␣cat"] == "consonants"
    assert dict(rows)["⏎⏎"] == "newline"
    assert "each token with the number" in spoken.picture.value
    assert "What the expert tells of its token" in spoken.history.value
    assert "character" not in re.sub("[Cc]haracter class", "", spoken.picture.value)


def test_all_controls_of_tokens(spoken, byte_model):
    views = spoken.picture, spoken.loss, spoken.history
    for name, value in (("drop", 0), ("layer", 1), ("seed", 3), ("step", 0)):
        before = [view.value for view in views]
        getattr(spoken, name).value = value
        assert [view.value for view in views] != before
    results = spoken.results
    assert results["text"] == generateV2(byte_model, SPOKEN, 40, seed=3, temperature=0.8)
    cut = without_expert(byte_model, 1, 0)
    assert results["text without"] == generateV2(cut, SPOKEN, 40, seed=3, temperature=0.8)
    assert f"{results['loss']:.3f} nats per token with all experts" in spoken.loss.value
    spoken.text.value = "t"
    assert "has length 1; it needs 2 to 600 tokens" in spoken.message.value
    for name in spoken.passages:
        spoken.source.value = name
        assert spoken.message.value == ""


def test_labels_are_of_tokens(spoken, byte_model):
    n = len(byte_model.tokenizer.encode(SPOKEN))
    labels = [i % 3 - 1 for i in range(n)]
    counts = [labels.count(0), labels.count(1)]
    assert (
        "".join(
            f"<th>{name}<br><small>{k}</small></th>" for name, k in zip("xy", counts, strict=True)
        )
        in spoken.figures.value
    )
    with pytest.raises(ConfigError, match=f"2 labels, but the text has {n} tokens"):
        routing_explorer(byte_model, SPOKEN, labels=[0, 1])
