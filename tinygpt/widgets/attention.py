"""The attention explorer: what each token reads, head by head, and what is lost without a head."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from pathlib import Path

import ipywidgets as widgets
import numpy as np
import torch

from ..decoding import stream_tokens
from ..errors import ConfigError
from ..measure import map_figures, read, without_heads
from ..model import TinyGPT
from ..plots import Picture, plot_attention
from ..runtime import one_thread
from . import attention_chart as chart
from . import frame
from .attention_maps import Maps, read_maps
from .inputs import check_text, reader
from .live import Live, Text
from .pages import Dial, View, states_page
from .passages import short_passage
from .pictures import save_picture, where

LONGEST = 256  # tokens of a text
WRITTEN = 120  # tokens of a continuation
TRIED = 64  # up to so many heads, the text is read without each of them
TEXT = "ANN:\nWho is there?\n\nBEN:\nIt is I, Ann."
MEAN = -1  # of all heads of a layer
Heads = tuple[tuple[int, int], ...]  # layers and heads
Worth = dict[tuple[int, int], float]  # nats per token that are lost without a head


@dataclass(frozen=True)
class Settings:
    """What the controls say, read once."""

    text: str
    layer: int
    head: int  # or MEAN
    scores: bool  # before the softmax
    place: int  # of the token whose reading is shown
    switched: bool  # off: the head that is shown, or all of the layer
    seed: int
    n_head: int

    @property
    def name(self) -> str:
        """Of the map that is shown."""
        return f"layer {self.layer}, {'mean of heads' if self.head == MEAN else self.head_name}"

    @property
    def head_name(self) -> str:
        return "all heads" if self.head == MEAN else f"head {self.head}"

    @property
    def off(self) -> Heads:
        """The heads without which the text is read and written."""
        heads = range(self.n_head) if self.head == MEAN else [self.head]
        return tuple((self.layer, head) for head in heads) if self.switched else ()


class AttentionExplorer(Live):
    """Choose a layer and a head, or the mean of its heads, and a token; see what it reads.

    Pictures, always of the whole model, follow a control at once; losses and texts without a head
    as soon as the notebook has a moment (without a notebook: at once); `finish` waits for them. Of
    a text that is longer than the model's block, or than 256 tokens, the beginning is read.

    The model's mode stays as it is. After training it further, make a new explorer.
    """

    about = (
        "The attention explorer: choose a layer, a head and a token, see what it reads, and what "
        "is lost without that head."
    )

    def __init__(self, model: TinyGPT, text: str | None = None):
        self.model = reader(model)
        self.tokenizer = self.model.tokenizer
        self.unit = frame.unit(self.tokenizer)
        text = short_passage(self.tokenizer, TEXT)[: len(TEXT)] if text is None else text
        check_text("text", text)
        self._maps = lru_cache(2)(self._maps)
        self._loss = lru_cache(512)(self._loss)
        self._text = lru_cache(16)(self._text)  # each holds a KV cache
        self._controls(text, len(self._maps(text).tokens) - 1)
        self._wanted: str | None = None  # the kind of file that is to be saved
        self._worth: tuple[str, Worth] = "", {}  # of the heads for a text
        self._counted: tuple | None = None  # the text, heads and seed of the losses that are shown
        self.wall, self.view, self.loss = (widgets.HTML() for _ in range(3))
        side_by_side = widgets.HBox([self.wall, self.view])
        side_by_side.add_class("tg-views")
        self.loss.add_class("tg-after")
        super().__init__([self.panel], [side_by_side, self.loss], chart.STYLE)
        self._live_by(*self.controls)

    # --- controls --------------------------------------------------------------------------------

    def _controls(self, text: str, last: int) -> None:
        L, H = self.model.config.n_layer, self.model.config.n_head
        self.text = widgets.Textarea(text, description="text", rows=3)
        # sliders, not menus: the next one is a key away
        self.layer = frame.slider("layer", 0, 0, L - 1)
        heads = [*((str(h), h) for h in range(H)), ("mean", MEAN)]
        self.head = widgets.SelectionSlider(options=heads, value=0, description="head")
        self.scores = widgets.ToggleButtons(
            options=[("weights", False), ("scores", True)], tooltips=["after the softmax", "before"]
        )
        self.query = frame.slider(self.unit, last, 0, last)
        self.off = widgets.ToggleButton(
            description="switch it off", tooltip="this head; with the mean, all of its layer"
        )
        self.seed = widgets.BoundedIntText(1, 0, 2**31 - 1, description="seed")
        first = self.text, self.layer, self.head, self.scores, self.query
        self.controls = *first, self.off, self.seed  # in the order of `Settings`
        self.png, self.svg = map(self._save_button, ("png", "svg"))
        self.saved = widgets.HTML()
        self._lay_out()

    def _save_button(self, kind: str) -> widgets.Button:
        name = kind.upper()
        button = widgets.Button(description=f"save {name}", tooltip="the large map as a file")
        button.on_click(lambda _: self._save_as(kind))
        return button

    def _lay_out(self) -> None:
        first = self.text, self.layer, self.head, self.off
        files = widgets.HBox([self.png, self.svg])
        self.panel = widgets.Box([*first, self.scores, self.seed, files, self.query, self.saved])
        self.panel.add_class("tg-attention")
        self.text.add_class("tg-text")
        self.query.add_class("tg-wide")
        self.saved.add_class("tg-saved")
        for control in (self.text, self.layer, self.head, self.seed, self.query):
            control.style.description_width = "5em"

    def _follow(self, change) -> None:
        if change["owner"] is self.text:
            try:
                last = len(self._tokens(self.text.value)) - 1
            except ValueError:
                return  # the work will say so
            at_the_end = self.query.value == self.query.max
            self.query.max, self.query.disabled = last, last == 0
            self.query.value = last if at_the_end else self.query.value

    def _settings(self) -> Settings:
        with self._later.lock:
            values = (control.value for control in self.controls)
            return Settings(*values, self.model.config.n_head)

    # --- what the model says ---------------------------------------------------------------------

    def _tokens(self, text: str) -> list[int]:
        """Those of the text that are read."""
        tokens = self.tokenizer.encode(text)
        if not tokens:
            raise ConfigError("the text is empty; give at least one character")
        return tokens[: min(LONGEST, self.model.config.block_size)]

    def _maps(self, text: str) -> Maps:
        return read_maps(self.model, self._tokens(text))

    def _loss(self, text: str, off: Heads = ()) -> float:
        """In nats per token, without some heads; nan for a single token."""
        model = without_heads(self.model, off)
        with one_thread(model.device.type == "cpu"):
            return read(model, torch.tensor(self._tokens(text))).loss

    def _text(self, prompt: str, seed: int, off: Heads = ()) -> Text:
        model = without_heads(self.model, off)
        return Text(lambda: stream_tokens(model, prompt, WRITTEN, seed=seed, temperature=0.8))

    @property
    def maps(self) -> torch.Tensor:
        """The attention weights over the text, `(L, H, T, T)`."""
        return torch.tensor(self._maps(self.text.value).weights).nan_to_num()

    @property
    def results(self) -> dict[str, float | str]:
        """Loss and continuation with all heads, and without those that are off.

        Waits until they are there. Raises the error that is shown, if there is one.
        """
        return dict(self._found())

    # --- drawing ---------------------------------------------------------------------------------

    def _work(self) -> Iterator[None]:
        """Draw the maps and save one if that is wanted; read and write without heads."""
        now = self._settings()
        maps = self._maps(now.text)
        self._draw(now, maps)
        self._save(now, maps)
        wanted = now.text, now.off, now.seed
        if self._error is None and self._counted == wanted:
            return
        self._counted = None
        self._wait(self.loss)
        yield
        for heads in self._to_try(maps):
            self._loss(now.text, heads)
            yield
        self._worth = now.text, self._lost(now, maps)
        self._draw_wall(now, maps)
        texts = [self._text(now.text, now.seed)]
        texts += [self._text(now.text, now.seed, now.off)] if now.off else []
        for each in texts:
            for _ in each.grow(WRITTEN):
                yield
        self._draw_loss(now, [each.tokens[:WRITTEN] for each in texts])
        self._counted = wanted

    def _to_try(self, maps: Maps) -> list[Heads]:
        """Each head, unless there are too many or there is no loss."""
        config = self.model.config
        heads = [(head,) for head in product(range(config.n_layer), range(config.n_head))]
        return heads if len(heads) <= TRIED and len(maps.tokens) > 1 else []

    def _lost(self, now: Settings, maps: Maps) -> Worth:
        whole = self._loss(now.text)
        return {heads[0]: self._loss(now.text, heads) - whole for heads in self._to_try(maps)}

    def _draw(self, now: Settings, maps: Maps) -> None:
        self._draw_wall(now, maps)
        notes = self._notes(now, maps)
        self._show(self.view, chart.page(self._map(now, maps), self._figures(now, maps), notes))

    def _figures(self, now: Settings, maps: Maps) -> dict[str, float]:
        weights = np.nan_to_num(self._map(replace(now, scores=False), maps).values)
        return map_figures(torch.tensor(weights), torch.tensor(maps.tokens), self.tokenizer)

    def _draw_wall(self, now: Settings, maps: Maps) -> None:
        self._show(self.wall, self._wall(now, maps))

    def _wall(self, now: Settings, maps: Maps) -> str:
        text, worth = self._worth
        lost = worth if text == now.text else {}
        heading = "All heads" + ", and the nats lost without each" * bool(self._to_try(maps))
        here, scale = (now.layer, now.head), self._scale(now, maps)
        tiles = chart.wall(maps.mapped(now.scores), scale, here, now.off, lost)
        return f"<h3>{heading}</h3>{tiles}"

    def _scale(self, now: Settings, maps: Maps) -> chart.Scale:
        """The colours of all maps."""
        if not now.scores:
            return chart.Scale(0, 1, root=True)
        return chart.Scale(float(np.nanmin(maps.scores)), float(np.nanmax(maps.scores)))

    def _map(self, now: Settings, maps: Maps) -> chart.Map:
        """The large map."""
        layer = maps.mapped(now.scores)[now.layer]
        values = layer.mean(0) if now.head == MEAN else layer[now.head]
        pieces = [self.tokenizer.pieces[token] for token in maps.tokens]
        what, scale = "score" if now.scores else "weight", self._scale(now, maps)
        return chart.Map(now.name, values, what, scale, pieces, self.unit, now.place)

    def _notes(self, now: Settings, maps: Maps) -> list[str]:
        """What the picture leaves out of a long text."""
        total, n = len(self.tokenizer.encode(now.text)), len(maps.tokens)
        notes = [f"The first {n} of {total:,} {self.unit}s are read."] if total > n else []
        if n > chart.LABELLED:
            notes.append(f"The axes have letters up to {chart.LABELLED} {self.unit}s.")
        return notes

    def _draw_loss(self, now: Settings, texts: list[list[int]]) -> None:
        off = f"layer {now.layer}, {now.head_name}"
        self._results = self._summary(now, texts)
        words = chart.loss(self._results, off, self.unit)
        names, prompt = ["all heads", f"without {off}"], now.text.split("\n")[-1]
        without = texts[1] if now.off else None
        cards = frame.comparison(self.tokenizer, prompt, texts[0], without, names)
        note = f"How the text goes on (temperature 0.8, seed {now.seed}):"
        self._show(self.loss, f"<p>{words} {note}</p>{cards}")

    def _summary(self, now: Settings, texts: list[list[int]]) -> dict[str, float | str]:
        written = [now.text + self.tokenizer.decode(tokens) for tokens in texts]
        found = {"loss": self._loss(now.text), "text": written[0]}
        if now.off:
            found["loss without"] = self._loss(now.text, now.off)
            found["text without"] = written[1]
        return found

    def _figure(self, now: Settings, maps: Maps) -> Picture:
        """The large map."""
        found = self._map(now, maps)
        pieces, scale = list(map(frame.label, found.pieces)), found.scale
        values = np.nan_to_num(found.values, nan=-np.inf if now.scores else 0)
        size = min(14, max(4, 0.13 * len(pieces)))
        return plot_attention(values[None], pieces, [now.name], size, (scale.low, scale.high))

    def still(self) -> Picture:
        """The large map as a figure."""
        with self._later.lock:
            now = self._settings()
            return self._figure(now, self._maps(now.text))

    def _save_page(self, path: Path) -> Path:
        """Each head of each layer, and what each token reads there, drawn beforehand."""
        now = self._settings()
        maps, heads = self._maps(now.text), [value for _, value in self.head.options]
        figures = lru_cache(2)(lambda settings: self._figures(settings, maps))

        def at(layer: int, head: int, scores: int) -> Settings:
            return replace(now, layer=layer, head=heads[head], scores=bool(scores), switched=False)

        def reading(layer: int, head: int, scores: int, place: int) -> str:
            here = at(layer, head, scores)
            shown = self._map(replace(here, place=place), maps)
            return self.box(chart.reading(shown, figures(here), self._notes(here, maps)))

        def plot(*places: int) -> str:
            return self.box(chart.titled_plot(self._map(at(*places), maps), "var(--dial-3)"))

        marks = [frame.label(self.tokenizer.pieces[token]) for token in maps.tokens]
        dials = [
            Dial("layer", list(map(str, range(self.model.config.n_layer))), now.layer),
            Dial("head", [name for name, _ in self.head.options], heads.index(now.head)),
            Dial("values", ["weights", "scores"], int(now.scores)),
            Dial(self.unit, [f"{i} {mark}" for i, mark in enumerate(marks)], now.place, True),
        ]
        views = [
            View((0, 1, 2), lambda *places: self.box(self._wall(at(*places), maps))),
            View((0, 1, 2), plot),
            View((0, 1, 2, 3), reading),
        ]
        return states_page(path, self.about, chart.STYLE, (dials, views))

    # --- files -----------------------------------------------------------------------------------

    def _save_as(self, kind: str) -> None:
        with self._later.lock:
            self._wanted = kind
        self._later.start()

    def _save(self, now: Settings, maps: Maps) -> None:
        """Write the large map into a new file if that is wanted, and say where it is."""
        if (kind := self._wanted) is None:
            return
        self._wanted = None
        what = "scores" if now.scores else "weights"
        path = save_picture(self._figure(now, maps), f"attention {what} {now.name}", kind)
        self.saved.value = where(path)


def attention_explorer(model: TinyGPT, text: str | None = None) -> AttentionExplorer:
    """What each token of a text reads, in each head; see `AttentionExplorer`."""
    return AttentionExplorer(model, text)
