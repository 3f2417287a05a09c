"""From logits to text.

B batch, T time, V vocabulary
"""

import torch
from torch import Tensor

from .errors import ConfigError
from .model import TinyGPT, evaluating
from .tokenizer import CharTokenizer


def apply_temperature(logits: Tensor, t: float) -> Tensor:
    """Divide logits `(B, V)` by the temperature: below 1 sharper, above 1 flatter.

    At 0 only the largest logit of each row stays (the first of equal ones), the rest are -inf.

    >>> apply_temperature(torch.tensor([[3.0, 2.0, 1.0]]), 0.5)
    tensor([[6., 4., 2.]])
    """
    if not t >= 0:
        raise ConfigError(
            f"temperature={t} must be at least 0 (0 is greedy, 1 leaves logits alone)"
        )
    logits = logits.float()
    if t > 0:
        return logits / t
    best = logits.argmax(dim=-1, keepdim=True)
    return torch.full_like(logits, -torch.inf).scatter(-1, best, logits.gather(-1, best))


def generate(
    model: TinyGPT,
    prompt: str,
    max_new_tokens: int = 200,
    *,
    temperature: float = 1.0,
    seed: int | None = None,
    tokenizer: CharTokenizer | None = None,
) -> str:
    """The prompt and its continuation, each next token drawn from the model's distribution.

    The model sees the last `block_size` tokens. With a `seed` the same call gives the same text.
    Raises `ConfigError` for an empty prompt or a negative number, `UnknownCharacterError` for a
    prompt outside the alphabet.
    """
    tokenizer = tokenizer or model.tokenizer
    if tokenizer is None:
        raise ConfigError("this model has no tokenizer; give one: generate(…, tokenizer=tok)")
    if not prompt:
        raise ConfigError("the prompt is empty; give at least one character, for example '\\n'")
    if max_new_tokens < 0:
        raise ConfigError(f"max_new_tokens={max_new_tokens} must be at least 0")
    idx = torch.tensor([tokenizer.encode(prompt)], device=model.device)
    generator = torch.Generator()
    generator.seed() if seed is None else generator.manual_seed(seed)
    return tokenizer.decode(_continue(model, idx, max_new_tokens, temperature, generator)[0])


def generate_greedy(model: TinyGPT, prompt: str, max_new_tokens: int = 200, **more) -> str:
    """As `generate`, always with the most probable token."""
    return generate(model, prompt, max_new_tokens, temperature=0.0, **more)


def generate_temperature(
    model: TinyGPT, prompt: str, max_new_tokens: int = 200, temperature: float = 0.8, **more
) -> str:
    """As `generate`, from the distribution that `apply_temperature` sharpens or flattens."""
    return generate(model, prompt, max_new_tokens, temperature=temperature, **more)


@torch.inference_mode()
def _continue(
    model: TinyGPT, idx: Tensor, steps: int, temperature: float, generator: torch.Generator
) -> Tensor:
    with evaluating(model):
        for _ in range(steps):
            window = idx[:, -model.config.block_size :]
            logits = apply_temperature(model(window).logits[:, -1], temperature)  # (B, V)
            probabilities = logits.softmax(dim=-1).cpu()
            token = torch.multinomial(probabilities, 1, generator=generator)
            idx = torch.cat([idx, token.to(idx.device)], dim=1)
    return idx
