"""The sampling playground: a model's next token, and texts, under sliders."""

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import ipywidgets as widgets
import numpy as np
import torch
from torch import Tensor

from ..config import DecodingConfig
from ..decoding import stream_tokens
from ..errors import ConfigError, UnknownCharacterError
from ..measure import flops_per_token
from ..model import TinyGPT
from ..plots import Picture, plot_filters, visible
from ..runtime import one_thread
from . import frame
from . import playground_chart as chart
from .inputs import check_finite, check_text, reader
from .live import Live, Text
from .pages import check_size, write_page
from .stages import Stage, sample, stages

DRAWS = 200
LONGEST, WRITTEN = 300, 120  # tokens of a text at most, and to begin with
READINGS, FEWEST = 60_000_000_000, 8  # FLOPs past the block, and tokens there at least
MENU = 300  # tokens to choose from, if there are more
AS_DRAWN = -1  # no token is put there
YOURS = "all sliders together"


@dataclass(frozen=True)
class Settings:
    """What the controls say, read once; `place` is that of the token that is looked at, from 0."""

    prompt: str
    length: int
    seed: int
    place: int
    draws: int
    options: dict
    pins: dict[int, int]  # place: the token put there

    @property
    def strategies(self) -> dict[str, dict]:
        """The options of each text, by its title; the first is the learner's own mixture."""
        o = self.options
        found = {YOURS: o, "greedy": {"temperature": 0.0}}
        for title, name, off in (
            ("temperature", "temperature", 1),
            ("top-k", "top_k", 0),
            ("top-p", "top_p", 1),
            ("min-p", "min_p", 0),
        ):
            value = f"{o[name]:g}" if o[name] != off else "off: plain sampling"
            found[f"{title} {value}"] = {name: o[name]}
        return found


