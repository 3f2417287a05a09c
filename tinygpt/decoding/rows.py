"""Prompts as rows of tokens, with room for what is written; what is asked for is checked here."""

import torch

from ..config import DecodingConfig
from ..errors import ConfigError
from ..model import TinyGPT
from ..text import Tokenizer
from .filters import NONE


def one(prompt: str) -> list[str]:
    """A single prompt as a list of one."""
    if not isinstance(prompt, str):
        raise ConfigError(
            f"prompt must be one text, not a {type(prompt).__name__}; for a list of texts there "
            f"are generate_batch and generate_details"
        )
    return [prompt]


def several(prompts: list[str]) -> list[str]:
    """A list of prompts."""
    if isinstance(prompts, str):
        raise ConfigError("prompts must be a list of texts; for a single one there is generate")
    return [text for prompt in prompts for text in one(prompt)]


def decoding_config(options: dict) -> DecodingConfig:
    """The settings that were given by name."""
    unknown = sorted(set(options) - set(DecodingConfig.__dataclass_fields__))
    if unknown:
        known = ", ".join(DecodingConfig.__dataclass_fields__)
        raise ConfigError(f"there is no option {', '.join(unknown)}; there are {known}")
    return DecodingConfig(**options)


def _tokenizer_of(model: TinyGPT, tokenizer: Tokenizer | None) -> Tokenizer:
    """The one that was given, or the model's own."""
    tokenizer = tokenizer or model.tokenizer
    if tokenizer is None:
        raise ConfigError("this model has no tokenizer; give one: generate(…, tokenizer=tok)")
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
    if not isinstance(max_new_tokens, int) or max_new_tokens < 0:
        raise ConfigError(f"max_new_tokens={max_new_tokens} must be a whole number, at least 0")
    longest, block = max(map(len, ids)), model.config.block_size
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

    The first `length` places are written, `last` of them when there is no more to write.
    """

    def __init__(
        self,
        model: TinyGPT,
        prompts: list[str],
        max_new_tokens: int,
        tokenizer: Tokenizer | None,
        config: DecodingConfig,
    ):
        self.model, self.config, self.prompts = model, config, prompts
        self.tokenizer = _tokenizer_of(model, tokenizer)
        ids = [self.tokenizer.encode(prompt) for prompt in prompts]
        for text in config.stop:
            self.tokenizer.encode(text)  # unknown characters are an error
        _check(model, ids, max_new_tokens, config)
        self.prompt_length = self.length = max(map(len, ids))
        shape = len(ids), self.prompt_length + max_new_tokens
        # the last token is written but never read, so there is room for one more than the block
        room = model.config.block_size + 1 if config.past_block == "stop" else shape[1]
        self.last = min(shape[1], room)
        self.tokens = torch.full(shape, NONE, device=model.device)
        for row, prompt in zip(self.tokens, ids, strict=True):
            row[self.length - len(prompt) : self.length] = torch.tensor(prompt)
        self.padding = torch.tensor([self.length - len(p) for p in ids], device=model.device)

    def new_tokens(self, row: int) -> list[int]:
        """What was written in a row."""
        return self.tokens[row, self.prompt_length : self.length].tolist()

    def text(self, row: int) -> str:
        """The row's prompt and what was written."""
        return self.prompts[row] + self.tokenizer.decode(self.new_tokens(row))
