"""Prompt-lookup decoding: the greedy text in fewer passes."""

import torch
from torch import Tensor

from ..config import DecodingConfig
from ..model import TinyGPT, evaluating
from ..text import Tokenizer
from .chain import check_rows, largest
from .prompts import Rows, check_arguments, no_others, one
from .reader import Reader, new_cache


def generate_lookup(
    model: TinyGPT,
    prompt: str,
    max_new_tokens: int = 200,
    *,
    ngram: int = 3,
    draft: int = 8,
    tokenizer: Tokenizer | None = None,
    **unknown,
) -> str:
    """Greedy text by prompt-lookup speculative decoding (Saxena 2023; Leviathan et al. 2023).

    When the last `ngram` tokens stood in the text before, what followed them there is taken as a
    draft of up to `draft` tokens. One forward pass then says how many of them greedy decoding would
    have written; those are kept. The text equals `generate_greedy`'s, often in fewer passes.
    """
    no_others(unknown, ("ngram", "draft", "tokenizer"))
    check_arguments(ngram=ngram, draft=draft)
    config = DecodingConfig(temperature=0.0)
    row = Rows(model, one(prompt), max_new_tokens, tokenizer, config)
    with evaluating(model):
        _speculate(row, ngram, draft)
    return row.text(0)


@torch.inference_mode()
def _speculate(w: Rows, ngram: int, draft: int) -> int:
    """Fill the row; returns the number of forward passes."""
    block, last = w.model.config.block_size, w.tokens.shape[1]
    cache, passes = new_cache(w.model, 1), 0
    while w.length < min(last, block):
        guess = _lookup(w.tokens[0, : w.length].tolist(), ngram)[:draft]
        guess = guess[: min(last, block) - w.length - 1]
        w.tokens[0, w.length : w.length + len(guess)] = torch.tensor(guess, dtype=torch.long)
        unread = w.tokens[:, cache.length : w.length + len(guess)]
        choices = _best(w.model(unread, cache=cache).logits[0, -len(guess) - 1 :])
        agreed = next(
            (i for i, (a, b) in enumerate(zip(guess, choices, strict=False)) if a != b), len(guess)
        )
        w.tokens[0, w.length : w.length + agreed + 1] = torch.tensor(choices[: agreed + 1])
        w.length += agreed + 1
        cache.length = w.length - 1  # what was guessed wrong is overwritten by what comes
        passes += 1
    read = Reader(w.model, w.padding, "crop")
    while w.length < last:  # beyond the block there is no cache to check a draft with
        w.tokens[0, w.length] = _best(read(w.tokens, w.length))[0]
        w.length += 1
        passes += 1
    return passes


def _best(logits: Tensor) -> list[int]:
    """The most probable token at each of N places, by logits `(N, V)`."""
    top = largest(logits)
    check_rows(top, top, [], rows=[0] * len(logits))
    return logits.argmax(dim=-1).tolist()


def _lookup(tokens: list[int], ngram: int) -> list[int]:
    """What followed the last earlier occurrence of the final `ngram` tokens; [] if none."""
    end = tokens[-ngram:]
    for start in range(len(tokens) - ngram - 1, -1, -1):
        if tokens[start : start + ngram] == end:
            return tokens[start + ngram :]
    return []
