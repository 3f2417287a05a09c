"""Beam search: the most probable text that a wide search finds."""

import torch

from ..config import DecodingConfig
from ..errors import ConfigError
from ..model import TinyGPT, evaluating
from ..text import CharTokenizer
from .reader import Reader
from .writer import Writer


def generate_beam(
    model: TinyGPT,
    prompt: str,
    max_new_tokens: int = 200,
    *,
    n_beams: int = 4,
    length_penalty: float = 1.0,
    n_best: int = 1,
    tokenizer: CharTokenizer | None = None,
    stop: tuple[str, ...] = (),
    past_block: str = "crop",
) -> str | list[tuple[str, float]]:
    """Beam search: keep the `n_beams` most probable continuations, grown by a token at a time.

    The score is the sum of log-probabilities over the new tokens, divided by their number to the
    power `length_penalty` (above 0 favours long texts; they differ in length only with `stop`).
    With `n_best` above 1, the best texts with their scores in nats, best first.
    """
    _check_beams(n_beams, n_best)
    config = DecodingConfig(temperature=0.0, stop=stop, past_block=past_block)
    writer = Writer(model, [prompt] * n_beams, max_new_tokens, tokenizer, config)
    with evaluating(model):
        finished = _beam_search(writer, n_beams, length_penalty)
    best = sorted(finished, key=lambda pair: -pair[1])[:n_best]
    return best if n_best > 1 else best[0][0]


@torch.inference_mode()
def _beam_search(w: Writer, n_beams: int, length_penalty: float) -> list[tuple[str, float]]:
    read = Reader(w.model, w.padding, w.config.past_block)
    sums = torch.full((n_beams, 1), -torch.inf, device=w.tokens.device)
    sums[0] = 0  # all beams are equal at first: only one may grow
    finished, V = [], w.tokenizer.vocab_size
    last = w.tokens.shape[1]
    if w.config.past_block == "stop":
        last = min(last, w.model.config.block_size + 1)

    def score(row: int) -> float:
        new = w.length - w.prompt_length
        return float(sums[row]) / max(1, new) ** length_penalty

    while w.length < last and len(finished) < n_beams:
        totals = sums + read(w.tokens, w.length).log_softmax(dim=-1)  # (n_beams, V)
        sums, best = totals.flatten().topk(n_beams)
        sums, rows = sums[:, None], best // V
        w.tokens.copy_(w.tokens[rows])
        w.tokens[:, w.length] = best % V
        w.length += 1
        read.reorder(rows)
        for row in range(n_beams) if w.stop else ():
            new = w.new_tokens(row)
            lengths = [len(s) for s in w.stop if new[-len(s) :] == s]
            if lengths and sums[row] > -torch.inf:
                finished.append((w.text(row)[: -max(lengths)], score(row)))
                sums[row] = -torch.inf  # grows no more
        if (sums == -torch.inf).all():
            break
    alive = [row for row in range(n_beams) if sums[row] > -torch.inf]
    return finished + [(w.text(row), score(row)) for row in alive]


def _check_beams(n_beams: int, n_best: int) -> None:
    if n_beams < 1:
        raise ConfigError(f"n_beams={n_beams} must be at least 1")
    if not 1 <= n_best <= n_beams:
        raise ConfigError(f"n_best={n_best} must be between 1 and n_beams={n_beams}")
