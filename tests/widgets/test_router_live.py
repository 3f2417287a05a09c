"""The router lab: its controls are moved, it trains in slices, and what is drawn is read."""

import asyncio
import html
import re
import threading
from dataclasses import replace

import pytest
import torch

from tinygpt import CharTokenizer
from tinygpt.errors import ConfigError, NonFiniteError
from tinygpt.widgets import RouterLab, live, router_lab
from tinygpt.widgets.router_training import RouterTraining, Rules

from ..tools import same_state
from .test_safety import EVIL, check_page


@pytest.fixture
def lab(corpus):
    return router_lab(corpus)


def words(lab):
    return html.unescape(re.search("<p class='said'>(.*?)</p>", lab.picture.value)[1])


def updates(lab):
    return int(re.search("<b>([\\d,]+)</b><span>updates", lab.picture.value)[1].replace(",", ""))


# --- in plain Python -----------------------------------------------------------------------------


def test_nothing_starts_by_itself(lab):
    assert lab.training.update == updates(lab) == 0
    assert words(lab).startswith("Not trained yet.")
    lab.start.click()
    assert lab.training.update == 0
    assert "advance(100)" in lab.status.value


def test_advance_trains_and_draws(lab, corpus):
    lab.advance(10)
    alone = RouterTraining(corpus, Rules())
    alone.advance(10)
    assert same_state(lab.training.model, alone.model)
    assert updates(lab) == 10
    numbers = [int(n) for n in re.findall(r"<i>(\d+)</i></b>", lab.tiles.value)]
    assert numbers == alone.routing.experts.flatten().tolist()[: len(numbers)]
    assert len(numbers) == min(7 * 32, alone.x.numel())


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("balance", "Switch loss", {"balance": "Switch loss", "strength": 0.1}),
        ("balance", "biases", {"balance": "biases", "strength": 0.01}),
        ("noise", "learned", {"noise": "learned"}),
        ("noise", "jitter", {"noise": "jitter"}),
        ("z_weight", 0.0, {"z_weight": 0.0}),
        ("router_lr", 25.0, {"router_lr": 25.0}),
        ("top_k", 2, {"top_k": 2}),
    ],
)
def test_the_living_model_follows_a_control(lab, name, value, expected):
    lab.advance(5)
    model = lab.training.model
    getattr(lab, name).value = value
    assert lab.training.model is model
    assert lab.training.rules == replace(Rules(), **expected)
    assert lab.training.update == 5
    assert model.config.moe == lab.training.router.config == lab.training.rules.config(8)
    lab.advance(5)
    assert updates(lab) == 10
    assert lab.message.value == ""


def test_the_strength_belongs_to_the_method(lab):
    assert lab.strength.disabled
    lab.balance.value = "biases"
    assert not lab.strength.disabled
    lab.strength.value = 0.03
    assert lab.training.rules == Rules("biases", 0.03)
    lab.balance.value = "none"
    assert lab.strength.disabled


@pytest.mark.parametrize(("name", "value"), [("n_experts", 4), ("seed", 7)])
def test_experts_and_seed_make_a_new_model(lab, corpus, name, value):
    lab.balance.value = "biases"
    lab.advance(10)
    before = lab.training
    getattr(lab, name).value = value
    assert lab.training is not before
    assert updates(lab) == 0
    given = {"n_experts": 8, "seed": 1} | {name: value}
    expected = RouterTraining(corpus, Rules("biases", 0.01), **given)
    assert same_state(lab.training.model, expected.model)


def test_reset_begins_anew_and_keeps_the_old_run_in_grey(lab):
    lab.advance(20)
    first = lab.training
    lab.balance.value = "biases"
    lab.reset.click()
    assert lab.training.update == updates(lab) == 0
    assert same_state(lab.training.model, RouterTraining(lab.corpus, Rules()).model)
    lab.advance(10)
    loss = first.seen(10).loss
    assert f"Grey, the run before, at this update: loss {loss:.2f}" in words(lab)
    lines = [p.split() for p in re.findall(r"<polyline points='(.*?)'", lab.picture.value)]
    assert [len(line) for line in lines] == [5, 3, 5, 3]
    lab.reset.click()  # what was not trained is no run
    lab.reset.click()
    lab.advance(5)
    assert f"loss {lab._before.seen(5).loss:.2f}" in words(lab)
    assert lab._before.update == 10


