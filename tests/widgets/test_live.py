"""Controls moved in another thread, work in slices, and a model that is trained meanwhile."""

import asyncio
import random
import threading
import time
from contextlib import contextmanager

import pytest
import torch

from tinygpt import ModelConfig, MoEConfig, TinyGPT, TrainConfig, Trainer, generateV2
from tinygpt.errors import ConfigError
from tinygpt.measure import read
from tinygpt.widgets import (
    attention_explorer,
    routing_explorer,
    sampling_playground,
    window_explorer,
)
from tinygpt.widgets import live as module
from tinygpt.widgets import routing as routing_module
from tinygpt.widgets.live import Later, Live, Text
from tinygpt.widgets.playground import AS_DRAWN


@pytest.fixture
def mixture(corpus):
    """A small model with experts and dropout, in training mode."""
    torch.manual_seed(0)
    config = ModelConfig(
        *(corpus.tokenizer.vocab_size, 24, 2, 2, 16),
        dropout=0.5,
        moe=MoEConfig(n_experts=4, balance="loss"),
    )
    model = TinyGPT(config)
    model.tokenizer = corpus.tokenizer
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p), alpha=0.2)
    return model


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(routing_module, "WRITTEN", 20)


class Places:
    """Where steps were done and views drawn: thread, running loop and task."""

    def __init__(self, monkeypatch):
        self.steps, self.errors = [], []
        step, show = Later._step, Live._show

        def watched_step(later):
            self._note()
            return step(later)

        def watched_show(widget, view, content):
            self._note()
            show(widget, view, content)

        monkeypatch.setattr(Later, "_step", watched_step)
        monkeypatch.setattr(Live, "_show", watched_show)

    def _note(self):
        loop = module._running_loop()
        self.steps.append((threading.get_ident(), loop))


@contextmanager
def no_complaint(caplog):
    """Nothing is logged, by asyncio say."""
    caplog.clear()
    yield
    assert not caplog.records


def moved_by_another_thread(make, moves, during=lambda widget: None):
    """A widget that is made in a cell, and moved in a thread with a loop of its own."""
    errors = []

    async def in_its_loop(widget):
        for i, (name, value) in enumerate(moves):
            getattr(widget, name).value = value
            if i % 7 == 0:
                await asyncio.sleep(random.Random(i).random() / 300)

    def move(widget):
        try:
            asyncio.run(in_its_loop(widget))
        except BaseException as error:
            errors.append(error)

    async def cell():
        widget = make()
        mover = threading.Thread(target=move, args=[widget])
        mover.start()
        while mover.is_alive():
            during(widget)
            await asyncio.sleep(0.001)
        while not widget._later._task.done():
            await asyncio.sleep(0.001)
        return widget

    widget = asyncio.run(cell())
    assert errors == []
    assert widget.message.value == ""
    return widget


def rounds(controls: dict, n: int, last: dict) -> list:
    """Many moves of several controls, and at the end certain values."""
    draw = random.Random(0)
    moves = [(name, draw.choice(values)) for _ in range(n) for name, values in controls.items()]
    return [*moves, *last.items()]


def playground_of(model):
    playground = sampling_playground(model, "the cat ")
    playground.length.value = 30
    return playground


PLAYED = {
    "temperature": [0.0, 0.5, 1.5],
    "prompt": ["the cat ", "dog", "a frog"],
    "top_k": [0, 3, 9],
    "step": [1, 4, 30],
    "replacement": [AS_DRAWN, 3, 5],
    "length": [10, 40, 20],
    "banned": ["", "a"],
    "seed": [1, 2, 3],
    "overlay": [True, False],
}
AT_LAST = {
    "prompt": "the dog ",
    "banned": "",
    "overlay": True,
    "length": 30,
    "temperature": 0.7,
    "top_k": 5,
    "seed": 4,
    "step": 3,
    "replacement": 6,
}


