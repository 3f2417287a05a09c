"""Attention over a text."""

from collections.abc import Iterator

import ipywidgets as widgets
import torch

from ..errors import ConfigError
from ..model import TinyGPT
from . import frame
from .frame import slider, tile, unit
from .inputs import check_finite, check_text, reader
from .live import Live

LONGEST = 256  # tokens of a text


class AttentionExplorer(Live):
    """Choose a layer, a head and a token; see which tokens it reads, and how strongly.

    Of a text that is longer than the model's block, or than 256 tokens, the beginning is read.
    """

    box = staticmethod(frame.plain)

    def __init__(self, model: TinyGPT, text: str):
        model = reader(model)
        check_text("text", text)
        tokens = model.tokenizer.encode(text)
        if not tokens:
            raise ConfigError("the text is empty; give at least one character")
        self.unit, self._total = unit(model.tokenizer), len(tokens)
        tokens = tokens[: min(LONGEST, model.config.block_size)]
        with torch.inference_mode():
            idx = torch.tensor([tokens], device=model.device)
            maps = model(idx, return_attention=True).attentions
        self.maps = [layer[0].float().cpu() for layer in maps]  # per layer (H, T, T)
        check_finite(torch.stack(self.maps), "attention")
        self.pieces = [model.tokenizer.pieces[token] for token in tokens]
        last = len(tokens) - 1
        self.layer = slider("layer", 0, 0, model.config.n_layer - 1)
        self.head = slider("head", 0, 0, model.config.n_head - 1)
        self.query = slider(self.unit, last, 0, last)
        self.view = widgets.HTML()
        super().__init__([self.layer, self.head, self.query], [self.view])
        self._live_by(self.layer, self.head, self.query)

    def _work(self) -> Iterator[None]:
        t = self.query.value
        weights = self.maps[self.layer.value][self.head.value, t].tolist()
        tiles = [
            tile(piece, f"rgba(230,159,0,{w:.3f})" if i <= t else "#DDDDDD", mark=i == t)
            for i, (piece, w) in enumerate(zip(self.pieces, weights, strict=True))
        ]
        best = sorted(range(t + 1), key=lambda i: -weights[i])[:5]
        table = "".join(
            f"<tr><td>{i}</td><td>{tile(self.pieces[i], '#FFFFFF')}</td>"
            f"<td style='text-align:right'>{weights[i]:.2f}</td></tr>"
            for i in best
        )
        query = tile(self.pieces[t], "#FFFFFF", mark=True)
        self._show(
            self.view,
            f"<div style='background:#FFFFFF;padding:6px;border-radius:6px;color:#111'>"
            f"{''.join(tiles)}{self._left_out}<p>{self.unit} {t}, {query}, reads most:</p><table>"
            f"<tr><th>position</th><th>{self.unit}</th><th>weight</th></tr>{table}</table></div>",
        )
        yield

    @property
    def _left_out(self) -> str:
        if self._total == len(self.pieces):
            return ""
        return f"<p>The first {len(self.pieces)} of {self._total:,} {self.unit}s are read.</p>"


def attention_explorer(model: TinyGPT, text: str) -> AttentionExplorer:
    """Which tokens each token of a text reads; see `AttentionExplorer`."""
    return AttentionExplorer(model, text)
