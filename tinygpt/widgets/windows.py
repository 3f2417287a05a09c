"""Windows over a corpus."""

from collections.abc import Iterator
from pathlib import Path

import ipywidgets as widgets

from ..corpora import Corpus
from ..errors import ConfigError
from ..plots import INPUT, TARGET, Picture, plot_window
from . import frame
from .frame import slider, tile
from .inputs import check_tokenizer, kind, whole_number
from .live import Live
from .pages import Dial, View, states_page

WIDEST = 32  # tokens of a window
WINDOWS, SIZES = 64, (1, 2, 4, 8, 16, 32)  # of a page


class WindowExplorer(Live):
    """Move a window over a corpus and read its inputs, its targets, and the examples in it."""

    box = staticmethod(frame.plain)
    about = "The window explorer: move a window over the text, and read its inputs and targets."

    def __init__(self, corpus: Corpus, start: int = 0, block_size: int = 8):
        check(corpus)
        self.corpus = corpus
        largest = min(WIDEST, len(corpus.train) - 1)
        last = len(corpus.train) - 1 - largest
        start = whole_number("start", start, 0, last)
        block_size = whole_number("block_size", block_size, 1, largest)
        self.start = slider("start", start, 0, last)
        self.block_size = slider("block_size", block_size, 1, largest)
        self.view = widgets.HTML()
        super().__init__([self.start, self.block_size], [self.view])
        self._live_by(self.start, self.block_size)

    def _tokens(self, start: int, size: int) -> list[int]:
        return self.corpus.train[start : start + size + 1].tolist()

    def still(self) -> Picture:
        """The window as a figure."""
        ids = self._tokens(self.start.value, self.block_size.value)
        return plot_window([self.corpus.tokenizer.pieces[i] for i in ids])

    def _work(self) -> Iterator[None]:
        self._show(self.view, self._window(self.start.value, self.block_size.value))
        yield

    def _window(self, start: int, size: int) -> str:
        """The window in tiles, and the examples in it."""
        ids = self._tokens(start, size)
        self.corpus.tokenizer.decode(ids)  # those that are none are an error
        pieces = [self.corpus.tokenizer.pieces[i] for i in ids]
        rows = _row("x", pieces[:-1], ids[:-1], INPUT) + _row("y", pieces[1:], ids[1:], TARGET)
        examples = [
            f"{''.join(tile(p, INPUT) for p in pieces[:t])} → {tile(pieces[t], TARGET)}"
            for t in range(1, size + 1)
        ]
        title = f"{size} example{'s' if size > 1 else ''} in one window"
        if size > 8:
            examples[4:-4] = ["⋮"]
            title += " (the middle left out)"
        return (
            f"<div style='overflow-x:auto;white-space:nowrap' tabindex='0'><table>{rows}</table>"
            f"<p>{title}</p>{''.join(f'<div>{example}</div>' for example in examples)}</div>"
        )

    def _save_page(self, path: Path) -> Path:
        """Some windows from the one that is shown on, drawn beforehand."""
        first, last = self.start.value, min(self.start.max, self.start.value + WINDOWS - 1)
        starts = range(first, last + 1)
        sizes = sorted({*SIZES, self.block_size.value} & {*range(1, self.block_size.max + 1)})
        dials = [
            Dial("start", list(map(str, starts)), slides=True),
            Dial("block size", list(map(str, sizes)), sizes.index(self.block_size.value)),
        ]
        views = [View((0, 1), lambda i, j: self.box(self._window(starts[i], sizes[j])))]
        return states_page(path, self.about, "", (dials, views))


def _row(name: str, pieces: list[str], ids: list[int], background: str) -> str:
    cells = "".join(
        f"<td style='text-align:center;padding:0'>{tile(p, background)}<br><small>{i}</small></td>"
        for p, i in zip(pieces, ids, strict=True)
    )
    return f"<tr><th style='vertical-align:top;padding:4px 8px 0 0'>{name}</th>{cells}</tr>"


def check(corpus: Corpus) -> None:
    """What cannot be shown is refused with a `ConfigError`."""
    if not isinstance(corpus, Corpus):
        raise ConfigError(f"corpus must be a Corpus, not {kind(corpus)}; load_corpus gives one")
    check_tokenizer(corpus.tokenizer, f"the corpus {corpus.name}", "load_corpus sets it")
    if len(corpus.train) < 2:
        raise ConfigError(
            f"the training text of {corpus.name} has length {len(corpus.train)}; a window with a "
            f"target needs at least 2 tokens: take a longer text"
        )


def window_explorer(corpus: Corpus, start: int = 0, block_size: int = 8) -> WindowExplorer:
    """Inputs and targets of any window of the training text; see `WindowExplorer`."""
    return WindowExplorer(corpus, start, block_size)
