import asyncio
import math
import re
from dataclasses import replace

import pytest
import torch

from tinygpt import CharTokenizer, DecodingConfig, TinyGPT, generate_greedy, generateV2
from tinygpt.decoding import (
    apply_repetition_penalty,
    apply_temperature,
    filter_min_p,
    filter_top_k,
    filter_top_p,
    process,
    processors,
)
from tinygpt.errors import ConfigError
from tinygpt.widgets import frame, sampling_playground
from tinygpt.widgets import playground as module
from tinygpt.widgets import playground_chart as chart
from tinygpt.widgets.playground import AS_DRAWN
from tinygpt.widgets.stages import ROWS, sample

from ..conftest import LINES


@pytest.fixture
def playground(model):
    return made(model)


def made(model):
    playground = sampling_playground(model, "the cat ")
    playground.length.value = 30
    playground.penalty.value = 1.3  # now every slider has something to say
    playground.min_p.value = 0.1
    playground.finish()
    return playground


def numbers(playground):
    """The table beside the picture: symbol, before, after, drawn, what became of it."""
    row = r"<tr><th class='c' scope='row'>(.*?)</th>(.*?)</tr>"
    rows = re.findall(row, playground.picture.value)
    return [[symbol, *re.findall(r"<td[^>]*>(.*?)</td>", cells)] for symbol, cells in rows]


def token(playground, character):
    return playground.tokenizer.encode(character)[0]


YOURS, GREEDY, TEMPERATURE, TOP_K, TOP_P, MIN_P = range(6)


@pytest.mark.parametrize(
    ("name", "value", "changed"),
    [
        ("temperature", 1.6, {YOURS, TEMPERATURE}),
        ("top_k", 3, {YOURS, TOP_K}),
        ("top_p", 0.3, {YOURS, TOP_P}),
        ("min_p", 0.5, {YOURS, MIN_P}),
        ("penalty", 2.0, {YOURS}),
        ("window", 2, {YOURS}),
        ("banned", "aeiou", {YOURS}),
        ("seed", 7, {YOURS, TEMPERATURE, TOP_K, TOP_P, MIN_P}),
    ],
)
def test_a_control_changes_the_picture_and_its_own_texts_alone(playground, name, value, changed):
    control = getattr(playground, name)
    picture, texts, cards = playground.picture.value, playground.results, playground.texts.value
    before, control.value = control.value, value
    assert playground.picture.value != picture
    assert playground.texts.value != cards
    pairs = zip(texts.values(), playground.results.values(), strict=True)
    assert {i for i, (old, new) in enumerate(pairs) if old != new} == changed
    control.value = before
    assert (playground.picture.value, playground.texts.value) == (picture, cards)
    assert playground.results == texts


def test_length_changes_the_texts_alone(playground):
    picture, texts = playground.picture.value, playground.results
    for length in (50, 10):
        playground.length.value = length
        assert playground.picture.value == picture
        for old, new in zip(texts.values(), playground.results.values(), strict=True):
            assert len(new) == len("the cat ") + length
            assert new.startswith(old) or old.startswith(new)


def test_a_window_without_a_penalty_changes_nothing(playground):
    playground.penalty.value = 1.0
    picture, cards = playground.picture.value, playground.texts.value
    playground.window.value = 3
    assert (playground.picture.value, playground.texts.value) == (picture, cards)


def test_a_prompt_starts_anew(playground):
    playground.step.value, playground.replacement.value = 5, token(playground, "o")
    playground.prompt.value = "dog"
    assert playground.step.value == 1
    assert playground.replacement.value == AS_DRAWN
    assert all(text.startswith("dog") for text in playground.results.values())
    assert "<code>dog</code>" in playground.picture.value


@pytest.mark.parametrize("seed", [0, 5])
def test_each_text_is_what_generate_v2_gives(playground, model, seed):
    playground.seed.value = seed
    results, n = playground.results, playground.length.value
    o = playground.options
    assert o["top_k"] == 10
    expected = [
        generateV2(model, "the cat ", n, seed=seed, **o),
        generate_greedy(model, "the cat ", n),
        generateV2(model, "the cat ", n, seed=seed, temperature=0.8),
        generateV2(model, "the cat ", n, seed=seed, top_k=10),
        generateV2(model, "the cat ", n, seed=seed, top_p=0.9),
        generateV2(model, "the cat ", n, seed=seed, min_p=0.1),
    ]
    assert list(results.values()) == expected
    titles = ["temperature 0.8", "top-k 10", "top-p 0.9", "min-p 0.1"]
    assert list(results) == ["all sliders together", "greedy", *titles]
    for title in results:
        assert f"<b>{title}</b>" in playground.texts.value


