"""What experts take: which kinds of tokens, and how that comes about during training.

N tokens, C labels, E experts, K experts per token, L layers with experts
"""

import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..corpora import Corpus, take
from ..model import TinyGPT, choice_table
from .loss import positions_read
from .routing import (
    RoutingReport,
    dead_experts,
    max_violation,
    mutual_information,
    saturation,
    variation,
)

CLASSES = ("vowels", "consonants", "capitals", "space", "newline", "punctuation", "digits")


def classes(pieces: Sequence[str]) -> Tensor:
    """The class of each character or token, an index in `CLASSES`, `(T,)`."""
    return torch.tensor([CLASSES.index(_class(piece)) for piece in pieces], dtype=torch.long)


def _class(piece: str) -> str:
    """That of the first character; spaces before a word belong to the word."""
    if piece.isspace():
        return "newline" if "\n" in piece else "space"
    first = piece.lstrip()[:1]
    if first.isalpha():
        base = unicodedata.normalize("NFD", first)[0]
        small = "vowels" if base in "aeiou" else "consonants"
        return "capitals" if first.isupper() else small
    return "digits" if first.isdigit() else "punctuation"


@dataclass(frozen=True)
class Specialisation:
    """How much a token's expert tells about its label."""

    nats: float  # mutual information of label and expert
    entropy: float  # of the label, in nats: what there is to tell
    chance: float  # nats that independent choices would seem to tell, as they are few

    @property
    def share(self) -> float:
        """Of what there is to tell: 0 nothing, 1 all; nan if there is only one label."""
        return self.nats / self.entropy if self.entropy > 0 else math.nan


def specialisation(table: Tensor) -> Specialisation:
    """From how often each label went to each expert, `(C, E)`; see `Routing.table`.

    With K experts per token it is about one of them, drawn at random. Chance: Miller and Madow
    1955, as if the choices of a token were independent of each other.
    """
    kept = table[table.sum(1) > 0]
    kept = kept[:, kept.sum(0) > 0].double()
    n = max(1.0, kept.sum().item())
    entropy = torch.special.entr(kept.sum(1) / n).sum().item()
    chance = max(0, kept.shape[0] - 1) * max(0, kept.shape[1] - 1) / (2 * n)
    return Specialisation(mutual_information(kept), entropy, chance)


def token_labels(
    model: TinyGPT, corpus: Corpus, max_tokens: int | None = None
) -> dict[str, Tensor]:
    """Labels `(N,)` of the validation tokens that `measure_routing` reads: class, maybe style."""
    read = positions_read(model, len(corpus.val), max_tokens)
    found = {"class": classes(corpus.tokenizer.pieces)[take(corpus.val, read)]}
    if corpus.val_styles is not None:
        found["style"] = take(corpus.val_styles, read)
    return found


def routing_over_training(
    reports: Mapping[int, RoutingReport], labels: Mapping[str, Tensor]
) -> list[dict[str, float]]:
    """A row per step and layer: what the routers did with the same tokens as training went on.

    `reports` by step; the last one has the final routers. `labels` `(N,)` by name are of the tokens
    of the reports, as `token_labels` gives them; each adds `NAME_nats` and `NAME_share`. Layers are
    numbered from 0 among those with experts.
    """
    final = reports[max(reports)]
    layers = range(len(final.tables))
    return [
        {"step": step, "layer": layer} | _figures(reports[step], final, layer, labels)
        for step in sorted(reports)
        for layer in layers
    ]


def _figures(
    report: RoutingReport, final: RoutingReport, layer: int, labels: Mapping[str, Tensor]
) -> dict[str, float]:
    experts, load, E = report.experts[layer], report.load[layer], report.tables.shape[-1]
    same, by_chance = saturation(experts, final.experts[layer], E)
    row = {
        "load_cv": variation(load),
        "max_violation": max_violation(load),
        "dead_experts": len(dead_experts(load)),
        "entropy": report.entropy[layer].item(),
        "saturation": same,
        "saturation_by_chance": by_chance,
    }
    for name, each in labels.items():
        told = specialisation(choice_table(experts, each, int(each.max()) + 1, E))
        row |= {f"{name}_nats": told.nats, f"{name}_share": told.share}
    return row
