"""The routing explorer: which expert takes which token, and what is lost without it."""

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import ipywidgets as widgets
import torch
from torch import Tensor

from ..decoding import stream_tokens
from ..errors import ConfigError
from ..measure import CLASSES, Reading, classes, expert_layers, read, without_expert
from ..model import Routing, TinyGPT
from ..plots import Picture, plot_loads, plot_routing
from ..runtime import one_thread
from . import frame
from . import routing_chart as chart
from . import routing_figures as figures
from .inputs import check_finite, kind, reader, whole_number
from .live import Live, Text, drained
from .pages import Dial, View, states_page
from .passages import LONGEST, Passage, passages
from .routing_history import history

WRITTEN = 120  # tokens of a continuation
TRIED = 16  # up to so many experts, the text is read without each of them
LAST_STEP = 2**63 - 1
PICTURED = 300  # characters of a still picture
TYPED = "what is typed"


def _shown(routing: Routing) -> Routing:
    """The choices of each token, the heaviest first."""
    weights, order = routing.weights.sort(stable=True, descending=True)
    return replace(routing, weights=weights, experts=routing.experts.gather(-1, order))


@dataclass(frozen=True)
class Settings:
    """What the controls say, read once."""

    text: str
    source: str
    place: int  # of the layer among those with experts
    off: int  # the dropped expert, or -1
    seed: int
    step: int