def test_where_texts_part_is_marked():
    tokenizer = CharTokenizer("aemsxy \n")
    texts = {"a": "same x", "b": "same\ny", "c": "same x"}
    texts = {name: tokenizer.encode(text) for name, text in texts.items()}
    shown = chart.cards(tokenizer, "p", texts, 0, {})
    assert "same<mark class='parts'>⏎</mark>\ny" in shown
    assert "parts after 4 characters" in shown
    assert "the same text" in shown
    assert shown.count("<mark class='parts'>") == 1


def by_hand(model, text):
    tokens = torch.tensor([model.tokenizer.encode(text)])
    with torch.inference_mode():
        logits = model(tokens[:, -model.config.block_size :]).logits[:, -1]
    found = [logits]
    found.append(apply_repetition_penalty(found[-1], tokens, 1.3, 16))
    found.append(apply_temperature(found[-1], 0.8))
    for cut, value in ((filter_top_k, 10), (filter_top_p, 0.9), (filter_min_p, 0.1)):
        found.append(cut(found[-1], value))
    return [x[0].double().softmax(dim=-1).numpy() for x in found]


@pytest.mark.parametrize("step", [1, 2, 20])
def test_the_picture_shows_every_step_as_done_by_hand(playground, model, step):
    playground.step.value = step
    before = playground.results["all sliders together"][: len("the cat ") + step - 1]
    expected = by_hand(model, before)
    heads = re.findall(r"<div class='head' title='(.*?)'>", playground.picture.value)
    names = ["model itself", "repetition 1.3", "temperature 0.8", "top-k 10", "top-p 0.9"]
    assert heads == [*names, "min-p 0.1", "200 draws"]
    for p in expected:
        entropy = -sum(q * math.log(q) for q in p if q > 0)
        assert f"<small>{entropy:.2f} nats</small>" in playground.picture.value
        assert f"<small>{math.exp(entropy):.1f} choices</small>" in playground.picture.value
    for row in numbers(playground):
        if not row[0].startswith("+"):
            i = model.tokenizer.encode({"␣": " ", "⏎": "\n"}.get(row[0], row[0]))[0]
            assert row[1:3] == [f"{100 * expected[0][i]:.2f}", f"{100 * expected[-1][i]:.2f}"]
            assert row[4].startswith("kept") == (expected[-1][i] > 0)
    assert chart.context(before) in playground.picture.value


def test_off_means_no_column(playground):
    for control in (playground.penalty, playground.temperature, playground.top_p):
        control.value = 1.0
    playground.top_k.value, playground.min_p.value = 0, 0.0
    heads = re.findall(r"<div class='head' title='(.*?)'>", playground.picture.value)
    assert heads == ["model itself", "200 draws"]
    results = list(playground.results.values())
    assert results[YOURS] == results[TEMPERATURE] == results[TOP_K] == results[TOP_P]
    assert "top-k off: plain sampling" in playground.texts.value


def test_the_step_chooses_the_character_that_is_looked_at(playground):
    text = playground.results["all sliders together"][len("the cat ") :]
    for step in (1, 7, 30):
        playground.step.value = step
        written = text[step - 1].replace(" ", "␣").replace("\n", "⏎")
        assert f"<div class='row written'>{written}</div>" in playground.picture.value
        assert f"<b>Character {step}</b>" in playground.picture.value
        assert f"<mark class='here'>{written}</mark>" in playground.texts.value
        assert [row[0] for row in numbers(playground) if "written" in row[-1]] == [written]
    playground.length.value = 20
    assert playground.step.value == 20
    assert "<b>Character 20</b>" in playground.picture.value


def continued(model, prompt, n, seed, options, put):
    """Sampling by hand: place i takes the i-th draw, or what was put there."""
    generator, text = torch.Generator().manual_seed(seed), prompt
    config = DecodingConfig(**options)
    for place in range(n):
        noise = torch.empty(model.tokenizer.vocab_size).exponential_(generator=generator)
        ids = torch.tensor([model.tokenizer.encode(text)])
        with torch.inference_mode():
            logits = model(ids[:, -model.config.block_size :]).logits[:, -1]
        logits = process(logits, ids, len(prompt), processors(config, model.tokenizer))
        drawn = model.tokenizer.decode([(logits[0].softmax(dim=-1) / noise).argmax().item()])
        text += put.get(place, drawn)
    return text


