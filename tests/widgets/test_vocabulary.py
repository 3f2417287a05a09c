"""With thousands of tokens only the most important ones are drawn, and how many are left out."""

import asyncio
import random
import re
import threading

import numpy as np
import pytest
import torch

from tinygpt import ModelConfig, MoEConfig, TinyGPT, generateV2
from tinygpt.decoding import stream_tokens
from tinygpt.widgets import attention_explorer, routing_chart, routing_explorer, sampling_playground
from tinygpt.widgets.playground import AS_DRAWN, MENU

from ..tools import ByteTokenizer

pytestmark = pytest.mark.usefixtures("short")

V = 5000
PROMPT = "the cat sat\n"


@pytest.fixture(scope="module")
def model():
    """Noise over all bytes and 4,744 pairs of letters and the like."""
    letters = "etaoinshrdlcumwfgypbvkjxqz ETAOINSHRDLCUMWFGYPBVKJXQZ.,;:!?-'0123456789"
    pairs = [(a + b).encode() for a in letters for b in letters]
    tokenizer = ByteTokenizer([*(bytes([b]) for b in range(256)), *pairs[: V - 256]])
    torch.manual_seed(0)
    model = TinyGPT(ModelConfig(V, 32, 2, 2, 16, moe=MoEConfig(n_experts=4)))
    model.tokenizer = tokenizer
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p), alpha=0.2)
    return model.eval()


def distribution(model, tokens):
    with torch.inference_mode():
        return model(torch.tensor([tokens[-32:]])).logits[0, -1].softmax(-1).numpy()


def test_the_menu_offers_the_most_probable_tokens_of_the_place(model):
    playground = sampling_playground(model, PROMPT)
    playground.length.value = 20
    note = f"The menu offers the {MENU} most probable tokens, not the other 4,700"
    tokens = model.tokenizer.encode(PROMPT)
    written = list(stream_tokens(model, PROMPT, 20, seed=1, **playground.options))
    for place in (0, 6, 19):
        playground.step.value = place + 1
        p = distribution(model, [*tokens, *written[:place]])
        offered = [token for _, token in playground.replacement.options]
        assert offered == [AS_DRAWN, *np.argsort(-p, kind="stable")[:MENU]]
        assert playground.replacement.value == AS_DRAWN
        assert note in playground.picture.value
    assert len(playground.picture.value) < 50_000


def test_a_token_of_the_menu_is_put_there_and_stays_in_it(model):
    playground = sampling_playground(model, PROMPT)
    playground.length.value = 20
    playground.step.value = 5
    token = playground.replacement.options[MENU][1]  # the least probable one
    playground.replacement.value = token
    forced = list(stream_tokens(model, PROMPT, 20, seed=1, forced={4: token}, **playground.options))
    expected = PROMPT + model.tokenizer.decode(forced)
    assert playground.results["all sliders together"] == expected
    assert playground.replacement.value == token
    for step in (1, 9):
        playground.step.value = step
        assert playground.replacement.value == AS_DRAWN
    playground.step.value = 5
    assert playground.replacement.value == token
    tokens = model.tokenizer.encode(PROMPT)
    out_of_it = 0
    for seed in range(2, 12):  # after other texts it is not among the most probable ones
        playground.seed.value = seed
        assert playground.replacement.value == token
        assert len(playground.replacement.options) == MENU + 1
        p = distribution(model, [*tokens, *playground._yours[1][:4]])
        out_of_it += token not in np.argsort(-p)[:MENU]
    assert out_of_it > 3
    playground.step.value = 3
    other = playground.replacement.options[1][1]
    playground.replacement.value = other
    assert playground._pins == {2: other}  # later ones are forgotten
    playground.prompt.value = "dog"
    assert playground._pins == {}
    assert playground.replacement.value == AS_DRAWN
    assert len(playground.replacement.options) == MENU + 1
    assert playground.results["greedy"] == generateV2(model, "dog", 20, temperature=0)


