"""The steps that a configuration asks for, in their order."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from ..config import DecodingConfig
from ..errors import ConfigError
from ..text import CharTokenizer
from .filters import (
    NONE,
    allow_only,
    apply_frequency_penalty,
    apply_repetition_penalty,
    apply_temperature,
    ban_repeated_ngrams,
    filter_epsilon,
    filter_eta,
    filter_min_p,
    filter_top_k,
    filter_top_p,
    filter_typical,
)

Processor = Callable[[Tensor, Tensor, int], Tensor]  # logits, tokens (B, T), prompt length


def processors(
    config: DecodingConfig,
    tokenizer: CharTokenizer,
    constraint: Callable | None = None,
    device: torch.device | str = "cpu",
) -> list[tuple[str, Processor]]:
    """The steps that a configuration asks for, named, in their order; none for what is off."""
    c, chain = config, []

    def add(active: bool, name: str, step: Processor) -> None:
        if active:
            chain.append((name, step))

    add(
        c.repetition_penalty != 1,
        f"repetition {c.repetition_penalty:g}",
        lambda x, t, n: apply_repetition_penalty(x, t, c.repetition_penalty, c.repetition_window),
    )
    add(
        bool(c.frequency or c.presence),
        f"frequency {c.frequency:g}, presence {c.presence:g}",
        lambda x, t, n: apply_frequency_penalty(x, t[:, n:], c.frequency, c.presence),
    )
    add(
        c.no_repeat_ngram > 0,
        f"no repeated {c.no_repeat_ngram}-gram",
        lambda x, t, n: ban_repeated_ngrams(x, t, c.no_repeat_ngram),
    )
    allowed = _allowed(c, tokenizer).to(device)
    add(not bool(allowed.all()), "bans", lambda x, t, n: allow_only(x, allowed.to(x.device)))
    add(constraint is not None, "constraint", partial(_constrain, constraint, tokenizer))
    add(
        c.temperature != 1,
        f"temperature {c.temperature:g}",
        lambda x, t, n: apply_temperature(x, c.temperature),
    )
    for name, cut, value, off in (
        ("top-k", filter_top_k, c.top_k or 0, 0),
        ("top-p", filter_top_p, c.top_p, 1),
        ("min-p", filter_min_p, c.min_p, 0),
        ("typical", filter_typical, c.typical, 1),
        ("epsilon", filter_epsilon, c.epsilon, 0),
        ("eta", filter_eta, c.eta, 0),
    ):
        add(value != off, f"{name} {value:g}", lambda x, t, n, f=cut, v=value: f(x, v))
    return chain


def process(
    logits: Tensor, tokens: Tensor, prompt_length: int, chain: list[tuple[str, Processor]]
) -> Tensor:
    """Send logits `(B, V)` through a chain; `ConfigError` names the steps that left nothing."""
    for _, step in chain:
        logits = step(logits, tokens, prompt_length)
    # only these can empty a row; elsewhere the look would make a GPU wait
    if any(name.startswith(("no repeated", "constraint")) for name, _ in chain):
        empty = logits.amax(dim=-1) == -torch.inf
        if empty.any():
            names = ", ".join(name for name, _ in chain)
            raise ConfigError(
                f"no symbol is left for row {int(empty.nonzero()[0])} after {names}; allow more"
            )
    return logits


def _allowed(config: DecodingConfig, tokenizer: CharTokenizer) -> Tensor:
    """Which symbols `allowed` and `banned` leave, `(V,)`."""
    V = tokenizer.vocab_size
    mask = torch.full((V,), config.allowed is None)
    mask[tokenizer.encode(config.allowed or "")] = True
    mask[tokenizer.encode(config.banned)] = False
    if not mask.any():
        raise ConfigError(
            f"allowed={config.allowed!r} and banned={config.banned!r} leave no symbol; allow one"
        )
    return mask


def _constrain(constraint, tokenizer, logits: Tensor, tokens: Tensor, prompt_length: int) -> Tensor:
    mask = torch.zeros_like(logits, dtype=torch.bool)
    for row, history in zip(mask, tokens, strict=True):
        symbols = constraint(tokenizer.decode(history[history != NONE]))
        row[tokenizer.encode("".join(symbols))] = True
    return allow_only(logits, mask)
