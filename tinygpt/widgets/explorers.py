"""Windows over a corpus, and attention over a text."""

import html

import ipywidgets as widgets
import torch

from ..data import Corpus
from ..model import TinyGPT, evaluating
from ..plots import visible

_TILE = (
    "display:inline-block;min-width:1.25em;padding:1px 3px;margin:1px;border-radius:4px;"
    "text-align:center;font-family:monospace;color:#111;background:{background};"
    "border:1px solid {border}"
)


class WindowExplorer(widgets.VBox):
    """Move a window over a corpus and read its inputs, its targets, and the examples in it."""

    def __init__(self, corpus: Corpus, start: int = 0, block_size: int = 8):
        self.corpus = corpus
        largest = min(32, len(corpus.train) - 1)
        self.start = _slider("start", start, 0, len(corpus.train) - 1 - largest)
        self.block_size = _slider("block_size", min(block_size, largest), 1, largest)
        self.view = widgets.HTML()
        super().__init__([self.start, self.block_size, self.view])
        _redraw_on_change(self._draw, self.start, self.block_size)

    def _draw(self) -> None:
        start, size = self.start.value, self.block_size.value
        ids = self.corpus.train[start : start + size + 1].tolist()
        characters = self.corpus.tokenizer.decode(ids)
        rows = _row("x", characters[:-1], ids[:-1], "#DCEEFA")
        rows += _row("y", characters[1:], ids[1:], "#FCEBCB")
        examples = [
            f"{_tiles(characters[:t], '#DCEEFA')} → {_tile(characters[t], '#FCEBCB')}"
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


class AttentionExplorer(widgets.VBox):
    """Choose a layer, a head and a character; see which characters it reads, and how strongly."""

    def __init__(self, model: TinyGPT, text: str):
        self.model, self.text = model, text[: model.config.block_size]
        with torch.inference_mode(), evaluating(model):
            idx = torch.tensor([model.tokenizer.encode(self.text)], device=model.device)
            maps = model(idx, return_attention=True).attentions
        self.maps = [layer[0].cpu() for layer in maps]  # per layer (H, T, T)
        self.layer = _slider("layer", 0, 0, model.config.n_layer - 1)
        self.head = _slider("head", 0, 0, model.config.n_head - 1)
        self.query = _slider("character", len(self.text) - 1, 0, len(self.text) - 1)
        self.view = widgets.HTML()
        super().__init__([self.layer, self.head, self.query, self.view])
        _redraw_on_change(self._draw, self.layer, self.head, self.query)

    def _draw(self) -> None:
        t = self.query.value
        weights = self.maps[self.layer.value][self.head.value, t].tolist()
        tiles = [
            _tile(c, f"rgba(230,159,0,{w:.3f})" if i <= t else "#DDDDDD", mark=i == t)
            for i, (c, w) in enumerate(zip(self.text, weights, strict=True))
        ]
        best = sorted(range(t + 1), key=lambda i: -weights[i])[:5]
        table = "".join(
            f"<tr><td>{i}</td><td>{_tile(self.text[i], '#FFFFFF')}</td>"
            f"<td style='text-align:right'>{weights[i]:.2f}</td></tr>"
            for i in best
        )
        self.view.value = (
            f"<div style='background:#FFFFFF;padding:6px;border-radius:6px;color:#111'>"
            f"{''.join(tiles)}<p>character {t}, {_tile(self.text[t], '#FFFFFF', mark=True)}, reads "
            f"most:</p><table><tr><th>position</th><th>character</th><th>weight</th></tr>{table}"
            f"</table></div>"
        )


def window_explorer(corpus: Corpus, start: int = 0, block_size: int = 8) -> WindowExplorer:
    """Inputs and targets of any window of the training text; see `WindowExplorer`."""
    return WindowExplorer(corpus, start, block_size)


def attention_explorer(model: TinyGPT, text: str) -> AttentionExplorer:
    """Which characters each character of a text reads; see `AttentionExplorer`."""
    return AttentionExplorer(model, text)


def _slider(name: str, value: int, low: int, high: int) -> widgets.IntSlider:
    return widgets.IntSlider(
        value=value,
        min=low,
        max=high,
        description=name,
        disabled=low == high,
        style={"description_width": "6em"},
        layout={"width": "32em"},
    )


def _redraw_on_change(draw, *controls: widgets.Widget) -> None:
    for control in controls:
        control.observe(lambda change: draw(), names="value")
    draw()


def _tile(character: str, background: str, mark: bool = False) -> str:
    style = _TILE.format(background=background, border="#D55E00" if mark else "#BBBBBB")
    return f"<span style='{style}'>{html.escape(visible(character))}</span>"


def _tiles(characters: str, background: str) -> str:
    return "".join(_tile(c, background) for c in characters)


def _row(name: str, characters: str, ids: list[int], background: str) -> str:
    cells = "".join(
        f"<td style='text-align:center;padding:0'>{_tile(c, background)}<br><small>{i}</small></td>"
        for c, i in zip(characters, ids, strict=True)
    )
    return f"<tr><th style='vertical-align:top;padding:4px 8px 0 0'>{name}</th>{cells}</tr>"
