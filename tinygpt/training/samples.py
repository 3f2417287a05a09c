"""Texts that a model writes: while it learns, and in the end from fixed prompts, so that runs can
be read side by side."""

from typing import Any

from ..config import TrainConfig
from ..decoding import generate, generate_batch
from ..model import TinyGPT

TEMPERATURE = 0.8
PLAYS = ("\n", "ROMEO:\n", "KING RICHARD III:\n", "First Citizen:\n", "To be, or not to be")
STORIES = (
    "Once upon a time",
    "One day, a little girl named Lily",
    "Tom and his dog",
    "The sun was",
    '"Let\'s play!" said',
)
NOVELS = ("Era uma vez", "A noite", "O velho", "— Não", "Quando chegou")
ARTICLES = ("The ", "In 1990 , the", " = History = \n", "She was born in", "The first")
PROMPTS = {
    "tinyshakespeare": PLAYS,
    "tinyplays": PLAYS,
    "tinystories": STORIES,
    "tinystories-sample": STORIES,
    "wikitext-2": ARTICLES,
    "wikitext-2-valid": ARTICLES,
    "gutenberg-pt": NOVELS,
    "machado-pt": NOVELS,
}
OTHERS = ("\n", "The ", "A ", "1", "- ")


def write_sample(model: TinyGPT, config: TrainConfig, step: int) -> str:
    """The text of a step, as the settings ask for; each step has a seed of its own."""
    prompt, length, seed = config.sample_prompt, config.sample_tokens, config.seed + step
    return generate(model, prompt, length, temperature=TEMPERATURE, seed=seed)


def write_samples(model: TinyGPT, corpus: str, texts: int, length: int) -> dict[str, Any]:
    """So many texts of so many tokens from a corpus's fixed prompts, those that can be encoded.

    Each is what `generate` gives for its prompt with these settings, on the model's device.
    """
    fixed = PROMPTS.get(corpus.partition(":")[0], OTHERS)  # of "tinystories:20000", too
    prompts = [prompt for prompt in fixed if _can_read(model, prompt)]
    prompts = [prompts[i % len(prompts)] for i in range(texts)] if prompts else []
    settings = {"max_new_tokens": length, "temperature": TEMPERATURE}
    written = generate_batch(model, prompts, seed=0, **settings) if prompts else []
    rows = zip(prompts, written, strict=True)
    samples = [{"prompt": p, "seed": i, "text": text} for i, (p, text) in enumerate(rows)]
    return settings | {"samples": samples}


def _can_read(model: TinyGPT, text: str) -> bool:
    try:
        return bool(model.tokenizer.encode(text))
    except ValueError:  # as `UnknownCharacterError` is
        return False
