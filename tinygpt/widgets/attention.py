"""Attention over a text."""

import ipywidgets as widgets
import torch

from ..model import TinyGPT, evaluating
from .frame import _redraw_on_change, _slider, _tile


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


def attention_explorer(model: TinyGPT, text: str) -> AttentionExplorer:
    """Which characters each character of a text reads; see `AttentionExplorer`."""
    return AttentionExplorer(model, text)
