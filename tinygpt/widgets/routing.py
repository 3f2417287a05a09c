"""The routing explorer: which expert takes which token, and what is lost without it."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache

import ipywidgets as widgets
import torch
from torch import Tensor

from ..decoding import stream_tokens
from ..errors import ConfigError, UnknownCharacterError
from ..measure import Reading, expert_layers, read, without_expert
from ..model import Routing, TinyGPT
from ..runtime import one_thread
from . import frame
from . import routing_chart as chart
from . import routing_figures as figures
from .frame import Later, Text
from .passages import LONGEST, Passage, passages
from .routing_history import history

WRITTEN = 120  # tokens of a continuation
TRIED = 16  # up to so many experts, the text is read without each of them
TYPED = "what is typed below"


def _shown(routing: Routing) -> Routing:
    """The choices of each token, the heaviest first."""
    weights, order = routing.weights.sort(stable=True, descending=True)
    return replace(routing, weights=weights, experts=routing.experts.gather(-1, order))


class RoutingExplorer(widgets.VBox):
    """Read a text, see each token's expert, and take an expert away.

    Picture and tables follow a control at once; losses and texts without an expert as soon as the
    notebook has a moment (without a notebook: at once); `finish` waits for them.

    The model is put in eval mode. After training it further, make a new explorer.
    """

    def __init__(
        self,
        model: TinyGPT,
        text: str | None = None,
        tables: dict[int, Tensor] | None = None,
        labels: Sequence[int] | None = None,
        label_names: Sequence[str] | None = None,
    ):
        check(model, tables)
        self.model, self.tokenizer, self.tables = model.eval(), model.tokenizer, tables or {}
        self.unit = frame.unit(self.tokenizer)
        self.passages = passages(self.tokenizer, text, labels, label_names)
        self._read = lru_cache(256)(self._read)
        self._text = lru_cache(16)(self._text)  # each holds a KV cache
        self._pictures = ["", ""]  # the last good ones
        self._later = Later()
        self._controls()
        self.message, self.picture, self.loss, self.history = (widgets.HTML() for _ in range(4))
        style = widgets.HTML(frame.STYLE + chart.STYLE)
        views = [self.message, self.picture, self.without, self.loss, self.training, self.history]
        super().__init__([style, self.choice, *views])
        self._update()
        self.finish()
        self._observe()

    # --- controls --------------------------------------------------------------------------------

    def _controls(self) -> None:
        first = next(iter(self.passages.values())).text
        names, E = expert_layers(self.model), self.model.config.moe.n_experts
        self.source = widgets.Dropdown(options=[*self.passages, TYPED], description="show")
        self.text = widgets.Textarea(first, description="text", rows=4)
        self.layer = widgets.ToggleButtons(
            options=[(f"layer {name}", place) for place, name in enumerate(names)],
            style={"button_width": "auto"},
        )
        self.drop = widgets.Dropdown(
            options=[("none", -1), *((f"expert {e}", e) for e in range(E))], description="drop"
        )
        self.seed = widgets.BoundedIntText(1, 0, 2**31 - 1, description="seed")
        steps = list(self.tables) or [0]
        self.step = widgets.SelectionSlider(options=steps, value=steps[-1], description="step")
        self.choice = _column(self.source, self.text, self.layer)
        self.without = widgets.HBox([self.drop, self.seed])
        self.training = _column(self.step)
        self.training.layout.display = None if self.tables else "none"
        for control in (self.source, self.text, self.drop, self.seed, self.step):
            control.style.description_width = "4em"
        self.text.layout.width = "auto"
        self.source.layout.width = self.step.layout.width = "420px"

    def _observe(self) -> None:
        self.source.observe(self._choose, names="value")
        self.text.observe(self._typed, names="value")
        for control in (self.layer, self.drop, self.seed):
            control.observe(self._update, names="value")
        self.step.observe(self._draw_history, names="value")

    def _choose(self, change) -> None:
        if self.source.value != TYPED:
            self.text.value = self.passages[self.source.value].text

    def _typed(self, change) -> None:
        same = (name for name, p in self.passages.items() if p.text == self.text.value)
        self.source.value = next(same, TYPED)
        self._update()

    # --- what the model says ---------------------------------------------------------------------

    def _read(self, text: str, place: int = 0, expert: int = -1) -> Reading:
        """The text as the model reads it, without one expert of one layer if it is not -1."""
        model = without_expert(self.model, place, expert) if expert >= 0 else self.model
        with one_thread(model.device.type == "cpu"):
            reading = read(model, torch.tensor(self.tokenizer.encode(text)))
        return replace(reading, routings=[_shown(routing) for routing in reading.routings])

    def _text(self, prompt: str, seed: int, place: int = 0, expert: int = -1) -> Text:
        model = without_expert(self.model, place, expert) if expert >= 0 else self.model
        return Text(stream_tokens(model, prompt, WRITTEN, seed=seed, temperature=0.8))

    def _pieces(self, text: str) -> list[str]:
        """Each token of a text as it is shown."""
        return [self.tokenizer.pieces[token] for token in self.tokenizer.encode(text)]

    @property
    def results(self) -> dict[str, float | str]:
        """Loss and continuation with all experts, and without the dropped one if there is one."""
        self.finish()
        text, place, expert = self.text.value, self.layer.value, self.drop.value
        whole = self._text(text, self.seed.value)
        found = {"loss": self._read(text).loss, "text": text + self._decoded(whole)}
        if expert >= 0:
            cut = self._text(text, self.seed.value, place, expert)
            found["loss without"] = self._read(text, place, expert).loss
            found["text without"] = text + self._decoded(cut)
        return found

    def _decoded(self, text: Text) -> str:
        return self.tokenizer.decode(text.tokens)

    # --- drawing ---------------------------------------------------------------------------------

    def _update(self, change=None) -> None:
        """Draw the routing at once, and let what takes time follow."""
        self._draw_history()
        try:
            self._check_text()
            self._draw_routing()
        except ValueError as error:
            self._complain(error)
        else:
            self._follow()

    def _check_text(self) -> None:
        try:
            n = len(self.tokenizer.encode(self.text.value))
        except UnknownCharacterError as error:
            unknown = ", ".join(map(repr, error.unknown))
            raise ConfigError(f"the model does not know {unknown}; take it out.") from error
        if not 2 <= n <= LONGEST:
            raise ConfigError(f"the text has length {n}; it needs 2 to {LONGEST} {self.unit}s.")

    def _draw_routing(self) -> None:
        text, place, off = self.text.value, self.layer.value, self.drop.value
        reading, passage = self._read(text), self.passages.get(self.source.value, Passage(text))
        routing, pieces = reading.routings[place], self._pieces(text)
        chosen = pieces, routing.experts[0], routing.weights[0], routing.probs.shape[-1]
        labels, n_choices = chart.classes(pieces), routing.experts.shape[-1]
        load = "Load, and an even one (dashed)", figures.loads(routing.load())
        rows = figures.layers(reading.routings, expert_layers(self.model), labels, place)
        by_class = self._crosstab(routing, labels, chart.CLASSES, "character class")
        tables = [("Character classes", by_class)]
        if passage.labels:
            styles = torch.tensor(passage.labels)
            tables.append(("Styles", self._crosstab(routing, styles, passage.label_names, "style")))
        legend = chart.legend(n_choices, off, self.unit)
        self._pictures[0] = "".join(
            (
                f"<p><b>{self._layer_name.capitalize()}</b>: {legend}</p>",
                chart.tiles(*chosen, off, self.unit),
                figures.parts(load, ("All layers", rows)),
                figures.parts(*tables),
                chart.facts(*chosen, passage.names, self.unit),
            )
        )
        self.picture.value = frame.box(self._pictures[0])
        self.message.value = ""

    def _crosstab(self, routing: Routing, labels: Tensor, names: Sequence[str], what: str) -> str:
        table = routing.table(labels[None], len(names))
        return figures.crosstab(table, names) + figures.information(table, what, self.unit)

    @property
    def _layer_name(self) -> str:
        return self.layer.options[self.layer.value][0]

    def _take_away(self) -> Iterator[None]:
        """Read and write without each expert, yield in between; then draw it."""
        text, place, expert = self.text.value, self.layer.value, self.drop.value
        whole, lost = self._read(text), []
        E = self.model.config.moe.n_experts
        for e in range(E if E <= TRIED else 0):
            lost.append(self._read(text, place, e).loss - whole.loss)
            yield
        wanted = [self._text(text, self.seed.value)]
        if expert >= 0:
            wanted.append(self._text(text, self.seed.value, place, expert))
        for each in wanted:
            yield from each.grow(WRITTEN)
        self._draw_loss(lost, [each.tokens for each in wanted])

    def _draw_loss(self, lost: list[float], texts: list[list[int]]) -> None:
        text, place, expert = self.text.value, self.layer.value, self.drop.value
        whole, names = self._read(text), ["all experts", f"without expert {expert}"]
        if expert < 0:
            title = f"Loss on this text, and how it goes on: {whole.loss:.3f} nats per "
            title += f"{self.unit}. Drop an expert: its output counts as 0."
        else:
            mine = (whole.routings[place].experts[0, :-1] == expert).any(-1)
            nats = self._read(text, place, expert).nats
            words = figures.damage(whole.nats, nats, mine, self.unit)
            title = f"<b>{self._layer_name.capitalize()} without expert {expert}</b>: {words}"
        heading = f"Nats per {self.unit} lost without it, {self._layer_name}"
        without = texts[-1] if expert >= 0 else None
        compared = figures.comparison(self.tokenizer, text, texts[0], without, names)
        note = f"How the text goes on (temperature 0.8, seed {self.seed.value})"
        tried = [(heading, figures.worth(lost))] if lost else []
        self._pictures[1] = f"<p>{title}</p>" + figures.parts(*tried, (note, compared))
        self.loss.value = frame.box(self._pictures[1])

    def _draw_history(self, change=None) -> None:
        if not self.tables:
            return
        tables = {step: table[self.layer.value] for step, table in self.tables.items()}
        title = f"<p><b>{self._layer_name.capitalize()} during training</b>, on validation text, "
        title += f"at step {self.step.value}</p>"
        shown = history(tables, self.step.value, self.tokenizer.pieces, self.unit)
        self.history.value = frame.box(title + shown)

    def _follow(self) -> None:
        """Let the rest follow: at once, or in slices if a notebook has other things to do."""
        if self._later.start(self._take_away):
            self.loss.value = frame.box(self._pictures[1], "pending")

    def finish(self) -> None:
        """Do at once what is still being done."""
        self._later.finish()

    def _complain(self, error: ValueError) -> None:
        """Say what is wrong; what was drawn last stays, pale."""
        self._later.stop()
        self.message.value = frame.error_line(str(error), drawn=any(self._pictures))
        for view, last in zip((self.picture, self.loss), self._pictures, strict=True):
            view.value = frame.box(last, "old") if last else ""


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


def check(model: TinyGPT, tables: dict[int, Tensor] | None) -> None:
    """What cannot be shown is refused with a `ConfigError`."""
    if model.tokenizer is None:
        raise ConfigError("this model has no tokenizer; set model.tokenizer")
    if not (layers := expert_layers(model)):
        raise ConfigError("this model has no experts; build it with ModelConfig(moe=MoEConfig())")
    wanted = len(layers), model.config.vocab_size, model.config.moe.n_experts
    for step, table in (tables or {}).items():
        if table.shape != wanted:
            raise ConfigError(
                f"the table of step {step} has shape {tuple(table.shape)}, this model has "
                f"(layers, V, E) = {wanted}; take the tables of its own run"
            )


def _column(*controls: widgets.Widget) -> widgets.VBox:
    return widgets.VBox(controls, layout={"max_width": "1000px"})
