"""Rows of tokens, written side by side."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..config import DecodingConfig
from ..errors import ConfigError
from ..model import TinyGPT, evaluating
from ..runtime import one_thread
from ..text import Tokenizer
from .chain import allowed_tokens, process, processors
from .constraint import Constraint
from .draw import noise, pick
from .reader import Reader
from .rows import Rows
from .stops import Written


@dataclass
class Generated:
    """One row of what was generated; log-probabilities are in nats, one per new token."""

    text: str  # prompt and continuation
    tokens: list[int]  # the new ones
    raw_logprobs: list[float]  # under the model itself
    logprobs: list[float]  # under the distribution that was drawn from, after all filters
    stopped: bool  # by a stop text; it is not part of the text


class Writer(Rows):
    """Writes its rows token by token.

    `forced` maps a place (0: the first new token) to the token that is written there. With
    `follow`, or with stop texts, `written` has the characters of each row as they come.
    """

    def __init__(
        self,
        model: TinyGPT,
        prompts: list[str],
        max_new_tokens: int,
        tokenizer: Tokenizer | None,
        config: DecodingConfig,
        constraint: Constraint | None = None,
        forced: dict[int, int] | None = None,
        follow: bool = False,
    ):
        super().__init__(model, prompts, max_new_tokens, tokenizer, config)
        self.chain = processors(config, self.tokenizer, constraint, model.device)
        self.forced = forced or {}
        if self.forced:
            _check_forced(self.forced, config, self.tokenizer)
        follow = follow or bool(config.stop)
        self.written = [Written(self.tokenizer, config.stop) for _ in prompts] if follow else []
        self.logits: list[tuple[Tensor, Tensor]] = []  # raw and processed, if `details`

    def run(
        self,
        seed: int | None = None,
        use_cache: bool = True,
        details: bool = False,
        compile: bool = False,
    ) -> Iterator[None]:
        """Write one token per row and yield, until the buffer is full or all rows have ended."""
        small = self.model.config.n_embd <= 256 and len(self.tokens) <= 64
        luck = None
        if self.config.temperature != 0:
            generators, V = _generators(len(self.tokens), seed), self.tokenizer.vocab_size
            luck = noise(generators, V, self.last - self.length, self.tokens.device)
        with evaluating(self.model):
            read = Reader(self.model, self.padding, self.config.past_block, use_cache, compile)
            while self.length < self.last and not self._stopped():
                # not around the yield: who takes the tokens computes as they please
                with one_thread(small), torch.inference_mode():
                    self._write(read, luck, details)
                yield
        for row in self.written:
            row.end()

    def _stopped(self) -> bool:
        return bool(self.written) and all(row.stopped for row in self.written)

    def _write(self, read: Reader, luck: Iterator[Tensor] | None, details: bool) -> None:
        """Add a token to each row: by the next noise, or the most probable if there is none."""
        logits = processed = read(self.tokens, self.length)
        if self.chain:
            tokens = self.tokens[:, : self.length]
            processed = process(logits, tokens, self.prompt_length, self.chain)
        choice = processed.argmax(dim=-1) if luck is None else pick(processed, next(luck))
        if (token := self.forced.get(self.length - self.prompt_length)) is not None:
            choice = torch.full_like(choice, token)  # its draw is thrown away
        self.tokens[:, self.length] = choice
        self.length += 1
        if details:
            self.logits.append((logits, processed))
        if self.written:
            for row, token in zip(self.written, choice.tolist(), strict=True):
                row.add(token)

    def new_tokens(self, row: int) -> list[int]:
        """What was written in a row, without its stop text."""
        return self.written[row].tokens() if self.written else super().new_tokens(row)

    def text(self, row: int) -> str:
        """The row's prompt and what was written."""
        if self.written:
            return self.prompts[row] + self.written[row].text
        return super().text(row)

    def details(self, row: int) -> Generated:
        """The row with its log-probabilities."""
        new = self.new_tokens(row)
        logprobs = [
            [x[row].log_softmax(dim=-1)[token].item() for x, token in zip(kind, new, strict=False)]
            for kind in (zip(*self.logits, strict=True) if self.logits else ([], []))
        ]
        stopped = bool(self.written) and self.written[row].stopped
        return Generated(self.text(row), new, *logprobs, stopped=stopped)


def _generators(count: int, seed: int | None) -> list[torch.Generator]:
    generators = [torch.Generator() for _ in range(count)]
    for i, generator in enumerate(generators):
        generator.seed() if seed is None else generator.manual_seed(seed + i)
    return generators


def _check_forced(forced: dict[int, int], config: DecodingConfig, tokenizer: Tokenizer) -> None:
    allowed = allowed_tokens(config, tokenizer)
    for place, token in forced.items():
        if not 0 <= token < len(allowed):
            raise ConfigError(
                f"token {token}, forced at place {place}, must be from 0 to {len(allowed) - 1}"
            )
        if not allowed[token]:
            raise ConfigError(
                f"token {token} ({tokenizer.pieces[token]!r}) is forced at place {place}, but "
                f"`banned` or `allowed` rules it out; take one of them back"
            )
