"""Rows of tokens, written side by side."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..config import DecodingConfig
from ..errors import ConfigError
from ..model import TinyGPT, evaluating
from ..runtime import one_thread
from ..text import CharTokenizer
from .chain import process, processors
from .draw import noise, pick
from .filters import NONE
from .reader import Reader

Constraint = Callable[[str], Iterable[str]]


@dataclass
class Generated:
    """One row of what was generated; log-probabilities are in nats, one per new token."""

    text: str  # prompt and continuation
    tokens: list[int]  # the new ones
    raw_logprobs: list[float]  # under the model itself
    logprobs: list[float]  # under the distribution that was drawn from, after all filters
    stopped: bool  # by a stop sequence; it is not part of the text


class Writer:
    """Rows of tokens being written side by side, in one buffer `(B, T)` padded on the left."""

    def __init__(
        self,
        model: TinyGPT,
        prompts: list[str],
        max_new_tokens: int,
        tokenizer: CharTokenizer | None,
        config: DecodingConfig,
        constraint: Constraint | None = None,
    ):
        self.model, self.config = model, config
        self.tokenizer = tokenizer = _tokenizer(model, tokenizer)
        ids = [tokenizer.encode(prompt) for prompt in prompts]
        _check_request(prompts, max_new_tokens, config, model)
        self.prompt_length = self.length = max(map(len, ids))
        shape = len(ids), self.prompt_length + max_new_tokens
        self.tokens = torch.full(shape, NONE, device=model.device)
        for row, prompt in zip(self.tokens, ids, strict=True):
            row[self.length - len(prompt) : self.length] = torch.tensor(prompt)
        self.padding = torch.tensor([self.length - len(p) for p in ids], device=model.device)
        self.chain = processors(config, tokenizer, constraint, model.device)
        self.stop = [tokenizer.encode(text) for text in config.stop]
        self.new: list[list[int]] = [[] for _ in ids]  # kept only where stop sequences need it
        self.ends: list[int | None] = [None] * len(ids)  # new tokens before the stop sequence
        self.logits: list[tuple[Tensor, Tensor]] = []  # raw and processed, if `details`

    def run(
        self,
        seed: int | None = None,
        use_cache: bool = True,
        details: bool = False,
        compile: bool = False,
    ) -> Iterator[None]:
        """Write one token per row and yield, until the buffer is full or all rows have ended."""
        last = self.tokens.shape[1]
        if self.config.past_block == "stop":
            # the last token is written but never read, so there is room for one more
            last = min(last, self.model.config.block_size + 1)
        small = self.model.config.n_embd <= 256 and len(self.tokens) <= 64
        luck = None
        if self.config.temperature != 0:
            generators, V = _generators(len(self.tokens), seed), self.tokenizer.vocab_size
            luck = noise(generators, V, last - self.length, self.tokens.device)
        with evaluating(self.model):
            read = Reader(self.model, self.padding, self.config.past_block, use_cache, compile)
            while self.length < last and None in self.ends:
                # not around the yield: who takes the tokens computes as they please
                with one_thread(small), torch.inference_mode():
                    self._write(read, luck, details)
                yield

    def _write(self, read: Reader, luck: Iterator[Tensor] | None, details: bool) -> None:
        """Add a token to each row: by the next noise, or the most probable if there is none."""
        logits = processed = read(self.tokens, self.length)
        if self.chain:
            tokens = self.tokens[:, : self.length]
            processed = process(logits, tokens, self.prompt_length, self.chain)
        choice = processed.argmax(dim=-1) if luck is None else pick(processed, next(luck))
        self.tokens[:, self.length] = choice
        self.length += 1
        if details:
            self.logits.append((logits, processed))
        if self.stop:
            self._stop(choice.tolist())

    def _stop(self, choice: list[int]) -> None:
        """End the rows whose new tokens end with a stop sequence; the longest one is cut off."""
        for i, token in enumerate(choice):
            new = self.new[i]
            new.append(token)
            lengths = [len(s) for s in self.stop if new[-len(s) :] == s]
            if lengths and self.ends[i] is None:
                self.ends[i] = len(new) - max(lengths)

    def new_tokens(self, row: int) -> list[int]:
        """What was written in a row, without its stop sequence."""
        return self.tokens[row, self.prompt_length : self.length][: self.ends[row]].tolist()

    def text(self, row: int) -> str:
        """The row's prompt and what was written."""
        prompt = self.tokens[row, self.padding[row] : self.prompt_length]
        return self.tokenizer.decode(prompt) + self.tokenizer.decode(self.new_tokens(row))

    def details(self, row: int) -> Generated:
        """The row with its log-probabilities."""
        new = self.new_tokens(row)
        logprobs = [
            [x[row].log_softmax(dim=-1)[token].item() for x, token in zip(kind, new, strict=False)]
            for kind in (zip(*self.logits, strict=True) if self.logits else ([], []))
        ]
        return Generated(self.text(row), new, *logprobs, stopped=self.ends[row] is not None)


def _generators(count: int, seed: int | None) -> list[torch.Generator]:
    generators = [torch.Generator() for _ in range(count)]
    for i, generator in enumerate(generators):
        generator.seed() if seed is None else generator.manual_seed(seed + i)
    return generators


def _tokenizer(model: TinyGPT, tokenizer: CharTokenizer | None) -> CharTokenizer:
    tokenizer = tokenizer or model.tokenizer
    if tokenizer is None:
        raise ConfigError("this model has no tokenizer; give one: generate(…, tokenizer=tok)")
    if tokenizer.vocab_size != model.config.vocab_size:
        raise ConfigError(
            f"the tokenizer has {tokenizer.vocab_size} symbols, the model's vocab_size is "
            f"{model.config.vocab_size}; give the tokenizer that the model was trained with"
        )
    return tokenizer


def _decoding_config(options: dict) -> DecodingConfig:
    unknown = sorted(set(options) - set(DecodingConfig.__dataclass_fields__))
    if unknown:
        known = ", ".join(DecodingConfig.__dataclass_fields__)
        raise ConfigError(f"there is no option {', '.join(unknown)}; there are {known}")
    return DecodingConfig(**options)


def _check_request(
    prompts: list[str], max_new_tokens: int, config: DecodingConfig, model: TinyGPT
) -> None:
    if not prompts or not all(prompts):
        raise ConfigError("a prompt is empty; give at least one character, for example '\\n'")
    if max_new_tokens < 0:
        raise ConfigError(f"max_new_tokens={max_new_tokens} must be at least 0")
    longest, block = max(map(len, prompts)), model.config.block_size
    if config.past_block == "stop" and longest > block:
        raise ConfigError(
            f"a prompt of {longest} tokens is longer than block_size={block}, and past_block is "
            f"'stop'; shorten it, or use past_block='crop'"
        )
