"""What attention heads do with a text, in figures per head; and the model without some of them.

B batch, H heads, T queries and as many keys, L layers, n tokens of a split
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from ..corpora import take
from ..errors import ConfigError
from ..model import TinyGPT, evaluating
from ..runtime import autocast
from ..text import Tokenizer
from .intervals import holm, unpaired_difference
from .loss import split_batches
from .reading import sharing

if TYPE_CHECKING:
    import pandas as pd

FIGURES = ("entropy", "distance", "previous_token", "same_token", "speaker_line")
PARAGRAPH = re.compile(rb"([^\n]+)\n(?:[^\n]+\n)*\n*")


@torch.inference_mode()
def measure_heads(
    model: TinyGPT,
    tokens: Tensor,
    tokenizer: Tokenizer,
    max_tokens: int | None = None,
    precision: str = "auto",
) -> "pd.DataFrame":
    """A row per head: how its attention is spread over a split, read in windows as by `evaluate`.

    All are means over queries. The first token of a window, which sees but itself, is no query;
    all later ones count alike, so the longer the window, the larger entropy and distance can be.

    entropy: of the weights, in nats. distance: how far back a query looks on average, in tokens.
    previous_token: the weight on the token before. same_token: the weight on earlier tokens that
    are the query's own (of characters: the same letter). speaker_line: the weight on the `NAME:`
    of the current speech, see `speaker_lines`. A query for which there is no such place in its
    window does not count for that figure; NaN if there is none at all.
    """
    means = _Means(model.config.n_layer, model.config.n_head)
    for x, places in _windows(model, tokens, tokenizer, max_tokens):
        with evaluating(model), autocast(model.device, precision):
            maps = model(x, return_attention=True).attentions
        for layer, weights in enumerate(maps):
            means.add(layer, head_figures(weights, places))
    return means.table()


@torch.inference_mode()
def measure_even(
    model: TinyGPT, tokens: Tensor, tokenizer: Tokenizer, max_tokens: int | None = None
) -> dict[str, float]:
    """The figures of a head that attends alike to all it sees: what other heads are held against.

    Of the model its windows count, not its weights.
    """
    means = _Means(1, 1)
    for x, places in _windows(model, tokens, tokenizer, max_tokens):
        weights = torch.ones(x.shape[1], x.shape[1], device=x.device).tril()
        weights = weights / weights.sum(-1, keepdim=True)
        means.add(0, head_figures(weights.expand(len(x), 1, -1, -1), places))
    return means.table().loc[0, list(FIGURES)].to_dict()


def map_figures(weights: Tensor, tokens: Tensor, tokenizer: Tokenizer) -> dict[str, float]:
    """The figures of one attention map `(T, T)`, over a text of T tokens that is one window."""
    positions, lines = torch.arange(len(tokens)), speaker_lines(tokens, tokenizer)
    places = looked_for(tokens[None], positions[None], lines[None])
    found = head_figures(weights[None, None], places)[:, 0, 0]
    return dict(zip(FIGURES, found.nanmean(-1).tolist(), strict=True))


def head_figures(weights: Tensor, places: Tensor) -> Tensor:
    """The five figures of each query, from attention weights `(B, H, T, T)`: `(5, B, H, T)`.

    places `(3, B, T, T)` are True at the keys whose weights are added up for the last three; where
    a query has none, and for the first query, they are NaN.
    """
    t = torch.arange(weights.shape[-1], device=weights.device)
    distance = (weights * (t[:, None] - t)).sum(-1)
    spread = torch.stack([torch.special.entr(weights).sum(-1), distance])
    shares = torch.einsum("bhts,fbts->fbht", weights, places.type_as(weights))
    shares = shares.masked_fill(~places.any(-1)[:, :, None], torch.nan)
    found = torch.cat([spread, shares])
    found[..., 0] = torch.nan
    return found


def speaker_lines(tokens: Tensor, tokenizer: Tokenizer) -> Tensor:
    """Where the name of each token's speaker starts and stops: places `(n, 2)` in the split.

    A speech begins with the split or after an empty line. If its first line ends in a colon, that
    line, without its end, is the name for all tokens after it, up to the next speech. Elsewhere,
    and in the name itself, start and stop are 0.
    """
    parts = [tokenizer.token_bytes(token) for token in tokens.tolist()]
    token_of = np.repeat(np.arange(len(parts)), [len(part) for part in parts]).tolist()
    token_of.append(len(parts) - 1)  # of a last line end
    lines = torch.zeros(len(parts), 2, dtype=torch.long)
    for speech in PARAGRAPH.finditer(b"".join(parts) + b"\n"):
        if speech[1].endswith(b":"):
            start, stop = token_of[speech.start()], token_of[speech.end(1) - 1] + 1
            lines[stop : token_of[speech.end() - 1] + 1] = torch.tensor([start, stop])
    return lines


def _windows(
    model: TinyGPT, tokens: Tensor, tokenizer: Tokenizer, max_tokens: int | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Windows `(B, T)` over a split, and what `head_figures` must know of their tokens."""
    lines = speaker_lines(tokens, tokenizer)
    for positions, _ in split_batches(model, torch.arange(len(tokens)), max_tokens):
        at = positions.cpu()
        x = take(tokens, at.to(tokens.device)).to(positions.device)
        yield x, looked_for(x, positions, lines[at].to(positions.device))


