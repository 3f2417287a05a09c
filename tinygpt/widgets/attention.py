"""Attention over a text."""

import ipywidgets as widgets
import torch

from ..model import TinyGPT, evaluating
from .frame import redraw_on_change, slider, tile, unit


class AttentionExplorer(widgets.VBox):
    """Choose a layer, a head and a token; see which tokens it reads, and how strongly."""

    def __init__(self, model: TinyGPT, text: str):
        tokens = model.tokenizer.encode(text)[: model.config.block_size]
        with torch.inference_mode(), evaluating(model):
            idx = torch.tensor([tokens], device=model.device)
            maps = model(idx, return_attention=True).attentions
        self.maps = [layer[0].cpu() for layer in maps]  # per layer (H, T, T)
        self.pieces = [model.tokenizer.pieces[token] for token in tokens]
        self.unit, last = unit(model.tokenizer), len(tokens) - 1
        self.layer = slider("layer", 0, 0, model.config.n_layer - 1)
        self.head = slider("head", 0, 0, model.config.n_head - 1)
        self.query = slider(self.unit, last, 0, last)
        self.view = widgets.HTML()
        super().__init__([self.layer, self.head, self.query, self.view])
        redraw_on_change(self._draw, self.layer, self.head, self.query)

    def _draw(self) -> None:
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
        self.view.value = (
            f"<div style='background:#FFFFFF;padding:6px;border-radius:6px;color:#111'>"
            f"{''.join(tiles)}<p>{self.unit} {t}, {query}, reads most:</p><table>"
            f"<tr><th>position</th><th>{self.unit}</th><th>weight</th></tr>{table}</table></div>"
        )


def attention_explorer(model: TinyGPT, text: str) -> AttentionExplorer:
    """Which tokens each token of a text reads; see `AttentionExplorer`."""
    return AttentionExplorer(model, text)
