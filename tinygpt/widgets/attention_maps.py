"""Attention over a text, as arrays."""

from dataclasses import dataclass

import numpy as np
import torch

from ..model import TinyGPT
from ..runtime import one_thread
from .inputs import check_finite


@dataclass(frozen=True)
class Maps:
    """Attention over a text of T tokens; NaN where a query may not see a key."""

    tokens: list[int]
    weights: np.ndarray  # (L, H, T, T)
    scores: np.ndarray  # the same before the softmax

    def mapped(self, scores: bool) -> np.ndarray:
        """The scores, or the weights."""
        return self.scores if scores else self.weights


@torch.inference_mode()
def read_maps(model: TinyGPT, tokens: list[int]) -> Maps:
    """What a model attends to; `ConfigError` where that is no number."""
    idx = torch.tensor([tokens], device=model.device)
    with one_thread(model.device.type == "cpu"):
        out = model(idx, return_attention=True)
    found = []
    for layers, what in ((out.attentions, "attention"), (out.attention_scores, "scores")):
        maps = torch.cat(layers).float().cpu()  # (L, H, T, T)
        future = torch.ones(maps.shape[2:], dtype=torch.bool).triu(1)
        check_finite(maps.masked_fill(future, 0), what)
        found.append(maps.masked_fill(future, torch.nan).numpy())
    return Maps(tokens, *found)