def looked_for(x: Tensor, positions: Tensor, lines: Tensor) -> Tensor:
    """Keys `(3, B, T, T)`: the token before, equal ones before, the speaker's line.

    Of tokens `(B, T)` at these positions, with their lines `(B, T, 2)`; a line that is not whole
    in its window does not count.
    """
    earlier = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril(-1)
    previous = (earlier & ~earlier.tril(-2)).expand(len(x), -1, -1)
    same = (x[:, :, None] == x[:, None]) & earlier
    start, stop = lines[..., :1], lines[..., 1:]
    key, first = positions[:, None], positions[:, :1, None]
    return torch.stack([previous, same, (start >= first) & (key >= start) & (key < stop)])


class _Means:
    """Means over queries, of each figure in each layer and head; what is NaN does not count."""

    def __init__(self, n_layer: int, n_head: int):
        self.sums, self.counts = torch.zeros(2, n_layer, n_head, len(FIGURES)).double()

    def add(self, layer: int, figures: Tensor) -> None:
        """Figures `(5, B, H, T)` of a layer."""
        figures = figures.cpu().double()
        self.sums[layer] += figures.nansum((1, 3)).T
        self.counts[layer] += (~figures.isnan()).sum((1, 3)).T

    def table(self) -> "pd.DataFrame":
        import pandas as pd

        L, H, _ = self.sums.shape
        means = (self.sums / self.counts).flatten(0, 1)
        places = pd.MultiIndex.from_product([range(L), range(H)], names=["layer", "head"])
        return pd.DataFrame(means.numpy(), places, list(FIGURES)).reset_index()


def compare_spread(
    heads: "pd.DataFrame", first: str, second: str, figures: Sequence[str] = FIGURES
) -> "pd.DataFrame":
    """Do the heads of one arm differ more among themselves than those of another?

    heads: the rows of `measure_heads`, with their `arm` and `seed`. The heads of a model were
    trained together, so a run counts as one: by the standard deviation of a figure over its heads.
    A row per figure: the mean of that in both arms, the difference by Welch's t-test over runs,
    and its p-value also with Holm's correction for the number of figures.
    """
    import pandas as pd

    if missing := {first, second} - set(heads["arm"]):
        raise ConfigError(f"no heads of {missing}; the arms are {sorted(set(heads['arm']))}")
    spread = heads.groupby(["arm", "seed"])[list(figures)].std().dropna(axis="columns", how="all")
    rows = []
    for figure, values in spread.items():
        one, other = values[first], values[second]
        found = unpaired_difference(one.tolist(), other.tolist())
        rows.append((figure, one.mean(), other.mean(), found.mean, found.low, found.high, found.p))
    names = ["figure", first, second, "difference", "low", "high", "p"]
    table = pd.DataFrame(rows, columns=names)
    return table.assign(p_holm=holm(table["p"].tolist()))


def without_heads(model: TinyGPT, heads: Iterable[tuple[int, int]]) -> TinyGPT:
    """The same model, with the output of some heads, `(layer, head)`, taken as zero.

    All other weights are shared with the model, whose mode it has. The columns of `c_proj` that
    read these heads are zero, so it holds in every way of reading and writing.
    """
    other, config = sharing(model), model.config
    for layer, head in heads:
        if not (0 <= layer < config.n_layer and 0 <= head < config.n_head):
            raise ConfigError(
                f"there is no head {head} in layer {layer}; layers go from 0 to "
                f"{config.n_layer - 1}, heads from 0 to {config.n_head - 1}"
            )
        c_proj = other.blocks[layer].attn.c_proj
        cut = c_proj.weight.detach().clone()
        cut.view(config.n_embd, config.n_head, -1)[:, head] = 0
        c_proj.weight = nn.Parameter(cut)
    return other