class RoutingExplorer(Live):
    """Read a text, see each token's expert, and take an expert away.

    Picture and tables follow a control at once; losses and texts without an expert as soon as the
    notebook has a moment (without a notebook: at once); `finish` waits for them.

    The model's mode stays as it is. After training it further, make a new explorer.
    """

    about = (
        "The routing explorer: type a text, see which expert works on each token, and what is lost "
        "without one of them."
    )

    def __init__(
        self,
        model: TinyGPT,
        text: str | None = None,
        tables: dict[int, Tensor] | None = None,
        labels: Sequence[int] | None = None,
        label_names: Sequence[str] | None = None,
    ):
        self.model = reader(model)
        self.layers = expert_layers(model)
        tables = {} if tables is None else tables
        check(model, tables)
        self.tokenizer, self.tables = model.tokenizer, dict(sorted(tables.items()))
        self.unit = frame.unit(self.tokenizer)
        self.passages = passages(self.tokenizer, text, labels, label_names)
        self._read = lru_cache(256)(self._read)
        self._text = lru_cache(16)(self._text)  # each holds a KV cache
        self._history = lru_cache(64)(self._history)
        self._controls()
        self.picture, self.loss, self.figures, self.history = (widgets.HTML() for _ in range(4))
        pair = widgets.HBox([self.picture, self.loss])
        pair.add_class("tg-pair")
        pair.add_class("tg-routed")
        self.figures.add_class("tg-figures")
        views = [pair, self.figures, self.training, self.history]
        super().__init__([self.choice], views, chart.STYLE)
        controls = self.source, self.text, self.layer, self.drop, self.seed, self.step
        self._live_by(*controls)

    # --- controls --------------------------------------------------------------------------------

    def _controls(self) -> None:
        first = next(iter(self.passages.values())).text
        E = self.model.config.moe.n_experts
        self.source = widgets.Dropdown(options=[*self.passages, TYPED], description="show")
        self.text = widgets.Textarea(first, description="text", rows=3)
        self.layer = widgets.ToggleButtons(
            options=[(f"layer {name}", place) for place, name in enumerate(self.layers)],
            style={"button_width": "auto"},
        )
        self.drop = widgets.Dropdown(
            options=[("none", -1), *((f"expert {e}", e) for e in range(E))], description="drop"
        )
        self.seed = widgets.BoundedIntText(1, 0, 2**31 - 1, description="seed")
        steps = list(self.tables) or [0]
        self.step = widgets.SelectionSlider(options=steps, value=steps[-1], description="step")
        controls = self.text, self.source, self.drop, self.layer, self.seed
        self.choice, self.training = widgets.Box(controls), widgets.Box([self.step])
        self.choice.add_class("tg-choice")
        self.training.layout.display = None if self.tables else "none"
        for control in (self.source, self.text, self.drop, self.seed, self.step):
            control.style.description_width = "3em"
        self.step.layout.width = "420px"

    def _follow(self, change) -> None:
        if change["owner"] is self.source and self.source.value != TYPED:
            self.text.value = self.passages[self.source.value].text
        elif change["owner"] is self.text:
            same = (name for name, p in self.passages.items() if p.text == self.text.value)
            self.source.value = next(same, TYPED)

    def _settings(self) -> Settings:
        with self._later.lock:
            return Settings(
                self.text.value,
                self.source.value,
                place=self.layer.value,
                off=self.drop.value,
                seed=self.seed.value,
                step=self.step.value,
            )

    # --- what the model says ---------------------------------------------------------------------

    def _read(self, text: str, place: int = 0, expert: int = -1) -> Reading:
        """The text as the model reads it, without one expert of one layer if it is not -1."""
        model = without_expert(self.model, place, expert) if expert >= 0 else self.model
        with one_thread(model.device.type == "cpu"):
            reading = read(model, torch.tensor(self.tokenizer.encode(text)))
        check_finite(reading.nats, "the surprise of a token")
        return replace(reading, routings=[_shown(routing) for routing in reading.routings])

    def _text(self, prompt: str, seed: int, place: int = 0, expert: int = -1) -> Text:
        model = without_expert(self.model, place, expert) if expert >= 0 else self.model
        return Text(lambda: stream_tokens(model, prompt, WRITTEN, seed=seed, temperature=0.8))

    @property
    def results(self) -> dict[str, float | str]:
        """Loss and continuation with all experts, and without the dropped one if there is one.

        Waits until they are there. Raises the error that is shown, if there is one.
        """
        return dict(self._found())

    # --- drawing ---------------------------------------------------------------------------------

    def _work(self) -> Iterator[None]:
        """Draw the routing; read and write without each expert, and draw that."""
        now = self._settings()
        if self.tables:
            self.history.value = frame.box(self._history(now.place, now.step))
        self._check_text(now.text)
        self._draw_routing(now)
        self._wait(self.loss)
        yield
        lost, texts = yield from self._without(now)
        self._show(self.loss, self._loss_in_words(now, lost, texts))
        self._results = self._summary(now, texts)

    def _without(self, now: Settings) -> Generator[None, None, tuple[list[float], list[list[int]]]]:
        """What is lost without each expert, and how the text goes on, yielding meanwhile."""
        text, place, off = now.text, now.place, now.off
        whole, lost = self._read(text), []
        E = self.model.config.moe.n_experts
        for e in range(E if E <= TRIED else 0):
            lost.append(self._read(text, place, e).loss - whole.loss)
            yield
        wanted = [self._text(text, now.seed)]
        if off >= 0:
            wanted.append(self._text(text, now.seed, place, off))
        for each in wanted:
            for _ in each.grow(WRITTEN):
                yield
        return lost, [each.tokens[:WRITTEN] for each in wanted]

    def _summary(self, now: Settings, texts: list[list[int]]) -> dict[str, float | str]:
        written = [now.text + self.tokenizer.decode(tokens) for tokens in texts]
        found = {"loss": self._read(now.text).loss, "text": written[0]}
        if now.off >= 0:
            found["loss without"] = self._read(now.text, now.place, now.off).loss
            found["text without"] = written[1]
        return found

    def _check_text(self, text: str) -> None:
        n = len(self.tokenizer.encode(text))
        if not 2 <= n <= LONGEST:
            raise ConfigError(f"the text has length {n}; it needs 2 to {LONGEST} {self.unit}s.")

    def still(self) -> Picture:
        """The experts of the text as a figure; where tokens are more than characters, the load."""
        with self._later.lock:
            now = self._settings()
            routing = self._read(now.text).routings[now.place]
        title, E = self._name(now.place).capitalize(), routing.probs.shape[-1]
        if self.unit == "token":
            return plot_loads(routing.load(), [title])
        n = min(PICTURED, len(now.text))
        experts, weights = (x[0, :n].cpu().numpy() for x in (routing.experts, routing.weights))
        return plot_routing(now.text[:n], experts, weights, E, title)

    def _passage(self, now: Settings) -> Passage:
        """The text with its labels: those of the source that is shown, if it is that text."""
        passage = self.passages.get(now.source)
        return passage if passage and passage.text == now.text else Passage(now.text)

    def _draw_routing(self, now: Settings) -> None:
        tiles, below = self._routing(now)
        self._show(self.picture, tiles)
        self._show(self.figures, below)

    def _routing(self, now: Settings) -> tuple[str, str]:
        """The tiles, and the figures below them."""
        reading, passage = self._read(now.text), self._passage(now)
        pieces = [self.tokenizer.pieces[token] for token in self.tokenizer.encode(now.text)]
        routing = reading.routings[now.place]
        chosen = pieces, routing.experts[0], routing.weights[0], routing.probs.shape[-1]
        labels, n_choices = classes(pieces), routing.experts.shape[-1]
        load = "Load, and an even one (dashed)", figures.loads(routing.load())
        rows = figures.layers(reading.routings, self.layers, labels, now.place)
        by_class = self._crosstab(routing, labels, CLASSES, "character class")
        tables = [("Character classes", by_class)]
        if passage.labels and max(passage.labels) >= 0:
            styles = torch.tensor(passage.labels)
            tables.append(("Styles", self._crosstab(routing, styles, passage.label_names, "style")))
        legend = chart.legend(n_choices, now.off, self.unit)
        parts = (
            f"<p><b>{self._name(now.place).capitalize()}</b>: {legend}</p>",
            chart.tiles(*chosen, now.off, self.unit),
            chart.facts(*chosen, passage.names, self.unit),
        )
        return "".join(parts), figures.parts(load, ("All layers", rows), *tables)

    def _crosstab(self, routing: Routing, labels: Tensor, names: Sequence[str], what: str) -> str:
        table = routing.table(labels[None], len(names))
        return figures.crosstab(table, names) + figures.information(table, what, self.unit)

    def _name(self, place: int) -> str:
        return f"layer {self.layers[place]}"

    def _loss_in_words(self, now: Settings, lost: list[float], texts: list[list[int]]) -> str:
        name, off = self._name(now.place), now.off
        whole, names = self._read(now.text), ["all experts", f"without expert {off}"]
        if off < 0:
            title = f"Loss on this text, and how it goes on: {whole.loss:.3f} nats per "
            title += f"{self.unit}. Drop an expert: its output counts as 0."
        else:
            mine = (whole.routings[now.place].experts[0, :-1] == off).any(-1)
            nats = self._read(now.text, now.place, off).nats
            words = figures.damage(whole.nats, nats, mine, self.unit)
            title = f"<b>{name.capitalize()} without expert {off}</b>: {words}"
        heading = f"Nats per {self.unit} lost without it, {name}"
        without = texts[-1] if off >= 0 else None
        compared = frame.comparison(self.tokenizer, now.text, texts[0], without, names)
        note = f"How the text goes on (temperature 0.8, seed {now.seed})"
        tried = [(heading, figures.worth(lost))] if lost else []
        return f"<p>{title}</p>" + figures.parts(*tried, (note, compared))

    def _save_page(self, path: Path) -> Path:
        """Each text with each layer, with and without each expert, drawn beforehand."""
        now = self._settings()
        texts = [(name, passage.text) for name, passage in self.passages.items()]
        if now.source == TYPED:
            texts = [(TYPED, now.text), *texts]
        names = [name for name, _ in texts]

        def at(text: int, layer: int, drop: int = 0) -> Settings:
            source, content = texts[text]
            return replace(now, source=source, text=content, place=layer, off=drop - 1)

        def loss(text: int, layer: int, drop: int) -> str:
            here = at(text, layer, drop)
            return self.box(self._loss_in_words(here, *drained(self._without(here))))

        dials = [
            Dial("text", names, names.index(now.source)),
            Dial("layer", list(map(str, self.layers)), now.place),
            Dial("drop", [name for name, _ in self.drop.options], now.off + 1),
        ]
        views = [
            View((0, 1, 2), lambda *places: self.box(self._routing(at(*places))[0])),
            View((0, 1, 2), loss),
            View((0, 1), lambda *places: self.box(self._routing(at(*places))[1])),
        ]
        if steps := list(self.tables):
            dials.append(Dial("step", list(map(str, steps)), steps.index(now.step), slides=True))
            views.append(View((1, 3), lambda n, i: self.box(self._history(n, steps[i]))))
        return states_page(path, self.about, chart.STYLE, (dials, views))

    def _history(self, place: int, step: int) -> str:
        tables = {at: table[place] for at, table in self.tables.items()}
        title = f"<p><b>{self._name(place).capitalize()} during training</b>, on validation text, "
        title += f"at step {step}</p>"
        return title + history(tables, step, self.tokenizer.pieces, self.unit)