def test_a_method_is_switched_while_it_runs_and_marked(lab):
    lab.advance(30)
    lab.balance.value = "Switch loss"
    lab.advance(10)
    assert "Switch loss 0.1</text>" in lab.picture.value
    assert "10 updates with the Switch loss (0.1)" in words(lab)


def test_what_is_ruined_is_said_and_reset_helps(lab):
    lab.advance(5)
    tiles = lab.tiles.value
    with torch.no_grad():
        lab.training.model.wte.weight[:] = float("nan")
    with pytest.raises(NonFiniteError, match="loss is nan .* at update 5; reset"):
        lab.advance(1)
    lab.reset.click()
    lab.advance(5)
    assert lab.tiles.value == tiles  # the same seed again
    assert lab.message.value == ""


def test_every_control_has_a_name(lab):
    assert all(control.description for control in lab.knobs)
    assert all(b.description and b.tooltip for b in (lab.start, lab.pause, lab.reset))
    page = lab.picture.value + lab.tiles.value
    assert page.count("role='img'") == page.count("aria-label='") == 4
    assert "role='status'" in lab.status.value


def test_a_text_that_would_disturb_the_page_is_shown(corpus):
    tokenizer = CharTokenizer(sorted(set(EVIL)))
    tokens = torch.tensor(tokenizer.encode(EVIL * 40))
    evil = replace(corpus, name=EVIL, tokenizer=tokenizer, train=tokens, val=tokens)
    lab = router_lab(evil)
    lab.advance(5)
    check_page(lab.picture, lab.tiles, lab.status, says=["<script>"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokenizer": None}, "has no tokenizer; load_corpus sets it"),
        ({"train": torch.zeros(9, dtype=torch.long)}, "the train split has 9 tokens"),
        ({"val": torch.zeros(9, dtype=torch.long)}, "the validation split has 9 tokens"),
        ({"train": torch.full((99,), 999)}, "has token 999"),
    ],
)
def test_a_corpus_that_cannot_be_trained_on_is_refused(corpus, change, message):
    with pytest.raises(ConfigError, match=message):
        router_lab(replace(corpus, **change))
    with pytest.raises(ConfigError, match="corpus must be a Corpus, not a str; load_corpus"):
        router_lab("tinyplays")


def test_without_a_corpus_it_takes_the_course_s_own(corpus, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "tinygpt.widgets.router_live.load_corpus",
        lambda *name, **more: asked.append((name, more)) or corpus,
    )
    assert router_lab().corpus is corpus
    assert asked == [(("tinyshakespeare",), {"fallback": "tinyplays"})]


# --- in a notebook: in slices, and moved by other threads ----------------------------------------


async def until(condition):
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0)


def in_a_thread(*calls):
    """Call these in a thread with a loop of its own, as a subshell does."""

    async def all_of_them():
        for call in calls:
            call()
            await asyncio.sleep(0.001)

    thread = threading.Thread(target=asyncio.run, args=[all_of_them()])
    thread.start()
    return thread


@pytest.fixture
def places(monkeypatch):
    """The threads and loops in which a model was trained or given rules, and pictures drawn."""
    found = set()

    def watch(owner, name):
        original = getattr(owner, name)

        def watched(self, *args):
            found.add((threading.get_ident(), live._running_loop()))
            return original(self, *args)

        monkeypatch.setattr(owner, name, watched)

    watch(RouterTraining, "advance")
    watch(RouterTraining, "follow")
    watch(RouterLab, "_draw")
    return found


