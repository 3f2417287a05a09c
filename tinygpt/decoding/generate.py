"""From a prompt to a text."""

import re
from collections.abc import Iterator

from ..model import TinyGPT
from ..text import CharTokenizer
from .writer import Constraint, Generated, Writer, _decoding_config


def generateV2(
    model: TinyGPT,
    prompt: str | list[str],
    max_new_tokens: int = 200,
    *,
    seed: int | None = None,
    tokenizer: CharTokenizer | None = None,
    constraint: Constraint | None = None,
    use_cache: bool = True,
    details: bool = False,
    compile: bool = False,
    **options,
) -> str | list[str] | Generated | list[Generated]:
    """The prompt and its continuation, with every option of `DecodingConfig` by name.

    A list of prompts gives a list. Row i draws from its own generator, seeded `seed + i`, so it
    is what that prompt would give alone. `constraint(text)` gives the symbols that may follow a
    text. With `details`, a `Generated` with tokens and log-probabilities. `compile` is for a GPU,
    see `CompiledStep`. Bad input raises `ConfigError` or `UnknownCharacterError`, both
    `ValueError`, before anything is written.
    """
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    config = _decoding_config(options)
    writer = Writer(model, prompts, max_new_tokens, tokenizer, config, constraint)
    for _ in writer.run(seed, use_cache, details, compile):
        pass
    results = [writer.details(i) if details else writer.text(i) for i in range(len(prompts))]
    return results[0] if isinstance(prompt, str) else results


def generate(model: TinyGPT, prompt: str | list[str], max_new_tokens: int = 200, **options):
    """The prompt and its continuation: plain sampling, at temperature 1. See `generateV2`."""
    return generateV2(model, prompt, max_new_tokens, **options)


def generate_greedy(model: TinyGPT, prompt: str | list[str], max_new_tokens: int = 200, **options):
    """Always the most probable token. See `generateV2`."""
    return generateV2(model, prompt, max_new_tokens, temperature=0.0, **options)


def generate_temperature(
    model: TinyGPT,
    prompt: str | list[str],
    max_new_tokens: int = 200,
    temperature: float = 0.8,
    **options,
):
    """From the sharpened (below 1) or flattened (above 1) distribution. See `generateV2`."""
    return generateV2(model, prompt, max_new_tokens, temperature=temperature, **options)


def generate_top_k(
    model: TinyGPT, prompt: str | list[str], max_new_tokens: int = 200, top_k: int = 10, **options
):
    """From the k most probable tokens. See `generateV2`."""
    return generateV2(model, prompt, max_new_tokens, top_k=top_k, **options)


def generate_nucleus(
    model: TinyGPT,
    prompt: str | list[str],
    max_new_tokens: int = 200,
    top_p: float = 0.9,
    **options,
):
    """From the fewest tokens that together have probability p. See `generateV2`."""
    return generateV2(model, prompt, max_new_tokens, top_p=top_p, **options)


def generate_combined(
    model: TinyGPT,
    prompt: str | list[str],
    max_new_tokens: int = 200,
    temperature: float = 0.8,
    top_k: int = 20,
    top_p: float = 0.95,
    **options,
):
    """Temperature, then top-k, then top-p: a usual mixture. See `generateV2`."""
    cuts = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    return generateV2(model, prompt, max_new_tokens, **cuts, **options)


def stream(
    model: TinyGPT,
    prompt: str,
    max_new_tokens: int = 200,
    *,
    seed: int | None = None,
    tokenizer: CharTokenizer | None = None,
    constraint: Constraint | None = None,
    compile: bool = False,
    **options,
) -> Iterator[str]:
    """Yield the continuation as it comes; joined, it is what `generateV2` adds to the prompt.

    What may be the beginning of a stop sequence is held back until it is clear that it is not.
    Bad input raises here, not at the first piece.
    """
    config = _decoding_config(options)
    writer = Writer(model, [prompt], max_new_tokens, tokenizer, config, constraint)
    return _pieces(writer, writer.run(seed, compile=compile))


def _pieces(writer: Writer, steps: Iterator[None]) -> Iterator[str]:
    shown = 0
    for _ in steps:
        new = writer.tokenizer.decode(writer.new_tokens(0))
        safe = len(new) - (_unfinished(new, writer.config.stop) if None in writer.ends else 0)
        if safe > shown:
            yield new[shown:safe]
            shown = safe
    if rest := writer.tokenizer.decode(writer.new_tokens(0))[shown:]:
        yield rest


def _unfinished(text: str, stop: tuple[str, ...]) -> int:
    """Length of the longest end of a text that begins a stop sequence."""
    lengths = [n for s in stop for n in range(1, len(s)) if text.endswith(s[:n])]
    return max(lengths, default=0)


def clean_text(text: str) -> str:
    """A sample tidied for display: no unfinished last line, no stray or doubled spaces and lines.

    A speaker's name without a speech at the end goes, too. A single line is left as it is.

    >>> clean_text("ROMEO:\\nAy  me. \\n\\n\\n\\nJULIET:\\nO Rom")
    'ROMEO:\\nAy me.'
    """
    lines = [re.sub(r"[ \t]+", " ", line).strip() for line in text.split("\n")]
    if len(lines) > 1:
        lines = lines[:-1]  # it may have been cut off anywhere
    while lines and (not lines[-1] or lines[-1].endswith(":")):
        lines.pop()
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip("\n")