def test_a_replaced_character_stays_and_the_draws_go_on(playground, model):
    before = playground.results
    yours = before["all sliders together"]
    place = len("the cat ") + 4
    playground.step.value = 5
    symbol = "m" if yours[place] != "m" else "g"
    playground.replacement.value = token(playground, symbol)
    after = playground.results
    new = after.pop("all sliders together")
    del before["all sliders together"]
    assert after == before
    assert new[:place] == yours[:place]
    assert new[place] == symbol
    assert new == continued(model, "the cat ", 30, 1, playground.options, {4: symbol})
    everything = model.tokenizer.characters
    assert new == generateV2(
        model,
        "the cat ",
        30,
        seed=1,
        constraint=lambda text: symbol if len(text) == place else everything,
        **playground.options,
    )
    assert f"<mark class='here pin'>{symbol}</mark>" in playground.texts.value
    playground.replacement.value = AS_DRAWN
    assert playground.results["all sliders together"] == yours


def test_an_earlier_replacement_forgets_the_later_one(playground, model):
    def put(step, symbol):
        playground.step.value = step
        playground.replacement.value = token(playground, symbol)
        return playground.results["all sliders together"]

    both = put(5, "m"), put(9, "g")
    assert both[1] == continued(model, "the cat ", 30, 1, playground.options, {4: "m", 8: "g"})
    playground.step.value = 5
    assert playground.replacement.value == token(playground, "m")  # the menu follows the slider
    playground.step.value = 6
    assert playground.replacement.value == AS_DRAWN
    assert playground.results["all sliders together"] == both[1]
    only = put(3, "b")
    assert only == continued(model, "the cat ", 30, 1, playground.options, {2: "b"})
    playground.temperature.value = 0.5  # what was put there stays
    assert playground.results["all sliders together"][len("the cat ") + 2] == "b"


def test_the_draws_are_counted(playground):
    drawn = [int(row[3]) for row in numbers(playground)]
    assert sum(drawn) == 200
    for row in numbers(playground):
        assert row[3] == "0" or row[4].startswith("kept")
    marks = len(re.findall(r"<s style", playground.picture.value))
    assert marks >= sum(count > 0 for count in drawn)
    cards = playground.texts.value
    playground.overlay.value = False
    assert "200 draws" not in playground.picture.value
    assert "<s style" not in playground.picture.value
    assert playground.texts.value == cards


def test_the_first_draw_is_the_first_character_of_the_text(playground, model):
    text = playground.results["all sliders together"][len("the cat ")]
    p = by_hand(model, "the cat ")[-1]
    assert model.tokenizer.characters[sample(p, 1, seed=1).argmax()] == text


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("prompt", "", "the prompt is empty; give at least one character."),
        ("prompt", "the é", "prompt: the model does not know &#x27;é&#x27;"),
        ("banned", "7", "never write: the model does not know &#x27;7&#x27;"),
        ("banned", "".join(sorted(set(LINES))), "leave no symbol"),
    ],
)
def test_what_is_wrong_is_said_and_the_last_picture_stays(playground, name, value, message):
    picture, cards = playground.picture.value, playground.texts.value
    control = getattr(playground, name)
    before, control.value = control.value, value
    assert message in playground.message.value
    assert "Traceback" not in playground.message.value
    assert playground.message.value.count("role='alert'") == 1
    assert playground.picture.value == picture.replace("class='tg '", "class='tg old'")
    assert playground.texts.value == cards.replace("class='tg '", "class='tg old'")
    playground.temperature.value = 1.1  # still wrong
    assert message in playground.message.value
    playground.temperature.value, control.value = 0.8, before
    assert playground.message.value == ""
    assert (playground.picture.value, playground.texts.value) == (picture, cards)


def test_a_bad_start_says_so(model):
    playground = sampling_playground(model, "ROMEO:\n")
    assert "the model does not know" in playground.message.value
    assert playground.picture.value == ""
    assert "Below" not in playground.message.value
    playground.prompt.value = "the"
    assert playground.message.value == ""
    assert "<b>Character 1</b>" in playground.picture.value


