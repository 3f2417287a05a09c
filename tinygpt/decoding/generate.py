"""From a prompt to a text."""

import re

from ..errors import ConfigError
from ..model import TinyGPT
from ..text import Tokenizer
from .constraint import Constraint
from .prompts import decoding_config, one, several
from .writer import Generated, Writer


def generate(
    model: TinyGPT,
    prompt: str,
    max_new_tokens: int = 200,
    *,
    seed: int | None = None,
    tokenizer: Tokenizer | None = None,
    constraint: Constraint | None = None,
    use_cache: bool = True,
    compile: bool = False,
    **options,
) -> str:
    """The prompt and its continuation; `generate` and `generateV2` are two names of one function.

    Without options it is plain sampling, at temperature 1; with them, every setting of
    `DecodingConfig` by name. `constraint(text)` gives the characters that may follow a text.
    `compile` is for a GPU, see `CompiledStep`. Bad input raises `ConfigError` or
    `UnknownCharacterError`, both `ValueError`, before anything is written; a model whose logits
    are NaN or infinite raises `NonFiniteError`.

    It ends when the tokenizer's end of text comes; where there is one, an empty prompt stands for
    it, so that the model begins a text.

    With a `seed` the text is always the same, and torch's global generator is left alone. Without
    one the seed is drawn from it, so that `seed_all` makes a whole notebook repeatable; in a new
    process it always starts alike, unless `torch.seed()` is called.
    """
    writer = _write(
        model,
        one(prompt),
        max_new_tokens,
        False,
        seed=seed,
        tokenizer=tokenizer,
        constraint=constraint,
        use_cache=use_cache,
        compile=compile,
        **options,
    )
    return writer.text(0)


generateV2 = generate


def generate_batch(
    model: TinyGPT, prompts: list[str], max_new_tokens: int = 200, **options
) -> list[str]:
    """Each prompt and its continuation, written side by side; the options are `generate`'s.

    Row i draws from its own generator, seeded `seed + i`, so it is what its prompt gives alone
    with that seed, whatever the settings and however long the other prompts are. (In 16-bit
    weights rounding differs with the number of rows, and a near tie may be decided otherwise.)
    """
    writer = _write(model, several(prompts), max_new_tokens, False, **options)
    return [writer.text(row) for row in range(len(writer.prompts))]


def generate_details(
    model: TinyGPT, prompts: list[str], max_new_tokens: int = 200, **options
) -> list[Generated]:
    """As `generate_batch`, with the new tokens and their log-probabilities."""
    writer = _write(model, several(prompts), max_new_tokens, True, **options)
    return [writer.details(row) for row in range(len(writer.prompts))]


def _write(
    model: TinyGPT,
    prompts: list[str],
    max_new_tokens: int,
    details: bool,
    /,
    *,
    seed: int | None = None,
    tokenizer: Tokenizer | None = None,
    constraint: Constraint | None = None,
    use_cache: bool = True,
    compile: bool = False,
    **options,
) -> Writer:
    config = decoding_config(options)
    writer = Writer(model, prompts, max_new_tokens, tokenizer, config, constraint)
    for _ in writer.run(seed, use_cache, details, compile, at_once=max_new_tokens):
        pass
    return writer


def generate_greedy(model: TinyGPT, prompt: str, max_new_tokens: int = 200, **options) -> str:
    """Always the most probable token. See `generate`."""
    if "temperature" in options:
        raise ConfigError("generate_greedy has temperature=0; for another there is generate")
    return generate(model, prompt, max_new_tokens, temperature=0.0, **options)


def generate_temperature(
    model: TinyGPT,
    prompt: str,
    max_new_tokens: int = 200,
    temperature: float = 0.8,
    **options,
) -> str:
    """From the sharpened (below 1) or flattened (above 1) distribution. See `generate`."""
    return generate(model, prompt, max_new_tokens, temperature=temperature, **options)


def generate_top_k(
    model: TinyGPT, prompt: str, max_new_tokens: int = 200, top_k: int = 10, **options
) -> str:
    """From the k most probable tokens. See `generate`."""
    return generate(model, prompt, max_new_tokens, top_k=top_k, **options)


def generate_nucleus(
    model: TinyGPT, prompt: str, max_new_tokens: int = 200, top_p: float = 0.9, **options
) -> str:
    """From the fewest tokens that together have probability p. See `generate`."""
    return generate(model, prompt, max_new_tokens, top_p=top_p, **options)


def generate_combined(
    model: TinyGPT,
    prompt: str,
    max_new_tokens: int = 200,
    temperature: float = 0.8,
    top_k: int = 20,
    top_p: float = 0.95,
    **options,
) -> str:
    """Temperature, then top-k, then top-p: a usual mixture. See `generate`."""
    cuts = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    return generate(model, prompt, max_new_tokens, **cuts, **options)


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
