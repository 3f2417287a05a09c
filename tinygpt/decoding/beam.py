"""Beam search: the most probable text that a wide search finds."""

import torch
from torch import Tensor

from ..config import DecodingConfig
from ..model import TinyGPT, evaluating
from ..text import Tokenizer
from .chain import damaged
from .prompts import Rows, check_arguments, no_others, one
from .reader import Reader
from .stops import find_stop


def generate_beam(model: TinyGPT, prompt: str, max_new_tokens: int = 200, **options) -> str:
    """The best text that `beam_search` finds; the options are the same."""
    return beam_search(model, prompt, max_new_tokens, **options)[0][0]


def beam_search(
    model: TinyGPT,
    prompt: str,
    max_new_tokens: int = 200,
    *,
    n_beams: int = 4,
    length_penalty: float = 1.0,
    tokenizer: Tokenizer | None = None,
    stop: tuple[str, ...] = (),
    past_block: str = "crop",
    **unknown,
) -> list[tuple[str, float]]:
    """Keep the `n_beams` most probable continuations, grown by a token at a time.

    Returns the best texts, at most `n_beams`, with their scores in nats, best first. A score is
    the sum of log-probabilities over the new tokens, divided by their number to the power
    `length_penalty` (above 0 favours long texts; they differ in length only with `stop`).
    """
    no_others(unknown, ("n_beams", "length_penalty", "tokenizer", "stop", "past_block"))
    check_arguments(n_beams=n_beams, length_penalty=length_penalty)
    config = DecodingConfig(temperature=0.0, stop=stop, past_block=past_block)
    beams = Rows(model, one(prompt) * n_beams, max_new_tokens, tokenizer, config)
    with evaluating(model):
        finished = _search(beams, n_beams, length_penalty)
    return sorted(finished, key=lambda pair: -pair[1])[:n_beams]


@torch.inference_mode()
def _search(beams: Rows, n_beams: int, length_penalty: float) -> list[tuple[str, float]]:
    read = Reader(beams.model, beams.padding, beams.config.past_block)
    sums = torch.full((n_beams, 1), -torch.inf, device=beams.tokens.device)
    sums[0] = 0  # all beams are equal at first: only one may grow
    finished, stop, V = [], beams.config.stop, beams.tokenizer.vocab_size
    mark = beams.tokenizer.end_of_text
    ends = bool(stop) or mark is not None

    def finish(row: int, text: str, cut: int | None) -> None:
        new = beams.length - beams.prompt_length
        score = float(sums[row]) / max(1, new) ** length_penalty
        finished.append((beams.prompts[row] + text[:cut], score))

    while beams.length < beams.last and len(finished) < n_beams:
        totals = sums + read(beams.tokens, beams.length).log_softmax(dim=-1)  # (n_beams, V)
        sums, best = totals.flatten().topk(n_beams)
        sums, rows = sums[:, None], best // V
        beams.tokens.copy_(beams.tokens[rows])
        beams.tokens[:, beams.length] = best % V
        beams.length += 1
        read.reorder(rows)
        for row in _growing(sums) if ends else ():
            decoder, ended = beams.tokenizer.decoder(), int(beams.tokens[row, beams.length - 1])
            text = "".join(map(decoder.add, beams.new_tokens(row)))
            text += decoder.end() if ended == mark else ""
            if (cut := find_stop(text, stop)) is not None or ended == mark:
                finish(row, text, cut)
                sums[row] = -torch.inf  # grows no more
        if ends and not _growing(sums):
            break
    if sums.isnan().any():  # once NaN, a sum is the largest for topk and stays NaN
        raise damaged(0)
    for row in _growing(sums):
        text = beams.tokenizer.decode(beams.new_tokens(row))
        finish(row, text, find_stop(text, stop))
    return finished


def _growing(sums: Tensor) -> list[int]:
    return (sums[:, 0] > -torch.inf).nonzero()[:, 0].tolist()