def test_a_replacement_that_is_banned_is_said(playground):
    playground.step.value, playground.replacement.value = 3, token(playground, "o")
    playground.banned.value = "o"
    assert "never write &#x27;o&#x27;? You put it at character 3" in playground.message.value
    playground.overlay.value = False
    assert "You put it" in playground.message.value
    playground.banned.value = ""
    assert playground.message.value == ""


def test_a_model_without_a_tokenizer_is_refused(small):
    with pytest.raises(ConfigError, match="no tokenizer"):
        sampling_playground(TinyGPT(small))


def test_the_model_is_read_on_one_thread(model, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    calls = []
    monkeypatch.setattr(torch, "set_num_threads", calls.append)
    sampling_playground(model, "the")
    assert set(calls[::2]) == {1}
    assert set(calls[1::2]) == {4}


def test_html_in_texts_is_only_text(small):
    tokenizer = CharTokenizer("<b>&' \n")
    model = TinyGPT(replace(small, vocab_size=tokenizer.vocab_size))
    model.tokenizer = tokenizer
    playground = sampling_playground(model, "<b>&'")
    assert "<code>&lt;b&gt;&amp;&#x27;</code>" in playground.picture.value
    assert "<span>&lt;b&gt;&amp;&#x27;</span>" in playground.texts.value
    for view in (playground.picture, playground.texts):
        assert not re.search(r"<b>&|&[ '<]", view.value)


def test_in_a_notebook_the_picture_comes_first_and_the_texts_follow(model):
    async def cell():
        playground = made(model)
        playground.length.value = 200  # more than is written in a slice
        playground.finish()
        picture, cards = playground.picture.value, playground.texts.value
        playground.temperature.value = 1.5
        playground.temperature.value = 1.7
        assert playground.picture.value != picture
        assert playground.texts.value == cards.replace("class='tg '", "class='tg pending'")
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) <= 2  # this one, and no more than one that writes
        while "pending" in playground.texts.value:
            await asyncio.sleep(0.01)
        return playground

    playground = asyncio.run(cell())
    assert "<b>temperature 1.7</b>" in playground.texts.value
    shown, results = playground.texts.value, playground.results
    playground.temperature.value = 1.5
    playground.temperature.value = 1.7  # written before, with no loop running
    assert (playground.texts.value, playground.results) == (shown, results)


def test_in_a_notebook_a_new_prompt_has_no_text_yet(model):
    async def cell():
        playground = made(model)
        playground.prompt.value = "dog"
        return playground.picture.value, playground.results["greedy"], playground.picture.value

    before, text, after = asyncio.run(cell())
    assert "row written" not in before
    assert text.startswith("dog")
    assert "row written" in after


def test_in_a_notebook_results_wait_for_the_texts(model):
    async def cell():
        playground = made(model)
        playground.temperature.value = 1.7
        return playground.results, playground.texts.value

    results, shown = asyncio.run(cell())
    expected = generateV2(model, "the cat ", 30, seed=1, temperature=1.7)
    assert results["temperature 1.7"] == expected
    assert "class='tg '" in shown


# --- tokens that are several characters, or a part of one ----------------------------------------


@pytest.fixture
def spoken(byte_model):
    playground = sampling_playground(byte_model, "the cat é")
    playground.length.value = 30
    return playground


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 1.6),
        ("top_k", 3),
        ("top_p", 0.3),
        ("min_p", 0.3),
        ("penalty", 2.0),
        ("banned", "é"),
        ("seed", 7),
        ("step", 9),
    ],
)
def test_a_control_of_tokens_changes_picture_and_texts(spoken, name, value):
    views = spoken.picture, spoken.texts
    before, results = [view.value for view in views], spoken.results
    control = getattr(spoken, name)
    old, control.value = control.value, value
    assert spoken.message.value == ""
    assert all(view.value != shown for view, shown in zip(views, before, strict=True))
    assert (spoken.results == results) == (name == "step")
    control.value = old
    assert ([view.value for view in views], spoken.results) == (before, results)


def test_a_text_of_tokens_is_what_generate_v2_gives(spoken, byte_model):
    spoken.penalty.value, spoken.banned.value = 1.3, "s"
    spoken.window.value = 3
    expected = generateV2(byte_model, "the cat é", 30, seed=1, **spoken.options)
    results = spoken.results
    assert results["all sliders together"] == expected
    assert results["greedy"] == generate_greedy(byte_model, "the cat é", 30)
    assert "s" not in expected
    assert len(expected) != len("the cat é") + 30


