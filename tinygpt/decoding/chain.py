"""The steps that a configuration asks for, in their order."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..config import DecodingConfig
from ..errors import ConfigError, NonFiniteError
from ..text import Tokenizer
from .constraint import Constrained, Constraint
from .filters import (
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

Function = Callable[[Tensor, Tensor, int], Tensor]  # logits, tokens (B, T), prompt length


@dataclass(frozen=True)
class Processor:
    """One step between the model's logits and the draw: its name, its value, what it does."""

    name: str  # "top-k"
    value: float | None  # 10; None: it has no number
    function: Function
    shown: str = ""  # what stands on its label, if not its name and value
    can_empty: bool = False  # whether it may leave a row without any token

    @property
    def label(self) -> str:
        """The step as it is shown: "top-k 10"."""
        if self.shown or self.value is None:
            return self.shown or self.name
        number = f"{self.value:g}" if isinstance(self.value, float) else self.value
        return f"{self.name} {number}"

    def __call__(self, logits: Tensor, tokens: Tensor, prompt_length: int) -> Tensor:
        """Logits `(B, V)` after tokens `(B, T)`, the first of which are the prompt -> `(B, V)`."""
        return self.function(logits, tokens, prompt_length)


def processors(
    config: DecodingConfig,
    tokenizer: Tokenizer,
    constraint: Constraint | None = None,
    device: torch.device | str = "cpu",
) -> list[Processor]:
    """The steps that a configuration asks for, in their order; none for what is off."""
    c, chain = config, []

    def add(active: bool, name: str, value: float | None, function: Function, **more) -> None:
        if active:
            chain.append(Processor(name, value, function, **more))

    add(
        c.repetition_penalty != 1,
        "repetition",
        c.repetition_penalty,
        lambda x, t, n: apply_repetition_penalty(x, t, c.repetition_penalty, c.repetition_window),
    )
    add(
        bool(c.frequency or c.presence),
        "frequency",
        c.frequency,
        lambda x, t, n: apply_frequency_penalty(x, t[:, n:], c.frequency, c.presence),
        shown=f"frequency {c.frequency:g}, presence {c.presence:g}",
    )
    add(
        c.no_repeat_ngram > 0,
        "no repeated n-gram",
        c.no_repeat_ngram,
        lambda x, t, n: ban_repeated_ngrams(x, t, c.no_repeat_ngram),
        shown=f"no repeated {c.no_repeat_ngram}-gram",
        can_empty=True,
    )
    if c.banned or c.allowed is not None:
        allowed = allowed_tokens(c, tokenizer).to(device)
        add(not allowed.all(), "bans", None, lambda x, t, n: allow_only(x, allowed.to(x.device)))
    if constraint is not None:
        add(True, "constraint", None, Constrained(constraint, tokenizer), can_empty=True)
    for name, cut, value, off in (
        ("temperature", apply_temperature, c.temperature, 1),
        ("top-k", filter_top_k, c.top_k or 0, 0),
        ("top-p", filter_top_p, c.top_p, 1),
        ("min-p", filter_min_p, c.min_p, 0),
        ("typical", filter_typical, c.typical, 1),
        ("epsilon", filter_epsilon, c.epsilon, 0),
        ("eta", filter_eta, c.eta, 0),
    ):
        add(value != off, name, value, lambda x, t, n, f=cut, v=value: f(x, v))
    return chain


def process(logits: Tensor, tokens: Tensor, prompt_length: int, chain: list[Processor]) -> Tensor:
    """Send logits `(B, V)` through a chain.

    Raises `ConfigError`, which names row and steps, if nothing is left of a row, and
    `NonFiniteError` if it held NaN or infinity before.
    """
    processed = apply(logits, tokens, prompt_length, chain)
    check_rows(largest(logits), largest(processed), chain)
    return processed


def apply(logits: Tensor, tokens: Tensor, prompt_length: int, chain: list[Processor]) -> Tensor:
    """As `process`, without a look at what is left: on a GPU it would wait for the result."""
    for step in chain:
        logits = step(logits, tokens, prompt_length)
    return logits


def largest(logits: Tensor) -> Tensor:
    """The largest logit of each row `(B,)`: finite exactly if a token can be drawn from it."""
    return logits.amax(dim=-1)


def check_rows(
    before: Tensor, after: Tensor, chain: list[Processor], rows: Sequence[int] | None = None
) -> None:
    """Raise unless the `largest` logits are finite before and after a chain; `rows` are named."""
    for i, (raw, left) in enumerate(zip(before.tolist(), after.tolist(), strict=True)):
        if math.isfinite(raw) and math.isfinite(left):
            continue
        row, labels = rows[i] if rows else i, ", ".join(step.label for step in chain)
        if not math.isfinite(raw):
            raise damaged(row)
        if left == -math.inf:
            raise ConfigError(f"no symbol is left for row {row} after {labels}; allow more")
        raise ConfigError(
            f"the logits of row {row} are NaN or infinite after {labels}; use milder values"
        )


def damaged(row: int) -> NonFiniteError:
    """The error for a row whose logits are no numbers before any step."""
    return NonFiniteError(
        f"the model's logits for row {row} are NaN or infinite; its weights are damaged, or too "
        f"large for their type: load them anew, or use model.float()"
    )


def allowed_tokens(config: DecodingConfig, tokenizer: Tokenizer) -> Tensor:
    """Which tokens `allowed` and `banned` leave, `(V,)`."""
    mask = torch.full((tokenizer.vocab_size,), config.allowed is None)
    mask[tokenizer.made_of(config.allowed or "")] = True
    mask[tokenizer.containing(config.banned)] = False
    if not mask.any():
        raise ConfigError(
            f"allowed={config.allowed!r} and banned={config.banned!r} leave no symbol; allow one"
        )
    return mask