def test_a_playground_moved_in_another_thread(model, monkeypatch, caplog):
    """No exception, the last state is drawn, all in the cell's loop."""
    places = Places(monkeypatch)
    with no_complaint(caplog):
        playground = moved_by_another_thread(
            lambda: playground_of(model), rounds(PLAYED, 25, AT_LAST)
        )
    assert {thread for thread, _ in places.steps} == {threading.get_ident()}
    assert len({id(loop) for _, loop in places.steps}) == 1  # the cell's; the mover has another
    assert "pending" not in playground.texts.value
    quiet = playground_of(model)
    for name, value in AT_LAST.items():
        getattr(quiet, name).value = value
    assert playground.picture.value == quiet.picture.value
    assert playground.texts.value == quiet.texts.value
    assert playground.results == quiet.results
    expected = generateV2(model, "the dog ", 30, seed=4, temperature=0.7)
    assert playground.results["temperature 0.7"] == expected
    assert playground.replacement.value == 6
    assert playground._pins == {2: 6}


def test_a_routing_explorer_moved_in_another_thread(mixture, monkeypatch, caplog):
    places = Places(monkeypatch)
    tables = {step: torch.ones(2, mixture.config.vocab_size, 4) for step in (0, 5)}

    def make():
        return routing_explorer(mixture, "the cat sat", tables)

    names = list(make().passages)
    controls = {
        "text": ["the dog", "a frog in a bog", "hat"],
        "source": names,
        "drop": [-1, 0, 3],
        "layer": [0, 1],
        "step": [0, 5],
        "seed": [1, 2],
    }
    last = {"source": names[-1], "layer": 1, "step": 0, "text": "a rat", "drop": 2, "seed": 3}
    places.steps.clear()
    with no_complaint(caplog):
        explorer = moved_by_another_thread(make, rounds(controls, 15, last))
    assert {thread for thread, _ in places.steps} == {threading.get_ident()}
    assert len({id(loop) for _, loop in places.steps}) == 1
    assert explorer.source.value == "what is typed"
    quiet = make()
    for name, value in last.items():
        getattr(quiet, name).value = value
    views = "picture", "loss", "history"
    assert [getattr(explorer, v).value for v in views] == [getattr(quiet, v).value for v in views]
    assert explorer.results == quiet.results
    tokens = torch.tensor(mixture.tokenizer.encode("a rat"))
    assert explorer.results["loss"] == read(mixture, tokens).loss


def test_the_smaller_explorers_moved_in_another_thread(model, corpus, monkeypatch, caplog):
    places = Places(monkeypatch)
    with no_complaint(caplog):
        windows = moved_by_another_thread(
            lambda: window_explorer(corpus),
            rounds({"start": range(99), "block_size": range(1, 9)}, 60, {"start": 5}),
        )
        attention = moved_by_another_thread(
            lambda: attention_explorer(model, "the cat sat"),
            rounds({"head": [0, 1], "query": range(11)}, 60, {"query": 4, "head": 1}),
        )
    assert {thread for thread, _ in places.steps} == {threading.get_ident()}
    quiet = window_explorer(corpus, 5, windows.block_size.value)
    assert windows.view.value == quiet.view.value
    quiet = attention_explorer(model, "the cat sat")
    quiet.query.value, quiet.head.value = 4, 1
    for view in ("wall", "view", "loss"):
        assert getattr(attention, view).value == getattr(quiet, view).value


def test_moved_in_both_threads_and_asked_for_results(model):
    """The cell moves controls and waits for results while the other thread moves others."""
    seen = []

    def during(playground):
        playground.top_p.value = random.Random(len(seen)).choice([0.3, 0.6, 0.9])
        seen.append(playground.results)

    moves = rounds({"temperature": [0.5, 1.5], "seed": [1, 2], "step": [1, 9]}, 200, {"seed": 3})
    playground = moved_by_another_thread(lambda: playground_of(model), moves, during)
    assert len(seen) > 1
    expected = generateV2(model, "the cat ", 30, seed=3, **playground.options)
    assert playground.results["all sliders together"] == expected
    for results in seen:
        assert all(len(text) == len("the cat ") + 30 for text in results.values())


def test_results_may_be_asked_for_in_another_thread(model):
    found = []

    async def cell():
        playground = playground_of(model)

        def ask():
            playground.temperature.value = 0.6
            found.append(playground.results)

        await asyncio.to_thread(ask)
        return playground

    playground = asyncio.run(cell())
    expected = generateV2(model, "the cat ", 30, seed=1, temperature=0.6)
    assert found[0]["temperature 0.6"] == expected
    assert playground.results == found[0]