def test_the_picture_is_of_the_token_that_is_looked_at(spoken, byte_model):
    before = torch.tensor([byte_model.tokenizer.encode("the cat é")])
    with torch.inference_mode():
        p = byte_model(before).logits[0, -1].double().softmax(dim=-1)
    assert "<b>Token 1</b>, after <code>the cat é</code>" in spoken.picture.value
    assert "the next token after each step" in spoken.picture.value
    assert spoken.step.description == "token"
    labels = {frame.shown(piece): i for i, piece in enumerate(byte_model.tokenizer.pieces)}
    assert len(numbers(spoken)) == ROWS + 1
    for symbol, first, *_ in numbers(spoken)[:-1]:
        assert first == f"{100 * p[labels[symbol]]:.2f}"
    assert "character" not in spoken.picture.value + spoken.texts.value


def test_a_replaced_token_stays_and_the_draws_go_on(spoken, byte_model):
    """Sampling by hand: place i takes the i-th draw, or what was put there."""
    tokenizer, put = byte_model.tokenizer, {}
    for step, token in ((3, b" cat"), (4, b" \xc3"), (5, b"\xa9"), (9, b"\xf0")):
        spoken.step.value, spoken.replacement.value = step, tokenizer.tokens.index(token)
        put[step - 1] = tokenizer.tokens.index(token)
    generator = torch.Generator().manual_seed(1)
    chain = processors(DecodingConfig(**spoken.options), tokenizer)
    prompt = tokenizer.encode("the cat é")
    tokens = list(prompt)
    for place in range(30):
        luck = torch.empty(tokenizer.vocab_size).exponential_(generator=generator)
        ids = torch.tensor([tokens])
        with torch.inference_mode():
            logits = byte_model(ids[:, -byte_model.config.block_size :]).logits[:, -1]
        p = process(logits, ids, len(prompt), chain)[0].softmax(dim=-1)
        tokens.append(put.get(place, (p / luck).argmax().item()))
    text = spoken.results["all sliders together"]
    assert text == "the cat é" + tokenizer.decode(tokens[len(prompt) :])
    cards = spoken.texts.value
    assert "<mark class='pin'>␣cat</mark>" in cards
    assert "<mark class='pin'>&lt;20&gt;&lt;C3&gt;</mark>" in cards
    assert "<mark class='here pin'>&lt;F0&gt;</mark>" in cards
    assert "put here" in spoken.picture.value or "written" in spoken.picture.value
    spoken.banned.value = "😀"  # the last replacement begins it
    assert "never write &#x27;&lt;F0&gt;&#x27;? You put it at token 9" in spoken.message.value


def test_the_other_controls_of_tokens(spoken, byte_model):
    picture = spoken.picture.value
    spoken.overlay.value = False
    assert "<s style" not in spoken.picture.value
    spoken.overlay.value = True
    assert spoken.picture.value == picture
    spoken.length.value, spoken.prompt.value = 50, "sat. "
    assert spoken.results["greedy"] == generate_greedy(byte_model, "sat. ", 50)


def test_a_mark_without_text_can_be_put_there(spoken, byte_model):
    mark = byte_model.tokenizer.tokens.index(b"")
    spoken.replacement.value = mark
    assert spoken.replacement.label == "∅"
    assert "<div class='row written'>∅</div>" in spoken.picture.value
    assert "<mark class='here pin'>∅</mark>" in spoken.texts.value


def test_past_the_block_texts_are_short_where_readings_are_dear(model, monkeypatch):
    playground = sampling_playground(model, "the ")
    assert "not 120" not in playground.texts.value  # a small model reads in no time
    monkeypatch.setattr(module, "READINGS", 0)
    playground.prompt.value = "the cat sat on the mat"
    length = 40 - len(playground.prompt.value) + module.FEWEST
    text = playground.results["greedy"]
    assert text == generateV2(model, playground.prompt.value, length, seed=1, temperature=0)
    assert f"so the texts have {length} characters, not 120" in playground.texts.value
    playground.prompt.value *= 50
    assert len(playground.results["greedy"]) == len(playground.prompt.value) + module.FEWEST
