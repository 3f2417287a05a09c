"""The routing explorer: which expert takes which character, and what is lost without it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import ipywidgets as widgets
import torch
from torch import Tensor

from ..decoding import stream
from ..errors import ConfigError, UnknownCharacterError
from ..measure import Reading, expert_layers, read, without_expert
from ..model import Routing, TinyGPT
from ..runtime import one_thread
from ..text import STYLES, write_plays
from . import frame
from . import routing_chart as draw
from .frame import Later, Text

LONGEST = 600  # characters of a text
WRITTEN = 120  # characters of a continuation
TRIED = 16  # up to so many experts, the text is read without each of them
TYPED = "what is typed below"
PASSAGE = (
    "CLERK:\nGood morrow, sir. Was it you who called?\n\n"
    "SAILOR:\nAye! Twice, in the rain; and nobody heard.\n\n"
    "CLERK:\nThen come in, and tell us the news of the harbour.\n"
)


@dataclass(frozen=True)
class Passage:
    """A text, and if known the label of each of its characters (-1: none)."""

    text: str
    labels: tuple[int, ...] | None = None
    label_names: tuple[str, ...] = ()

    @property
    def names(self) -> list[str] | None:
        """The label of each character, in words."""
        if self.labels is None:
            return None
        return [self.label_names[i] if i >= 0 else "–" for i in self.labels]


def _shown(routing: Routing) -> Routing:
    """The choices of each token, the heaviest first."""
    weights, order = routing.weights.sort(stable=True, descending=True)
    return replace(routing, weights=weights, experts=routing.experts.gather(-1, order))


class RoutingExplorer(widgets.VBox):
    """Read a text, see each character's expert, and take an expert away.

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
        self.passages = passages(self.tokenizer.characters, text, labels, label_names)
        self._read = lru_cache(256)(self._read)
        self._text = lru_cache(16)(self._text)  # each holds a KV cache
        self._pictures = ["", ""]  # the last good ones
        self._later = Later()
        self._controls()
        self.message, self.picture, self.loss, self.history = (widgets.HTML() for _ in range(4))
        style = widgets.HTML(frame.STYLE + draw.STYLE)
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
        return Text(stream(model, prompt, WRITTEN, seed=seed, temperature=0.8))

    @property
    def results(self) -> dict[str, float | str]:
        """Loss and continuation with all experts, and without the dropped one if there is one."""
        self.finish()
        text, place, expert = self.text.value, self.layer.value, self.drop.value
        found = {
            "loss": self._read(text).loss,
            "text": text + self._text(text, self.seed.value).text,
        }
        if expert >= 0:
            cut = self._text(text, self.seed.value, place, expert)
            found["loss without"] = self._read(text, place, expert).loss
            found["text without"] = text + cut.text
        return found

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
        text = self.text.value
        if not 2 <= len(text) <= LONGEST:
            raise ConfigError(
                f"the text has length {len(text)}; it needs 2 to {LONGEST} characters."
            )
        try:
            self.tokenizer.encode(text)
        except UnknownCharacterError as error:
            unknown = ", ".join(map(repr, error.unknown))
            raise ConfigError(f"the model does not know {unknown}; take it out.") from error

    def _draw_routing(self) -> None:
        text, place, off = self.text.value, self.layer.value, self.drop.value
        reading, passage = self._read(text), self.passages.get(self.source.value, Passage(text))
        routing = reading.routings[place]
        chosen = text, routing.experts[0], routing.weights[0], routing.probs.shape[-1]
        labels = draw.classes(text)
        load = "Load, and an even one (dashed)", draw.loads(routing.load())
        rows = draw.layers(reading.routings, expert_layers(self.model), labels, place)
        tables = [("Character classes", _crosstab(routing, labels, draw.CLASSES))]
        if passage.labels:
            styles = torch.tensor(passage.labels)
            tables.append(("Styles", _crosstab(routing, styles, passage.label_names)))
        self._pictures[0] = "".join(
            (
                f"<p><b>{self._layer_name.capitalize()}</b>: {_legend(routing, off)}</p>",
                draw.tiles(*chosen, off),
                draw.parts(load, ("All layers", rows)),
                draw.parts(*tables),
                draw.facts(*chosen, passage.names),
            )
        )
        self.picture.value = frame.box(self._pictures[0])
        self.message.value = ""

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
        self._draw_loss(lost, [each.text for each in wanted])

    def _draw_loss(self, lost: list[float], texts: list[str]) -> None:
        text, place, expert = self.text.value, self.layer.value, self.drop.value
        whole, names = self._read(text), ["all experts", f"without expert {expert}"]
        if expert < 0:
            words = f"{whole.loss:.3f} nats per character. Drop an expert: its output counts as 0."
            title = f"Loss on this text, and how it goes on: {words}"
        else:
            mine = (whole.routings[place].experts[0, :-1] == expert).any(-1)
            words = draw.damage(whole.nats, self._read(text, place, expert).nats, mine)
            title = f"<b>{self._layer_name.capitalize()} without expert {expert}</b>: {words}"
        heading = f"Nats per character lost without it, {self._layer_name}"
        compared = draw.comparison(text, texts[0], texts[-1] if expert >= 0 else None, names)
        note = f"How the text goes on (temperature 0.8, seed {self.seed.value})"
        tried = [(heading, draw.worth(lost))] if lost else []
        self._pictures[1] = f"<p>{title}</p>" + draw.parts(*tried, (note, compared))
        self.loss.value = frame.box(self._pictures[1])

    def _draw_history(self, change=None) -> None:
        if not self.tables:
            return
        tables = {step: table[self.layer.value] for step, table in self.tables.items()}
        title = f"<p><b>{self._layer_name.capitalize()} during training</b>, on validation text, "
        title += f"at step {self.step.value}</p>"
        shown = draw.history(tables, self.step.value, self.tokenizer.characters)
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
    """Which expert takes which character, and what is lost without it; see `RoutingExplorer`.

    tables: what `checkpoint.load_expert_tables(run)` or `trainer.expert_tables` recorded during
    training. labels: a number from 0 (-1: none) for each character of the text, such as its
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


def passages(
    alphabet: str,
    text: str | None = None,
    labels: Sequence[int] | None = None,
    label_names: Sequence[str] | None = None,
) -> dict[str, Passage]:
    """The texts to choose from, those that the alphabet can write; there is always one."""
    found = {}
    if text is not None:
        found["the given text"] = Passage(text, *_labelled(text, labels, label_names))
    written = "".join(c for c in PASSAGE if c in alphabet)
    enough = len(written) > len(PASSAGE) / 2
    found["a short passage"] = Passage(written if enough else (2 * alphabet)[:LONGEST])
    scene = tinyplays_scene()
    if set(scene.text) <= set(alphabet):
        found["a tinyplays scene, with its speaking styles"] = scene
    return found


def _labelled(
    text: str, labels: Sequence[int] | None, names: Sequence[str] | None
) -> tuple[tuple[int, ...] | None, tuple[str, ...]]:
    if labels is None:
        return None, ()
    labels = tuple(int(label) for label in labels)
    if len(labels) != len(text):
        raise ConfigError(f"{len(labels)} labels, but the text has {len(text)} characters")
    highest = max(labels, default=-1)
    names = tuple(names or map(str, range(highest + 1)))
    if highest >= len(names):
        raise ConfigError(f"label {highest} has no name; label_names has {len(names)}")
    return labels, names


@lru_cache(1)
def tinyplays_scene() -> Passage:
    """The beginning of a scene, up to the end of a speech, with the style of each character."""
    plays = write_plays(4_000, seed=3)
    start = plays.text.index("SCENE I.")
    stop = plays.text.rindex("\n\n", start, start + LONGEST) + 2
    styles = tuple(plays.style[start:stop].tolist())
    return Passage(plays.text[start:stop], styles, STYLES)


def _crosstab(routing: Routing, labels: Tensor, names: Sequence[str]) -> str:
    table = routing.table(labels[None], len(names))
    name = "character class" if names is draw.CLASSES else "style"
    return draw.crosstab(table, names) + draw.information(table, name)


def _legend(routing: Routing, off: int) -> str:
    """How to read the tiles."""
    words = "each character with the number and colour of its expert; the deeper the colour, the "
    words += "larger the gate's weight"
    if routing.experts.shape[-1] > 1:
        words += "; the line below: its second expert"
    return words + (f"; hatched: expert {off}, dropped." if off >= 0 else ".")


def _column(*controls: widgets.Widget) -> widgets.VBox:
    return widgets.VBox(controls, layout={"max_width": "1000px"})