def test_the_menu_is_short_although_nothing_could_be_drawn(model):
    playground = sampling_playground(model, "")
    assert "empty" in playground.message.value
    assert len(playground.replacement.options) == MENU + 1


def test_the_menu_follows_although_another_thread_chooses(model):
    """As the browser does: by the number of an entry."""
    errors = []

    def choose(playground):
        draw = random.Random(0)
        try:
            for _ in range(60):
                playground.step.set_state({"value": draw.choice([1, 4, 9])})
                playground.replacement.set_state({"index": draw.randrange(MENU)})
                playground.seed.set_state({"value": draw.randrange(3)})
        except BaseException as error:
            errors.append(error)

    async def cell():
        playground = sampling_playground(model, PROMPT)
        playground.length.value = 10
        chooser = threading.Thread(target=choose, args=[playground])
        chooser.start()
        while chooser.is_alive():
            await asyncio.sleep(0.001)
        while not playground._later._task.done():
            await asyncio.sleep(0.001)
        return playground

    playground = asyncio.run(cell())
    assert errors == []
    assert playground.message.value == ""
    place = playground.step.value - 1
    assert playground.replacement.value == playground._pins.get(place, AS_DRAWN)
    expected = list(
        stream_tokens(
            *(model, PROMPT, 10), seed=playground.seed.value,
            forced=playground._pins, **playground.options
        )
    )  # fmt: skip
    text = playground.results["all sliders together"]
    assert text == PROMPT + model.tokenizer.decode(expected)


def test_who_takes_most_of_each_token_is_cut(model):
    torch.manual_seed(1)
    table = torch.randint(1, 99, (2, V, 4))
    explorer = routing_explorer(model, PROMPT, {0: table, 10: table * 2})
    assert explorer.message.value == ""
    shown = explorer.history.value
    shown = shown[shown.index("Who takes most") : shown.index("<details>")]
    assert shown.count("<b class=") == 4 * routing_chart.MOST
    left_out = [int(n.replace(",", "")) for n in re.findall(r"and ([\d,]+) less frequent", shown)]
    assert sum(left_out) + 4 * routing_chart.MOST == V
    assert len(explorer.history.value) < 150_000
    rows = re.findall(r"<tr>(.*?)</tr>", routing_chart.alphabet(table[0], model.tokenizer.pieces))
    first = table[0].double() / table[0].sum(1, keepdim=True)
    for e, row in enumerate(rows):
        mine = [i for i in range(V) if first[i].argmax() == e]
        mine.sort(key=lambda i: -table[0, i].sum())
        best = routing_chart._tile(
            mine[0], model.tokenizer.pieces[mine[0]], [e], [float(first[mine[0], e])], e + 1, -1
        )
        assert best in row


def test_many_experts_share_the_room():
    table = torch.eye(64, dtype=torch.long).repeat(100, 1)  # 100 tokens for each of 64 experts
    shown = routing_chart.alphabet(table, ["x"] * 6400)
    assert shown.count("<b class=") == 64 * (routing_chart.LISTED // 64)
    assert shown.count("and 88 less frequent") == 64
    few = routing_chart.alphabet(torch.ones(65, 8), "x" * 65)
    assert "less frequent" not in few  # 65 characters are always shown


def test_the_history_is_drawn_once_for_each_step(model, monkeypatch):
    calls = []
    alphabet = routing_chart.alphabet

    def watched(*args):
        calls.append(1)
        return alphabet(*args)

    monkeypatch.setattr("tinygpt.widgets.routing_history.alphabet", watched)
    table = torch.ones(2, V, 4)
    explorer = routing_explorer(model, PROMPT, {0: table, 10: table})
    explorer.drop.value, explorer.text.value, explorer.step.value = 1, "the", 0
    explorer.step.value = 10
    assert len(calls) == 2


def test_attention_over_many_tokens(model):
    explorer = attention_explorer(model, PROMPT * 30)
    assert f"The first 32 of {len(model.tokenizer.encode(PROMPT * 30))} tokens" in (
        explorer.view.value
    )
