"""Prompts as rows of tokens, with room for what is written; what is asked for is checked here."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import nn

from ..checks import Limit
from ..config import DecodingConfig, check_value
from ..errors import ConfigError, nearest
from ..model import TinyGPT
from ..text import Tokenizer
from .filters import NONE

MOST = 2**27  # tokens in a buffer: 1 GiB

Count = Annotated[int, Limit(at_least=1)]


@dataclass(frozen=True)
class Arguments:
    """What is given beside the settings of `DecodingConfig`; the hints say what it must be."""

    max_new_tokens: Annotated[int, Limit(at_least=0)]
    # torch's generators take as many
    seed: Annotated[int, Limit(at_least=-(2**63), at_most=2**64 - 1, way_out="64 bits")] | None
    n_beams: Annotated[int, Limit(at_least=1, at_most=10_000)]
    # a number of tokens to this power is a number still
    length_penalty: Annotated[float, Limit(at_least=-30, at_most=30, way_out="0: the sum itself")]
    ngram: Count
    draft: Count
    use_cache: bool
    compile: bool


def check_arguments(**values) -> None:
    """Raise `ConfigError` unless each is what `Arguments` asks for."""
    for name, value in values.items():
        check_value(Arguments, name, value)


def one(prompt: str) -> list[str]:
    """A single prompt as a list of one."""
    if not isinstance(prompt, str):
        raise ConfigError(
            f"prompt must be one text, not a {type(prompt).__name__}; for a list of texts there "
            f"are generate_batch and generate_details"
        )
    return [prompt]


def several(prompts: Iterable[str]) -> list[str]:
    """A list of prompts."""
    wrong = ConfigError(
        f"prompts must be a list of texts, not a {type(prompts).__name__}; for a single one there "
        f"is generate"
    )
    if isinstance(prompts, str):
        raise wrong
    try:
        prompts = list(prompts)
    except TypeError:
        raise wrong from None
    return [text for prompt in prompts for text in one(prompt)]


def decoding_config(options: dict) -> DecodingConfig:
    """The settings that were given by name."""
    no_others(options, DecodingConfig.__dataclass_fields__)
    return DecodingConfig(**options)


def no_others(options: Iterable[str], known: Iterable[str]) -> None:
    """Raise `ConfigError` for an option that is not among the known ones."""
    names = [*known, "max_new_tokens", "seed", "tokenizer", "constraint"]
    for unknown in sorted(set(options) - set(known)):
        near = nearest(unknown, names)
        raise ConfigError(f"there is no option {unknown}; there are {', '.join(known)}{near}")


def _check_model(model: TinyGPT) -> None:
    if not isinstance(model, nn.Module) or not hasattr(model, "config"):
        raise ConfigError(
            f"model must be a TinyGPT, not a {type(model).__name__}; it comes first, then the "
            f"prompt: generate(model, 'To be')"
        )


def _tokenizer_of(model: TinyGPT, tokenizer: Tokenizer | None) -> Tokenizer:
    """The one that was given, or the model's own."""
    tokenizer = model.tokenizer if tokenizer is None else tokenizer
    if tokenizer is None:
        raise ConfigError("this model has no tokenizer; give one: generate(…, tokenizer=tok)")
    if not isinstance(tokenizer, Tokenizer):
        raise ConfigError(
            f"tokenizer must be a Tokenizer, not a {type(tokenizer).__name__}; there are "
            f"CharTokenizer.from_text(text) and Tokenizer.load(path)"
        )
    if tokenizer.vocab_size != model.config.vocab_size:
        raise ConfigError(
            f"the tokenizer has {tokenizer.vocab_size} symbols, the model's vocab_size is "
            f"{model.config.vocab_size}; give the tokenizer that the model was trained with"
        )
    return tokenizer


def _check(
    model: TinyGPT, ids: list[list[int]], max_new_tokens: int, config: DecodingConfig
) -> None:
    """Raise `ConfigError` unless the model can go on from these prompts' tokens."""
    if not ids or not all(ids):
        raise ConfigError("a prompt is empty; give at least one character, for example '\\n'")
    check_arguments(max_new_tokens=max_new_tokens)
    longest, block = max(map(len, ids)), model.config.block_size
    if len(ids) * (longest + max_new_tokens) > MOST:
        raise ConfigError(
            f"max_new_tokens={max_new_tokens} for {len(ids)} rows: with their prompts of up to "
            f"{longest} they must be at most {MOST} tokens together; write fewer, or in parts"
        )
    if config.past_block == "stop" and longest > block:
        raise ConfigError(
            f"a prompt of {longest} tokens is longer than block_size={block}, and past_block is "
            f"'stop'; shorten it, or use past_block='crop'"
        )
    if config.past_block == "roll" and model.config.position != "rope":
        raise ConfigError(
            "past_block='roll' needs rotary positions; this model's are learned: use 'crop'"
        )


class Rows:
    """Prompts side by side in one buffer of tokens `(B, T)`, padded on the left.

    The first `length` places are written. Row i ends at place `ends[i]`, the last row at `last`.
    """

    def __init__(
        self,
        model: TinyGPT,
        prompts: list[str],
        max_new_tokens: int,
        tokenizer: Tokenizer | None,
        config: DecodingConfig,
    ):
        _check_model(model)
        self.model, self.config, self.prompts = model, config, prompts
        self.tokenizer = _tokenizer_of(model, tokenizer)
        ids = [self._read(prompt) for prompt in prompts]
        for text in config.stop:
            self.tokenizer.encode(text)  # unknown characters are an error
        _check(model, ids, max_new_tokens, config)
        self.prompt_length = self.length = max(map(len, ids))
        shape = len(ids), self.prompt_length + max_new_tokens
        padding = [self.length - len(prompt) for prompt in ids]
        # under "stop" the last token is written but never read: room for one more than the block
        room = model.config.block_size + 1 if config.past_block == "stop" else shape[1]
        self.ends = [min(shape[1], skipped + room) for skipped in padding]
        self.last = max(self.ends)
        self.tokens = torch.full(shape, NONE, device=model.device)
        for row, prompt in zip(self.tokens, ids, strict=True):
            row[self.length - len(prompt) : self.length] = torch.tensor(prompt)
        self.padding = torch.tensor(padding, device=model.device)

    def new_tokens(self, row: int) -> list[int]:
        """What was written in a row, up to the end of the text if that came."""
        end = min(self.length, self.ends[row])
        new = self.tokens[row, self.prompt_length : end].tolist()
        mark = self.tokenizer.end_of_text
        return new[: new.index(mark)] if mark in new else new

    def text(self, row: int) -> str:
        """The row's prompt and what was written."""
        return self.prompts[row] + self.tokenizer.decode(self.new_tokens(row))

    def _read(self, prompt: str) -> list[int]:
        """Its tokens; without any text what a new one follows, if the tokenizer has such a mark."""
        mark = self.tokenizer.end_of_text
        return self.tokenizer.encode(prompt) if prompt or mark is None else [mark]