def test_another_thread_gets_the_results_of_its_own_moves(model, monkeypatch):
    """Also while the loop is amid a step."""
    monkeypatch.setattr(module, "SLICE", 10)  # of which there is always one
    found = []

    async def cell():
        playground = playground_of(model)

        def ask():
            for i in range(1, 20):
                playground.temperature.value = i / 10
                time.sleep(i / 5000)
                found.append(playground.results)

        await asyncio.to_thread(ask)

    asyncio.run(cell())
    for i, results in enumerate(found, 1):
        expected = generateV2(model, "the cat ", 30, seed=1, temperature=i / 10)
        name = "temperature off: plain sampling" if i == 10 else f"temperature {i / 10}"
        assert results[name] == expected


def test_a_snapshot_between_a_move_and_what_follows_it(mixture):
    """The labels of a text are never put beside another one."""
    explorer = routing_explorer(mixture, "the cat sat", labels=[0] * 11)
    assert "Styles" in explorer.figures.value
    with explorer._quietly():  # the menu has not followed yet
        explorer.text.value = "a dog"
    explorer._later.start()
    assert explorer.message.value == ""
    assert "Styles" not in explorer.figures.value


def test_in_plain_python_threads_take_turns(model):
    playground = playground_of(model)

    def move(seed):
        for i in range(10):
            playground.seed.value = 10 * seed + i
            playground.temperature.value = 0.5 + i / 10

    threads = [threading.Thread(target=move, args=[i]) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    playground.seed.value = 99
    assert playground.message.value == ""
    expected = generateV2(model, "the cat ", 30, seed=99, **playground.options)
    assert playground.results["all sliders together"] == expected


def test_after_the_loop_has_ended_all_is_done_at_once(model):
    async def cell():
        playground = playground_of(model)
        playground.temperature.value = 1.1  # and nobody waits for it
        return playground

    playground = asyncio.run(cell())
    playground.temperature.value = 0.6
    assert "<b>temperature 0.6</b>" in playground.texts.value
    assert "pending" not in playground.texts.value


def test_a_loop_that_stands_still_is_not_waited_for(model):
    async def cell():
        return playground_of(model)

    loop = asyncio.new_event_loop()
    try:
        playground = loop.run_until_complete(cell())
        playground.temperature.value = 0.6
        assert "<b>temperature 0.6</b>" in playground.texts.value
    finally:
        loop.close()


# --- a model that is trained while a widget reads it ----------------------------------------------


def trainer_of(model, corpus):
    """Updates too small to change anything, so that what is read stays what it was."""
    config = TrainConfig(max_steps=500, batch_size=2, lr=1e-30, weight_decay=0.0, device="cpu")
    return Trainer(model, corpus, config)


def modes(model):
    return {module.training for module in model.modules()}


@pytest.mark.parametrize("training", [True, False])
def test_a_widget_leaves_the_mode_of_the_model(mixture, training):
    mixture.train(training)
    sampling_playground(mixture, "the").temperature.value = 0.5
    routing_explorer(mixture, "the cat").drop.value = 1
    attention_explorer(mixture, "the cat").head.value = 1
    assert modes(mixture) == {training}


def test_a_training_between_the_slices_disturbs_nothing(mixture, corpus, monkeypatch):
    """The trainer keeps its mode and its dropout; the texts are those of eval mode."""
    monkeypatch.setattr(module, "SLICE", 0.002)
    trainer, seen, losses = trainer_of(mixture, corpus), [], []
    hook = mixture.register_forward_pre_hook(
        lambda model, _: seen.append((model is mixture, modes(model)))
    )

    async def cell():
        playground = sampling_playground(mixture, "the cat ")
        explorer = routing_explorer(mixture, "the cat sat")
        seen.clear()
        torch.manual_seed(7)
        playground.temperature.value, playground.length.value = 0.9, 100
        explorer.drop.value = 1
        slices = 0
        while "pending" in playground.texts.value + explorer.loss.value:
            losses.append(trainer.train_step())
            assert modes(mixture) == {True}
            slices += 1
            await asyncio.sleep(0)
        assert slices > 5
        return playground, explorer

    playground, explorer = asyncio.run(cell())
    hook.remove()
    assert modes(mixture) == {True}
    assert [mode for trained, mode in seen if trained] == [{True}] * len(losses)
    read_by_widgets = [mode for trained, mode in seen if not trained]
    assert read_by_widgets == [{False}] * len(read_by_widgets) != []
    quiet = trainer_of(mixture, corpus)
    torch.manual_seed(7)
    assert [quiet.train_step() for _ in losses] == losses  # the same dropout was drawn
    mixture.eval()
    for title, options in (("greedy", {"temperature": 0.0}), ("temperature 0.9", {})):
        options = {"temperature": 0.9} | options
        expected = generateV2(mixture, "the cat ", 100, seed=1, **options)
        assert playground.results[title] == expected
    tokens = torch.tensor(corpus.tokenizer.encode("the cat sat"))
    assert explorer.results["loss"] == read(mixture, tokens).loss


def test_a_widget_follows_the_weights(mixture):
    """What it reads with has a mode of its own, but no weights of its own, nor buffers."""
    playground = sampling_playground(mixture, "the cat ")
    with torch.no_grad():
        mixture.wpe.weight.add_(1)
    mixture.to(torch.float64)
    playground.prompt.value = "dog"
    assert playground.results["greedy"] == generateV2(mixture, "dog", 120, temperature=0.0)
    ours = dict(playground.model.named_parameters())
    assert all(ours[name] is p for name, p in mixture.named_parameters())
    assert playground.model.wte is not mixture.wte


# --- the work itself -----------------------------------------------------------------------------


def test_the_user_is_answered_between_slices(monkeypatch):
    monkeypatch.setattr(module, "SLICE", 0.01)

    async def main():
        ticks = []
        later = Later(lambda: (time.sleep(0.005) for _ in range(30)))
        later.start()
        while not later._task.done():
            ticks.append(1)
            await asyncio.sleep(0)
        return len(ticks)

    assert asyncio.run(main()) > 5


def test_only_the_newest_work_counts():
    done, number = [], iter(range(9))

    def work():
        mine = next(number)
        for _ in range(3):
            yield
        done.append(mine)

    async def main():
        later = Later(work)
        for _ in range(3):
            later.start()
        while not later._task.done():
            await asyncio.sleep(0)
        later.finish()

    asyncio.run(main())
    assert done == [2]


def test_work_that_starts_itself_or_asks_for_the_end_goes_on():
    done = []

    def work():
        done.append(len(done))
        if len(done) < 3:
            later.start()
        later.finish()
        yield
        done.append("end")

    later = Later(work)
    later.start()
    assert done == [0, 1, 2, "end"]


def test_an_unthought_of_error_is_drawn(model):
    playground = sampling_playground(model, "the cat ")
    picture = playground.picture.value
    playground._read.cache_clear()
    playground.model.blocks = None  # as bad as can be
    playground.prompt.value = "dog"
    assert "✕</b> TypeError: " in playground.message.value
    assert playground.picture.value == picture.replace("class='tg '", "class='tg old'")
    with pytest.raises(TypeError):
        playground.results  # noqa: B018


def test_an_error_in_a_slice_is_drawn(model, caplog):
    async def cell():
        playground = playground_of(model)

        def failing(length):
            yield
            raise ConfigError("<no> more")

        broken = Text(lambda: iter(()))
        broken.grow = failing
        playground._text = lambda *args: broken
        with no_complaint(caplog):
            playground.temperature.value = 1.9
            while playground.message.value == "":
                await asyncio.sleep(0.001)
        return playground

    playground = asyncio.run(cell())
    assert "&lt;no&gt; more" in playground.message.value
    assert "class='tg old'" in playground.texts.value


def test_a_text_that_was_broken_off_is_written_anew():
    """Ctrl-C ends a generator for good; the text is not lost."""

    class Once(list):
        def __bool__(self):
            return len(self) == 0

    interrupted = Once()

    def stream():
        yield 1
        if interrupted:
            interrupted.append(1)
            raise KeyboardInterrupt
        yield 2
        yield 3

    text = Text(stream)
    with pytest.raises(KeyboardInterrupt):
        list(text.grow(3))
    list(text.grow(3))
    assert text.tokens == [1, 2, 3]
