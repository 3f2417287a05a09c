"""Windows over a corpus."""

import ipywidgets as widgets

from ..text import Corpus
from .frame import redraw_on_change, slider, tile

INPUT, TARGET = "#DCEEFA", "#FCEBCB"


class WindowExplorer(widgets.VBox):
    """Move a window over a corpus and read its inputs, its targets, and the examples in it."""

    def __init__(self, corpus: Corpus, start: int = 0, block_size: int = 8):
        self.corpus = corpus
        largest = min(32, len(corpus.train) - 1)
        self.start = slider("start", start, 0, len(corpus.train) - 1 - largest)
        self.block_size = slider("block_size", min(block_size, largest), 1, largest)
        self.view = widgets.HTML()
        super().__init__([self.start, self.block_size, self.view])
        redraw_on_change(self._draw, self.start, self.block_size)

    def _draw(self) -> None:
        start, size = self.start.value, self.block_size.value
        ids = self.corpus.train[start : start + size + 1].tolist()
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
        self.view.value = (
            f"<div style='overflow-x:auto;white-space:nowrap'><table>{rows}</table>"
            f"<p>{title}</p>{''.join(f'<div>{example}</div>' for example in examples)}</div>"
        )


def _row(name: str, pieces: list[str], ids: list[int], background: str) -> str:
    cells = "".join(
        f"<td style='text-align:center;padding:0'>{tile(p, background)}<br><small>{i}</small></td>"
        for p, i in zip(pieces, ids, strict=True)
    )
    return f"<tr><th style='vertical-align:top;padding:4px 8px 0 0'>{name}</th>{cells}</tr>"


def window_explorer(corpus: Corpus, start: int = 0, block_size: int = 8) -> WindowExplorer:
    """Inputs and targets of any window of the training text; see `WindowExplorer`."""
    return WindowExplorer(corpus, start, block_size)