class SamplingPlayground(Live):
    """Steer the sampling of a model, and see what each step does to the next token.

    The distribution follows a control at once. The texts follow as soon as the notebook has a
    moment (without a notebook: at once); `finish` waits for them. Each text is what
    `generateV2(model, prompt, length, seed=seed, **options)` gives; all use the same exponential
    draws, so they differ by their strategies alone.

    A replaced token does not shift the draws: the draw of its place is thrown away, and place i
    keeps the i-th draw of the seed (`forced` of `stream_tokens`). Later replacements are forgotten.

    The model's mode stays as it is. After training it further, make a new playground.
    """

    about = (
        "The sampling playground: sliders for temperature, top-k, top-p and more, what each of "
        "them leaves of the model’s distribution, and texts written so."
    )

    def __init__(self, model: TinyGPT, prompt: str = "ROMEO:\n"):
        self.model = reader(model)
        check_text("prompt", prompt)
        self.tokenizer = model.tokenizer
        self.unit = frame.unit(self.tokenizer)
        self._read = lru_cache(64)(self._read)
        self._text = lru_cache(32)(self._text)  # each holds a KV cache
        self._yours: tuple[str, list[int]] = "", []  # prompt, continuation that is looked into
        self._pins: dict[int, int] = {}
        self._controls(prompt)
        self.picture, self.texts = widgets.HTML(), widgets.HTML()
        pair = widgets.HBox([self.picture, self.texts])
        pair.add_class("tg-pair")
        pair.add_class("tg-play")
        super().__init__([self.panel, self.scrubber], [pair], chart.STYLE)
        self._live_by(*self.panel.children, *self.scrubber.children)

    # --- controls --------------------------------------------------------------------------------

    def _controls(self, prompt: str) -> None:
        V = self.tokenizer.vocab_size
        self.prompt = widgets.Textarea(prompt, description="prompt", rows=2)
        self.length = _slider("length", WRITTEN, 10, LONGEST, 10)
        self.seed = widgets.BoundedIntText(1, 0, 2**31 - 1, description="seed")
        self.penalty = _slider("repetition", 1.0, 1.0, 2.0, 0.05, "penalty; 1: off")
        self.window = _slider("in the last", 16, 1, 128, 1, f"{self.unit}s that are penalised")
        self.banned = widgets.Text("", description="never write")
        self.temperature = _slider("temperature", 0.8, 0.0, 2.0, 0.05, "1: off, 0: greedy")
        self.top_k = _slider("top-k", min(10, V), 0, V, 1, "keep the k most probable; 0: off")
        self.top_p = _slider("top-p", 0.9, 0.05, 1.0, 0.05, "keep this much probability; 1: off")
        self.min_p = _slider("min-p", 0.0, 0.0, 0.5, 0.01, "share of the largest; 0: off")
        self.step = _slider(self.unit, 1, 1, self.length.value, 1, "which one to look at")
        self.replacement = widgets.Dropdown(
            options=self._menu(range(V)[:MENU]), description="replace by"
        )
        self.overlay = widgets.Checkbox(True, description=f"draw {DRAWS} times", indent=False)
        self.panel = _grid(
            *(self.prompt, self.length, self.seed),
            *(self.penalty, self.window, self.banned),
            *(self.temperature, self.top_k, self.top_p, self.min_p),
        )
        self.scrubber = _grid(self.step, self.replacement, self.overlay)
        for wide in (self.prompt, self.banned, self.step):
            wide.add_class("tg-wide")

    def _menu(self, tokens: Sequence[int]) -> list[tuple[str, int]]:
        symbols = ((frame.label(self.tokenizer.pieces[token]), token) for token in tokens)
        return [("as drawn", AS_DRAWN), *symbols]

    def _follow(self, change) -> None:
        if change["owner"] is self.prompt:
            self._pins, self.step.value = {}, 1
        elif change["owner"] is self.length:
            self.step.max = self.length.value
        elif change["owner"] is self.replacement:
            self._put(change["new"])
        self._show_replacement()

    def _put(self, token: int) -> None:
        place = self.step.value - 1
        self._pins = {i: t for i, t in self._pins.items() if i < place}
        if token != AS_DRAWN:
            self._pins[place] = token

    def _show_replacement(self) -> None:
        """Let the menu say what was put at the place that is looked at."""
        token = self._pins.get(self.step.value - 1, AS_DRAWN)
        offered = [t for _, t in self.replacement.options]
        if token not in offered:
            self.replacement.options = self._menu([*offered[1:-1], token])
        self.replacement.value = token

    def _offer(self, p: np.ndarray) -> None:
        """Let the menu offer the most probable tokens, if there are too many for all of them."""
        if len(p) <= MENU:
            return
        menu = self._menu(np.argsort(-p, kind="stable")[:MENU].tolist())
        if [*self.replacement.options] != menu:
            with self._quietly():
                self.replacement.options = menu
                self._show_replacement()

    def _settings(self) -> Settings:
        with self._later.lock:
            return Settings(
                self.prompt.value,
                self.length.value,
                self.seed.value,
                place=self.step.value - 1,
                draws=DRAWS * self.overlay.value,
                options=self.options,
                pins=dict(self._pins),
            )

    @property
    def options(self) -> dict:
        """What the sliders say, as `generateV2` takes it."""
        return {
            "temperature": self.temperature.value,
            "top_k": self.top_k.value,
            "top_p": self.top_p.value,
            "min_p": self.min_p.value,
            "repetition_penalty": self.penalty.value,
            "repetition_window": self.window.value,
            "banned": self.banned.value,
        }

    @property
    def results(self) -> dict[str, str]:
        """Each text (prompt and continuation) by its title; waits until they are written.

        Raises the error that is shown, if there is one.
        """
        return dict(self._found())

    # --- what the model says ---------------------------------------------------------------------

    @torch.inference_mode()
    def _read(self, tokens: tuple[int, ...]) -> Tensor:
        """Logits `(V,)` after these tokens."""
        window = torch.tensor([tokens[-self.model.config.block_size :]], device=self.model.device)
        with one_thread():
            logits = self.model(window).logits[0, -1].float().cpu()
        check_finite(logits, "logits")
        return logits

    def _text(self, prompt: str, seed: int, options: tuple, pins: tuple) -> Text:
        options = dict(options) | {"seed": seed, "forced": dict(pins)}
        return Text(lambda: stream_tokens(self.model, prompt, LONGEST, **options))

    def _wanted(self, now: Settings) -> dict[str, Text]:
        """All texts, as far as they are written; what is wrong with the controls is raised here."""
        banned = now.options["banned"]
        if not now.prompt:
            raise ConfigError("the prompt is empty; give at least one character")
        for name, text in (("prompt", now.prompt), ("never write", banned)):
            try:
                self.tokenizer.encode(text)
            except UnknownCharacterError as error:
                raise ConfigError(f"{name}: {frame.unknown(error)}") from error
        ruled_out = self.tokenizer.containing(banned) if banned and now.pins else []
        for place, token in now.pins.items():
            if token in ruled_out:
                raise ConfigError(
                    f"never write {self.tokenizer.pieces[token]!r}? You put it at {self.unit} "
                    f"{place + 1}; nothing is left there. Take one of them back."
                )
        pins = {YOURS: tuple(sorted(now.pins.items()))}
        return {
            name: self._text(now.prompt, now.seed, tuple(options.items()), pins.get(name, ()))
            for name, options in now.strategies.items()
        }

    # --- drawing ---------------------------------------------------------------------------------

    def _work(self) -> Iterator[None]:
        """Draw the distribution, write all texts and yield between tokens; then draw them."""
        now = self._settings()
        wanted = self._wanted(now)
        yours = self._yours[1] if self._yours[0] == now.prompt else []
        self._draw_distribution(now, yours)
        length = self._reach(now)
        if any(len(text.tokens) < length and not text.ended for text in wanted.values()):
            self._wait(self.texts)
            yield
        for text in wanted.values():
            for _ in text.grow(length):
                yield
        texts = {name: text.tokens[:length] for name, text in wanted.items()}
        self._yours = now.prompt, texts[YOURS]
        if texts[YOURS] != yours:
            self._draw_distribution(now, texts[YOURS])
        cards = chart.cards(self.tokenizer, now.prompt, texts, now.place, now.pins)
        self._show(self.texts, cards + self._note(now, length))
        decoded = {name: self.tokenizer.decode(tokens) for name, tokens in texts.items()}
        self._results = {name: now.prompt + text for name, text in decoded.items()}

    def _stages(self, now: Settings, yours: list[int]) -> tuple[list[int], list[Stage]]:
        """What is read before the token that is looked at, and its distribution after each step."""
        before = [*self.tokenizer.encode(now.prompt), *yours[: now.place]]
        config = DecodingConfig(**now.options)
        logits = self._read(tuple(before))
        return before, stages(logits, torch.tensor(before), config, self.tokenizer)

    def still(self) -> Picture:
        """The distribution after each step as a figure."""
        with self._later.lock:
            self._later.finish()
            now = self._settings()
            before, found = self._stages(now, self._yours[1])
        columns = [(stage.label, stage.p) for stage in found]
        title = f"After “{visible(self.tokenizer.decode(before)[-24:])}”"
        return plot_filters(columns, self.tokenizer.pieces, title=title)

    def _save_page(self, path: Path) -> Path:
        """Logits after each token of the learner's own text; the page has the filters."""
        now, V, yours = self._settings(), self.tokenizer.vocab_size, self._yours[1]
        (prompt, found), pieces = self._stages(replace(now, place=0), yours), self.tokenizer.pieces
        check_size(4 * V * len(yours))
        tokens = [*prompt, *yours]
        rows = [self._read(tuple(tokens[: len(prompt) + i])).numpy() for i in range(len(yours))]
        allowed = None
        if banned := now.options["banned"]:
            ruled_out = set(self.tokenizer.containing(banned))
            allowed = [i not in ruled_out for i in range(V)]
        data = {
            "pieces": pieces,
            "labels": [frame.label(piece) for piece in pieces],
            "width": 10 + 8 * max(3, *(len(frame.label(pieces[t])) for t in tokens)),
            "unit": self.unit,
            "tokens": tokens,
            "first": len(prompt),
            "logits": base64.b64encode(np.stack(rows).astype("<f4").tobytes()).decode(),
            "allowed": allowed,
            "sliders": self._page_sliders(now, len(yours)),
            "settings": ", ".join([f"seed {now.seed}", *(stage.label for stage in found[1:])]),
        }
        return write_page(path, self.about, chart.STYLE, "playground.js", data)

    def _page_sliders(self, now: Settings, length: int) -> list[tuple]:
        """Name, label, lowest and highest value, step and value of each slider of the page."""
        place = min(now.place, length - 1) + 1
        chain = {
            "repetition": self.penalty,
            "window": self.window,
            "temperature": self.temperature,
            "top-k": self.top_k,
            "top-p": self.top_p,
            "min-p": self.min_p,
        }
        sliders = ((n, s.description, s.min, s.max, s.step, s.value) for n, s in chain.items())
        return [("place", self.unit, 1, length, 1, place), *sliders]

    def _reach(self, now: Settings) -> int:
        """How many tokens each text gets.

        Past the model's block each one costs a reading of all of it; so many of these are made as
        take about a second for all texts.
        """
        block = self.model.config.block_size
        reading = block * flops_per_token(self.model, training=False)
        past = max(FEWEST, READINGS // (len(now.strategies) * reading))
        return min(now.length, max(0, block - len(self.tokenizer.encode(now.prompt))) + past)

    def _note(self, now: Settings, length: int) -> str:
        """Why the texts are shorter than asked for, if they are."""
        if length == now.length:
            return ""
        block = self.model.config.block_size
        return (
            f"<p>The model reads {block} {self.unit}s at most. Each further one costs a reading of "
            f"all of them, so the texts have {length} {self.unit}s, not {now.length}.</p>"
        )

    def _draw_distribution(self, now: Settings, yours: list[int]) -> None:
        place = min(now.place, len(yours))
        written = yours[place] if place < len(yours) else None
        before, found = self._stages(now, yours)
        self._offer(found[0].p)
        title = f"<b>{self.unit.capitalize()} {place + 1}</b>"
        title = f"<p>{title}, after {chart.context(self.tokenizer.decode(before))}</p>"
        self._show(self.picture, title + self._chart(now, found, written))

    def _chart(self, now: Settings, found: list[Stage], written: int | None) -> str:
        counts = sample(found[-1].p, now.draws, now.seed) if now.draws else None
        args = found, self.tokenizer.pieces, written, counts
        numbers = f"<summary>The same in numbers</summary>{chart.table(*args)}"
        left_out = len(found[0].p) - MENU
        note = f"The menu offers the {MENU} most probable {self.unit}s, not the other {left_out:,}"
        key = chart.key(found, now.draws, [note] if left_out > 0 else [])
        return f"{chart.bars(*args, self.unit)}{key}<details>{numbers}</details>"


def sampling_playground(model: TinyGPT, prompt: str = "ROMEO:\n") -> SamplingPlayground:
    """A model's next token and texts under sliders; see `SamplingPlayground`."""
    return SamplingPlayground(model, prompt)


def _slider(
    name: str, value: float, low: float, high: float, step: float, tooltip: str = ""
) -> widgets.Widget:
    kind = widgets.IntSlider if isinstance(value, int) else widgets.FloatSlider
    return kind(value, min=low, max=high, step=step, description=name, tooltip=tooltip)


def _grid(*controls: widgets.Widget) -> widgets.Box:
    for control in controls:
        control.style.description_width = "7em"
    box = widgets.Box(controls)
    box.add_class("tg-panel")
    return box
