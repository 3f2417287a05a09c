"""A text as it is written: character by character, or token by token."""

from collections.abc import Iterator

from ..model import TinyGPT
from ..text import Tokenizer
from .constraint import Constraint
from .prompts import decoding_config, one
from .stops import Written
from .writer import Writer


def stream(
    model: TinyGPT,
    prompt: str,
    max_new_tokens: int = 200,
    *,
    seed: int | None = None,
    tokenizer: Tokenizer | None = None,
    constraint: Constraint | None = None,
    compile: bool = False,
    **options,
) -> Iterator[str]:
    """Yield the continuation as it comes; joined, it is what `generate` adds to the prompt.

    A character comes when it is complete. What may be the beginning of a stop text is held back
    until it is clear that it is not. Bad input raises here, not at the first piece.
    """
    config = decoding_config(options)
    writer = Writer(model, one(prompt), max_new_tokens, tokenizer, config, constraint, follow=True)
    return _pieces(writer.written[0], writer.run(seed, compile=compile))


def stream_tokens(
    model: TinyGPT,
    prompt: str,
    max_new_tokens: int = 200,
    *,
    seed: int | None = None,
    tokenizer: Tokenizer | None = None,
    constraint: Constraint | None = None,
    forced: dict[int, int] | None = None,
    compile: bool = False,
    **options,
) -> Iterator[int]:
    """Yield the new tokens as they come: those that `generate_details` gives.

    `forced` maps a place (0: the first new token) to the token that is written there. Its draw is
    thrown away, so that place i keeps the i-th draw of the seed. With stop texts a token is held
    back as `stream` holds its characters. Bad input raises here, not at the first token.
    """
    config = decoding_config(options)
    writer = Writer(
        model, one(prompt), max_new_tokens, tokenizer, config, constraint, forced, follow=True
    )
    return _tokens(writer.written[0], writer.run(seed, compile=compile))


def _pieces(row: Written, steps: Iterator[None]) -> Iterator[str]:
    shown = 0
    for _ in steps:
        if row.settled > shown:
            yield row.text[shown : row.settled]
            shown = row.settled
    if rest := row.text[shown:]:
        yield rest


def _tokens(row: Written, steps: Iterator[None]) -> Iterator[int]:
    shown = 0
    for _ in steps:
        new = row.tokens()[shown:]
        shown += len(new)
        yield from new
    yield from row.tokens()[shown:]