def test_it_trains_between_slices_until_it_is_paused(corpus):
    async def cell():
        lab = router_lab(corpus)
        for _ in range(20):
            await asyncio.sleep(0)
        assert lab.training.update == 0
        lab.start.click()
        await until(lambda: lab.training.update >= 20)
        assert "Training" in lab.status.value
        lab.pause.click()
        await until(lambda: "Paused" in lab.status.value)
        stopped = lab.training.update
        for _ in range(20):
            await asyncio.sleep(0)
        assert lab.training.update == stopped
        assert updates(lab) == lab.training.looks[-1].update
        lab.start.click()
        await until(lambda: lab.training.update > stopped)
        lab.reset.click()
        await until(lambda: lab.training.update == 0)
        assert "Paused" in lab.status.value

    asyncio.run(cell())


def test_a_start_ends_by_itself(corpus, monkeypatch):
    monkeypatch.setattr("tinygpt.widgets.router_live.LIMIT", 0.2)

    async def cell():
        lab = router_lab(corpus)
        lab.start.click()
        await until(lambda: lab._later._task.done())
        assert lab.training.update > 0
        assert "Paused" in lab.status.value
        assert lab.message.value == ""

    asyncio.run(cell())


def test_the_method_is_switched_in_another_thread_and_all_is_done_in_the_cell_s(corpus, places):
    async def cell():
        lab = router_lab(corpus)
        here = threading.get_ident(), asyncio.get_running_loop()
        starter = in_a_thread(lab.start.click)
        await until(lambda: lab.training.update >= 10)
        model = lab.training.model

        def move(name, value):
            return lambda: setattr(getattr(lab, name), "value", value)

        names = ["balance", "noise", "top_k", "z_weight", "router_lr"]
        values = ["Switch loss", "learned", 2, 0.0, 5.0, "biases", "none", 1, 0.03, 10.0]
        moves = [move(name, value) for name, value in zip(names * 2, values, strict=True)]
        mover = in_a_thread(*moves * 5)
        await until(lambda: not mover.is_alive())
        seen = lab.training.update
        await until(lambda: lab.training.update > seen)
        assert lab.training.model is model
        assert lab.training.rules == Rules("biases", 0.01, "none", 0.03, 10.0, 1)
        stopper = in_a_thread(lab.pause.click)
        await until(lambda: lab._later._task.done())
        assert "Paused" in lab.status.value
        assert lab.message.value == ""
        for thread in (starter, mover, stopper):
            thread.join()
        assert places == {here}

    asyncio.run(cell())


def test_another_cell_draws_the_random_numbers_that_it_would_draw_alone(corpus):
    torch.manual_seed(11)
    alone = [torch.rand(2).tolist() for _ in range(30)]

    async def cell():
        torch.manual_seed(11)
        lab = router_lab(corpus)
        lab.noise.value = "learned"
        lab.start.click()
        found = []
        for _ in range(30):
            seen = lab.training.update
            await until(lambda: lab.training.update > seen)  # noqa: B023
            found.append(torch.rand(2).tolist())
        lab.reset.click()
        return found

    assert asyncio.run(cell()) == alone


def test_an_error_in_the_task_is_drawn_and_reset_goes_on(corpus):
    async def cell():
        lab = router_lab(corpus)
        lab.start.click()
        await until(lambda: lab.training.update >= 5)
        with torch.no_grad():
            lab.training.model.wte.weight[:] = float("nan")
        await until(lambda: lab._later._task.done())
        assert "the loss is nan" in lab.message.value
        assert "class='tg old'" in lab.picture.value
        assert "Paused" in lab.status.value
        lab.balance.value = "biases"  # does not train on
        await until(lambda: lab._later._task.done())
        assert lab.message.value == ""
        lab.reset.click()
        lab.start.click()
        await until(lambda: lab.training.update >= 5)
        assert lab.message.value == ""
        assert "old" not in lab.picture.value
        lab.pause.click()

    asyncio.run(cell())


def test_after_its_loop_has_ended_it_stands_still(corpus):
    async def cell():
        lab = router_lab(corpus)
        lab.start.click()
        return lab

    lab = asyncio.run(cell())
    made = lab.training.update
    lab.balance.value = "biases"
    lab.start.click()
    assert lab.training.update == made
    assert lab.training.rules.balance == "biases"
    lab.advance(5)
    assert lab.training.update == made + 5
