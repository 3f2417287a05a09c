"""The router lab: a mixture that learns before one's eyes, collapses, and is cured."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import ipywidgets as widgets

from ..corpora import Corpus, check_tokens, load_corpus
from ..errors import ConfigError
from ..plots import Picture, plot_loads
from . import frame
from . import router_chart as chart
from .inputs import check_tokenizer, kind
from .live import Live
from .pages import Dial, View, states_page
from .router_training import JITTER, RouterTraining, Rules, T
from .router_words import words

LIMIT = 20.0  # seconds from a press of Start to the end
REDRAW = 0.125  # seconds between two pictures
TILES = 7 * T  # tokens of the fixed text that are shown
METHODS = ("none", "Switch loss", "biases")
STRENGTHS = {"none": 0.1, "Switch loss": 0.1, "biases": 0.01}  # that each method starts with


@dataclass(frozen=True)
class Settings:
    """What the controls say, read once."""

    rules: Rules
    n_experts: int
    seed: int
    attempt: int  # how often Reset was pressed


class RouterLab(Live):
    """Train a small mixture in the notebook's own kernel, and change its routing meanwhile.

    Nothing starts by itself. Start trains in slices between which the notebook has its turn, and
    ends by itself after 20 seconds; while another cell computes, the training waits. Torch's
    global random numbers stay those of the notebook. In plain Python use `advance`.
    """

    about = (
        "The router lab: train a small mixture live, watch one expert take everything, switch a "
        "cure on, and see the load come back."
    )

    def __init__(self, corpus: Corpus | None = None):
        if corpus is None:
            corpus = load_corpus("tinyshakespeare", fallback="tinyplays")
        check(corpus)
        self.corpus, self.unit = corpus, frame.unit(corpus.tokenizer)
        self.training: RouterTraining | None = None
        self._before: RouterTraining | None = None  # the run until the last reset
        self._made: tuple[int, ...] = ()  # what it takes to make the one that is there
        self._end, self._attempt = -math.inf, 0  # when to pause; how often was reset
        self._controls()
        self.picture, self.tiles = widgets.HTML(), widgets.HTML()
        bench = widgets.Box([self.panel, self.picture])
        bench.add_class("tg-bench")
        super().__init__([], [bench, self.tiles], chart.STYLE)
        self.add_class("tg-lab")
        self.start.on_click(lambda _: self._until(time.monotonic() + LIMIT))
        self.pause.on_click(lambda _: self._until(-math.inf))
        self.reset.on_click(lambda _: self._until(-math.inf, afresh=True))
        self._live_by(*self.knobs)

    # --- controls --------------------------------------------------------------------------------

    def _controls(self) -> None:
        self.start = _button("Start", "play", "Train for 20 seconds", "primary")
        self.pause = _button("Pause", "pause", "Stop training; Start goes on from here")
        self.reset = _button(
            "Reset", "refresh", "A new model, not trained; the old run stays, in grey"
        )
        self.balance = widgets.ToggleButtons(options=METHODS, description="balance")
        self.balance.style.button_width = "auto"
        self.strength = _menu("strength", 0.1, [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0])
        noises = [("none", "none"), ("learned", "learned"), (f"jitter {JITTER}", "jitter")]
        self.noise = _menu("noise", "none", noises)
        self.z_weight = _menu("z-loss", 0.01, [0.0, 0.001, 0.01, 0.03, 0.1])
        times = [(f"× {n}", float(n)) for n in (1, 3, 5, 10, 25)]
        self.router_lr = _menu("router’s rate", 3.0, times)
        self.top_k = _menu("k", 1, [1, 2])
        self.n_experts = _menu("experts", 8, [4, 8, 16])
        self.seed = widgets.BoundedIntText(1, 0, 2**31 - 1, description="seed")
        for control in (self.balance, self.seed):
            control.style.description_width = WIDTH
        self.strength.disabled = True
        self.status = widgets.HTML()
        live = self.balance, self.strength, self.noise, self.z_weight, self.router_lr, self.top_k
        self.knobs = *live, self.n_experts, self.seed
        buttons = widgets.HBox([self.start, self.pause, self.reset])
        self.panel = widgets.Box([buttons, self.status, *self.knobs])
        self.panel.add_class("tg-knobs")

    def _follow(self, change) -> None:
        if change["owner"] is self.balance:
            self.strength.value = STRENGTHS[self.balance.value]
            self.strength.disabled = self.balance.value == "none"

    def _until(self, end: float, afresh: bool = False) -> None:
        """Train until then; `afresh` with a new model."""
        with self._later.lock:
            self._end = end
            self._attempt += afresh
        self._later.start()

    def _settings(self) -> Settings:
        with self._later.lock:
            rules = Rules(
                self.balance.value,
                self.strength.value,
                self.noise.value,
                self.z_weight.value,
                self.router_lr.value,
                self.top_k.value,
            )
            return Settings(rules, self.n_experts.value, self.seed.value, self._attempt)

    # --- training --------------------------------------------------------------------------------

    def advance(self, updates: int) -> None:
        """Make so many updates at once, and draw."""
        with self._later.lock:
            self.training.advance(updates)
            self._draw()

    def _work(self) -> Iterator[None]:
        """Follow the controls; then train in slices, as long as wanted."""
        self._obey(self._settings())
        self._draw()
        yield
        drawn = time.monotonic()
        while self._runs():
            self.training.advance()
            if time.monotonic() > drawn + REDRAW:
                self._draw()
                drawn = time.monotonic()
            yield
        self._draw()

    def _runs(self) -> bool:
        return self._later.alive and time.monotonic() < self._end

    def _obey(self, now: Settings) -> None:
        made = now.n_experts, now.seed, now.attempt
        if made != self._made:
            if self.training and self.training.update:
                self._before = self.training
            self.training = RouterTraining(self.corpus, now.rules, now.n_experts, now.seed)
            self._made = made
        self.training.follow(now.rules)

    def _complain(self, error: Exception) -> None:
        self._end = -math.inf
        self._say_whether_it_runs()
        super()._complain(error)

    # --- drawing ---------------------------------------------------------------------------------

    def _draw(self) -> None:
        training, before = self.training, self._before
        looks = before.looks if before else []
        parts = (
            chart.facts(training.looks[-1], self.unit),
            chart.charts(training.looks, training.changes, looks),
            f"<p class='said'>{' '.join(words(training, before))}</p>",
        )
        self._show(self.picture, "".join(parts))
        self._show(self.tiles, self._tiles())
        self._say_whether_it_runs()

    def still(self) -> Picture:
        """The load of the experts now, as a figure."""
        with self._later.lock:
            look = self.training.looks[-1]
        title = f"Share of the fixed text after {look.update:,} updates"
        return plot_loads(look.load, ["by expert"], title)

    def _save_page(self, path: Path) -> Path:
        """What was seen after every few updates so far."""
        looks, changes = self.training.looks, self.training.changes
        if len(looks) < 2:
            raise ConfigError("nothing is trained yet; press Start, or call advance(300), first")

        def draw(i: int) -> str:
            rules = [change for change in changes if change[0] <= looks[i].update]
            figures = chart.facts(looks[i], self.unit)
            return self.box(figures + chart.charts(looks[: i + 1], rules, []))

        updates = [f"{look.update:,}" for look in looks]
        dials, views = [Dial("updates", updates, len(looks) - 1, slides=True)], [View((0,), draw)]
        return states_page(path, self.about, chart.STYLE, (dials, views))

    def _tiles(self) -> str:
        routing, tokens = self.training.routing, self.training.x.flatten()[:TILES].tolist()
        pieces = [self.corpus.tokenizer.pieces[token] for token in tokens]
        best = routing.weights.argmax(-1, keepdim=True)
        first = (x.gather(-1, best).flatten()[:TILES] for x in (routing.experts, routing.weights))
        length, name = self.training.x.numel(), frame.safe(self.corpus.name)
        title = f"The beginning of the fixed text ({length:,} {self.unit}s of {name}, held out): "
        title += f"each {self.unit} with the number and colour of its expert; the deeper, the "
        title += "larger the weight"
        return f"<small>{title}</small>" + chart.tiles(pieces, *first, self.unit)

    def _say_whether_it_runs(self) -> None:
        if self._runs():
            words = "Training: pauses by itself 20 s after Start. It waits while a cell computes."
        elif self._later.alive:
            words = (
                "Paused: <b>Start</b> goes on. "
                "A change of <i>experts</i> or <i>seed</i> makes a new model."
            )
        else:
            words = "No notebook is running: <code>advance(100)</code> makes 100 updates."
        self.status.value = f"<div class='tg-status' role='status'>{words}</div>"


def router_lab(corpus: Corpus | None = None) -> RouterLab:
    """Train a mixture live, see it collapse, and cure it; see `RouterLab`.

    corpus: Tiny Shakespeare if it is there, else tinyplays.
    """
    return RouterLab(corpus)


WIDTH = "6.5em"  # of the controls' names


def _button(name: str, icon: str, tooltip: str, style: str = "") -> widgets.Button:
    return widgets.Button(
        description=name, icon=icon, tooltip=tooltip, button_style=style, layout={"width": "80px"}
    )


def _menu(name: str, value: object, options: list) -> widgets.Dropdown:
    style = {"description_width": WIDTH}
    return widgets.Dropdown(value=value, options=options, description=name, style=style)


def check(corpus: Corpus) -> None:
    """What cannot be trained on is refused with a `ConfigError`."""
    if not isinstance(corpus, Corpus):
        raise ConfigError(f"corpus must be a Corpus, not {kind(corpus)}; load_corpus gives one")
    check_tokenizer(corpus.tokenizer, f"the corpus {corpus.name}", "load_corpus sets it")
    for split, tokens in (("train", corpus.train), ("validation", corpus.val)):
        check_tokens(tokens, T, corpus.tokenizer.vocab_size, split)
