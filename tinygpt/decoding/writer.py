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
from .chain import allowed_tokens, apply, check_rows, largest, processors
from .constraint import Constraint
from .prompts import Rows, check_arguments
from .reader import Reader
from .sampling import noise, pick
from .stops import Written


@dataclass
class Generated:
    """One row of what was generated; log-probabilities are in nats, one per new token."""

    text: str  # prompt and continuation
    tokens: list[int]  # the new ones
    raw_logprobs: list[float]  # under the model itself
    logprobs: list[float]  # under the distribution that was drawn from, after all filters
    stopped: bool  # by a stop text, which is not part of the text, or by the end of the text


class Writer(Rows):
    """Writes its rows token by token.

    `forced` maps a place (0: the first new token) to the token that is written there. With
    `follow`, or if rows may end earlier, `written` has the characters of each row as they come.
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
        self.forced = {} if forced is None else forced
        _check_forced(self.forced, config, self.tokenizer)
        follow = follow or bool(config.stop) or self.tokenizer.end_of_text is not None
        self.written = [Written(self.tokenizer, config.stop) for _ in prompts] if follow else []
        self.logits: list[tuple[Tensor, Tensor]] = []  # raw and processed, if `details`
        # the largest logit of each row before and after the chain, and which rows: to be checked
        self.unseen: list[tuple[Tensor, Tensor, list[int]]] = []
        # at each token; else at the end, since a look takes time, and on a GPU a wait
        self.looks = follow or any(step.can_empty for step in self.chain)

    def run(
        self,
        seed: int | None = None,
        use_cache: bool = True,
        details: bool = False,
        compile: bool = False,
        at_once: int = 1,
    ) -> Iterator[None]:
        """Write one token per row and yield, until the buffer is full or all rows have ended.

        Or yield after so many tokens `at_once`: then the modes change for all of them together.
        Without a seed each row takes one from torch's global generator. Rows of NaN or infinity
        raise `NonFiniteError`: at once if the text is followed, else at the end.
        """
        check_arguments(seed=seed, use_cache=use_cache, compile=compile)
        read = Reader(self.model, self.padding, self.config.past_block, use_cache, compile)
        luck = None
        if self.config.temperature != 0:
            generators, V = _generators(len(self.tokens), seed), self.tokenizer.vocab_size
            luck = noise(generators, V, self.last - self.length, self.tokens.device)
        return self._steps(read, luck, details, at_once)

    def _steps(
        self, read: Reader, luck: Iterator[Tensor] | None, details: bool, at_once: int
    ) -> Iterator[None]:
        small = self.model.config.n_embd <= 256 and len(self.tokens) <= 64
        while rows := self._writing():
            # not around the yield: who takes the tokens computes, and trains, as they please
            with evaluating(self.model), one_thread(small), torch.inference_mode():
                end = self.length + at_once
                while rows and self.length < end:
                    self._write(rows, read, luck, details)
                    rows = self._writing()
            yield
        self._check_unseen()
        for row in self.written:
            row.end()

    def _writing(self) -> list[int]:
        """The rows that have not ended yet."""
        rows = [i for i, end in enumerate(self.ends) if self.length < end]
        return [i for i in rows if not self.written[i].stopped] if self.written else rows

    def _write(
        self, rows: list[int], read: Reader, luck: Iterator[Tensor] | None, details: bool
    ) -> None:
        """Add a token to each row: by the next noise, or the most probable if there is none.

        The others than `rows` have ended: what is written there counts nowhere.
        """
        logits = read(self.tokens, self.length)
        processed = self._processed(logits, rows)
        choice = processed.argmax(dim=-1) if luck is None else pick(processed, next(luck))
        if (token := self.forced.get(self.length - self.prompt_length)) is not None:
            choice = torch.full_like(choice, token)  # its draw is thrown away
        self.tokens[:, self.length] = choice
        self.length += 1
        if details:
            self.logits.append((logits, processed))
        if self.written:
            chosen = choice.tolist()
            for row in rows:
                self.written[row].add(chosen[row])

    def _processed(self, logits: Tensor, rows: list[int]) -> Tensor:
        """The logits `(B, V)`, those of `rows` after the chain."""
        everything = len(rows) == len(self.prompts)
        before = after = logits if everything else logits[rows]
        if self.chain:
            tokens = self.tokens[:, : self.length]
            tokens = tokens if everything else tokens[rows]
            after = apply(before, tokens, self.prompt_length, self.chain)
        top = largest(before)
        self.unseen.append((top, largest(after) if self.chain else top, rows))
        if self.looks:
            self._check_unseen()
        return after if everything else logits.index_put((torch.tensor(rows),), after)

    def _check_unseen(self) -> None:
        """Look at the rows written since the last time: at all together, as mostly all is well."""
        if len(self.unseen) > 1:
            tops = [top for before, after, _ in self.unseen for top in (before, after)]
            if torch.cat(tops).isfinite().all():
                self.unseen.clear()
        for before, after, rows in self.unseen:
            check_rows(before, after, self.chain, rows)
        self.unseen.clear()

    def new_tokens(self, row: int) -> list[int]:
        """What was written in a row, without its stop text or end of text."""
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
    if seed is None:
        seeds = torch.randint(2**63 - 1, (count,)).tolist()
    else:
        seeds = [(seed + i) % 2**64 for i in range(count)]
    return [torch.Generator().manual_seed(s) for s in seeds]


def _check_forced(forced: dict[int, int], config: DecodingConfig, tokenizer: Tokenizer) -> None:
    whole = isinstance(forced, dict) and {type(n) for pair in forced.items() for n in pair} <= {int}
    if not whole or min(forced, default=0) < 0:
        raise ConfigError(
            f"forced={forced!r:.80} must be a dict: of places, from 0, to tokens, both whole "
            f"numbers"
        )
    allowed = allowed_tokens(config, tokenizer) if forced else ()
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
