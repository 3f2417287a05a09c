"""The sampling playground: a model's next token, and texts, under sliders."""

from collections.abc import Iterator
from functools import lru_cache

import ipywidgets as widgets
import torch
from torch import Tensor

from ..config import DecodingConfig
from ..decoding import stream_tokens
from ..errors import ConfigError, UnknownCharacterError
from ..model import TinyGPT
from ..runtime import one_thread
from . import frame
from . import playground_chart as chart
from .frame import Later, Text
from .stages import sample, stages

DRAWS = 200
LONGEST = 300  # tokens of a text
AS_DRAWN = -1  # no token is put there
YOURS = "all sliders together"


class SamplingPlayground(widgets.VBox):
    """Steer the sampling of a model, and see what each step does to the next token.

    The distribution follows a control at once. The texts follow as soon as the notebook has a
    moment (without a notebook: at once); `finish` waits for them. Each text is what
    `generateV2(model, prompt, length, seed=seed, **options)` gives; all use the same exponential
    draws, so they differ by their strategies alone.

    A replaced token does not shift the draws: the draw of its place is thrown away, and place i
    keeps the i-th draw of the seed (`forced` of `stream_tokens`). Later replacements are forgotten.

    The model is put in eval mode. After training it further, make a new playground.
    """

    def __init__(self, model: TinyGPT, prompt: str = "ROMEO:\n"):
        if model.tokenizer is None:
            raise ConfigError("this model has no tokenizer; set model.tokenizer")
        self.model, self.tokenizer = model.eval(), model.tokenizer
        self.unit = frame.unit(self.tokenizer)
        self._read = lru_cache(64)(self._read)
        self._text = lru_cache(32)(self._text)  # each holds a KV cache
        self._wanted: dict[str, Text] = {}
        self._yours: list[int] = []  # the continuation that the picture looks into
        self._pins: dict[int, int] = {}  # place: the token put there
        self._pictures = ["", ""]  # the last good ones
        self._later = Later()
        self._controls(prompt)
        self.message, self.picture, self.texts = (widgets.HTML() for _ in range(3))
        style = widgets.HTML(frame.STYLE + chart.STYLE)
        views = [self.message, self.picture, self.texts]
        super().__init__([style, self.panel, self.scrubber, *views])
        self._update()
        self.finish()
        self._observe()

    # --- controls --------------------------------------------------------------------------------

    def _controls(self, prompt: str) -> None:
        V = self.tokenizer.vocab_size
        self.prompt = widgets.Textarea(prompt, description="prompt", rows=2)
        self.length = _slider("length", 120, 10, LONGEST, 10)
        self.seed = widgets.BoundedIntText(1, 0, 2**31 - 1, description="seed")
        self.penalty = _slider("repetition", 1.0, 1.0, 2.0, 0.05, "penalty; 1: off")
        self.window = _slider("in the last", 16, 1, 128, 1, f"{self.unit}s that are penalised")
        self.banned = widgets.Text("", description="never write")
        self.temperature = _slider("temperature", 0.8, 0.0, 2.0, 0.05, "1: off, 0: greedy")
        self.top_k = _slider("top-k", min(10, V), 0, V, 1, "keep the k most probable; 0: off")
        self.top_p = _slider("top-p", 0.9, 0.05, 1.0, 0.05, "keep this much probability; 1: off")
        self.min_p = _slider("min-p", 0.0, 0.0, 0.5, 0.01, "share of the largest; 0: off")
        self.step = _slider(self.unit, 1, 1, self.length.value, 1, "which one to look at")
        symbols = [(frame.label(piece), i) for i, piece in enumerate(self.tokenizer.pieces)]
        self.replacement = widgets.Dropdown(
            options=[("as drawn", AS_DRAWN), *symbols], description="replace by"
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

    def _observe(self) -> None:
        for control in (*self.panel.children, self.overlay):
            if control is not self.prompt:
                control.observe(self._update, names="value")
        self.prompt.observe(self._new_prompt, names="value")
        self.step.observe(self._look_elsewhere, names="value")
        self.replacement.observe(self._replace, names="value")

    def _new_prompt(self, change) -> None:
        self._yours, self._pins = [], {}
        self.step.value = 1
        self._update()

    def _look_elsewhere(self, change) -> None:
        self.replacement.value = self._pins.get(self.step.value - 1, AS_DRAWN)
        self._update()

    def _replace(self, change) -> None:
        place, token = self.step.value - 1, self.replacement.value
        if token == self._pins.get(place, AS_DRAWN):
            return  # the menu follows the slider
        self._pins = {i: t for i, t in self._pins.items() if i < place}
        if token != AS_DRAWN:
            self._pins[place] = token
        self._update()

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

    @property
    def results(self) -> dict[str, str]:
        """Each text (prompt and continuation) by its title; waits until they are written."""
        self.finish()
        prompt, length = self.prompt.value, self.length.value
        return {
            name: prompt + self.tokenizer.decode(text.tokens[:length])
            for name, text in self._wanted.items()
        }

    # --- what the model says ---------------------------------------------------------------------

    @torch.inference_mode()
    def _read(self, tokens: tuple[int, ...]) -> Tensor:
        """Logits `(V,)` after these tokens."""
        window = torch.tensor([tokens[-self.model.config.block_size :]], device=self.model.device)
        with one_thread():
            return self.model(window).logits[0, -1].float().cpu()

    def _text(self, prompt: str, seed: int, options: tuple, pins: tuple) -> Text:
        options = dict(options) | {"seed": seed, "forced": dict(pins)}
        return Text(stream_tokens(self.model, prompt, LONGEST, **options))

    def _want(self) -> dict[str, Text]:
        """All texts, as far as they are written; what is wrong with the controls is raised here."""
        for control in (self.prompt, self.banned):
            try:
                self.tokenizer.encode(control.value)
            except UnknownCharacterError as error:
                unknown = ", ".join(map(repr, error.unknown))
                message = f"{control.description}: the model does not know {unknown}; take it out."
                raise ConfigError(message) from error
        banned = self.tokenizer.containing(self.banned.value)
        for place, token in self._pins.items():
            if token in banned:
                raise ConfigError(
                    f"never write {self.tokenizer.pieces[token]!r}? You put it at {self.unit} "
                    f"{place + 1}; nothing is left there. Take one of them back."
                )
        prompt, seed = self.prompt.value, self.seed.value
        pins = {YOURS: tuple(sorted(self._pins.items()))}
        return {
            name: self._text(prompt, seed, tuple(options.items()), pins.get(name, ()))
            for name, options in self.strategies.items()
        }

    # --- drawing ---------------------------------------------------------------------------------

    def _update(self, change=None) -> None:
        """Draw the distribution at once, and let the texts follow."""
        try:
            self._wanted = self._want()
            self.step.max = self.length.value
            self._draw_distribution()
        except ValueError as error:
            self._complain(error)
        else:
            self._follow()

    def _write(self) -> Iterator[None]:
        """Write all texts and yield between tokens; then draw them."""
        length = self.length.value
        for text in self._wanted.values():
            for _ in text.grow(length):
                yield
        texts = {name: text.tokens[:length] for name, text in self._wanted.items()}
        if texts[YOURS] != self._yours:
            self._yours = texts[YOURS]
            self._draw_distribution()
        self._draw_texts(texts)

    def _follow(self) -> None:
        """Let the texts follow: at once, or in slices if a notebook has other things to do."""
        ready = all(len(text.tokens) >= self.length.value for text in self._wanted.values())
        if self._later.start(self._write, at_once=ready):
            self.texts.value = frame.box(self._pictures[1], "pending")

    def finish(self) -> None:
        """Write at once what is still being written."""
        self._later.finish()

    def _draw_distribution(self) -> None:
        place = min(self.step.value - 1, len(self._yours))
        before = *self.tokenizer.encode(self.prompt.value), *self._yours[:place]
        written = self._yours[place] if place < len(self._yours) else None
        config = DecodingConfig(**self.options)
        found = stages(self._read(before), torch.tensor(before), config, self.tokenizer)
        counts = sample(found[-1].p, DRAWS, self.seed.value) if self.overlay.value else None
        args = found, self.tokenizer.pieces, written, counts
        title = f"<b>{self.unit.capitalize()} {place + 1}</b>"
        title = f"<p>{title}, after {chart.context(self.tokenizer.decode(before))}</p>"
        pair = f"<div class='wrap'>{chart.bars(*args, self.unit)}{chart.table(*args)}</div>"
        self._pictures[0] = title + pair + chart.key(found, DRAWS * self.overlay.value)
        self.picture.value = frame.box(self._pictures[0])
        self.message.value = ""

    def _draw_texts(self, texts: dict[str, list[int]]) -> None:
        here = self.step.value - 1
        self._pictures[1] = chart.cards(self.tokenizer, self.prompt.value, texts, here, self._pins)
        self.texts.value = frame.box(self._pictures[1])

    def _complain(self, error: ValueError) -> None:
        """Say what is wrong; what was drawn last stays, pale."""
        self._later.stop()
        self.message.value = frame.error_line(str(error), drawn=any(self._pictures))
        for view, last in zip((self.picture, self.texts), self._pictures, strict=True):
            view.value = frame.box(last, "old") if last else ""


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