def routing_explorer(
    model: TinyGPT,
    text: str | None = None,
    tables: dict[int, Tensor] | None = None,
    labels: Sequence[int] | None = None,
    label_names: Sequence[str] | None = None,
) -> RoutingExplorer:
    """Which expert takes which token, and what is lost without it; see `RoutingExplorer`.

    tables: what `checkpoint.load_expert_tables(run)` or `trainer.expert_tables` recorded during
    training. labels: a number from 0 (-1: none) for each token of the text, such as its
    speaking style; label_names: what they mean.
    """
    return RoutingExplorer(model, text, tables, labels, label_names)


def check(model: TinyGPT, tables: Mapping[int, Tensor]) -> None:
    """What cannot be shown is refused with a `ConfigError`."""
    if not (layers := expert_layers(model)):
        raise ConfigError("this model has no experts; build it with ModelConfig(moe=MoEConfig())")
    if not isinstance(tables, Mapping):
        raise ConfigError(
            f"tables must be a dict of steps and tensors, not {kind(tables)}; take a trainer's "
            f"expert_tables"
        )
    wanted = len(layers), model.config.vocab_size, model.config.moe.n_experts
    for step, table in tables.items():
        check_table(step, table, wanted)


def check_table(step: int, table: Tensor, wanted: tuple[int, ...]) -> None:
    """Raise `ConfigError` unless these are counts of this shape."""
    whole_number("the step of a table", step, 0, LAST_STEP)
    if not isinstance(table, Tensor):
        raise ConfigError(f"the table of step {step} must be a tensor, not {kind(table)}")
    if table.shape != wanted:
        raise ConfigError(
            f"the table of step {step} has shape {tuple(table.shape)}, this model has "
            f"(layers, V, E) = {wanted}; take the tables of its own run"
        )
    counts = table.flatten(1)
    if not (counts.isfinite().all() and (counts >= 0).all() and (counts.sum(1) > 0).all()):
        raise ConfigError(
            f"the table of step {step} must hold counts from 0 on, some of them in each layer; "
            f"take the tables of a run"
        )
