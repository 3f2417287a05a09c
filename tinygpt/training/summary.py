"""What is told of a shipped run: what it came to, what it cost, and texts that it writes."""

import math
from typing import Any

from ..decoding import generate_batch
from ..errors import UnknownCharacterError
from ..measure import (
    count_parameters,
    count_predictions,
    dead_experts,
    evaluate,
    flops_per_token,
    max_violation,
    measure_routing,
    variation,
)
from ..model import TinyGPT
from ..text import Corpus
from .checkpoint import Checkpoint, train_settings
from .manifest import SUMMARY
from .preflight import tokens_per_step

PROMPTS = ("\n", "ROMEO:\n", "KING RICHARD III:\n", "First Citizen:\n", "To be, or not to be")
TEXTS, LENGTH, TEMPERATURE = 10, 300, 0.8


def summarise(model: TinyGPT, saved: Checkpoint, corpus: Corpus | None) -> dict[str, Any]:
    """The content of summary.json, for a model with the weights that are stored.

        val_lm_loss                nats per token on the whole validation split, in float32
        val_tokens                 of how many tokens that is the mean
        perplexity, bits_per_char  the same loss, in other units
        parameters                 numbers of weights
        active_parameters          of which one token passes through these
        training_flops_per_token   see `flops_per_token`
        updates, tokens, seconds   of the training up to these weights, with its evaluations
        device, processor          where it was made: "cpu" or "cuda", and the maker's name
        moe                        of experts, a figure per layer: see `RoutingReport`; else null

    What is not known is null: without the text (`corpus`), all that is measured on it.
    """
    counts = count_parameters(model)
    return {
        **(_losses(model, corpus) if corpus else dict.fromkeys(LOSSES)),
        "parameters": counts.total,
        "active_parameters": counts.active,
        "training_flops_per_token": flops_per_token(model),
        **_history(model, saved),
        "moe": _balance(model, corpus) if corpus and model.config.moe else None,
    }


LOSSES = ("val_lm_loss", "val_tokens", "perplexity", "bits_per_char")
HISTORY = ("updates", "tokens", "seconds", "device", "processor")


def whole_loss(model: TinyGPT, corpus: Corpus) -> float:
    """Cross-entropy in nats per token on the whole validation split, computed in float32."""
    return evaluate(model, corpus.val, precision="fp32")


def _losses(model: TinyGPT, corpus: Corpus) -> dict[str, float]:
    loss = whole_loss(model, corpus)
    bits = corpus.val_size.nats_per_character(loss) / math.log(2)
    values = loss, count_predictions(model, corpus.val), math.exp(min(loss, 700)), bits
    return dict(zip(LOSSES, values, strict=True))


def _history(model: TinyGPT, saved: Checkpoint) -> dict[str, Any]:
    """How the weights were made; of a run that was shipped before, what was said then."""
    if not saved.state:
        before = saved.about.get(SUMMARY, {})
        return {name: before.get(name) for name in HISTORY}
    step = saved.state["step"]
    tokens = step * tokens_per_step(model, train_settings(saved.settings))
    device = "cuda" if "rng.device" in saved.training else "cpu"
    values = step, tokens, saved.state["seconds"], device, saved.settings.get("processor")
    return dict(zip(HISTORY, values, strict=True))


def _balance(model: TinyGPT, corpus: Corpus) -> dict[str, list[float]]:
    report = measure_routing(model, corpus.val, precision="fp32")
    return {
        "load_cv": [variation(load) for load in report.load],
        "max_violation": [max_violation(load) for load in report.load],
        "dead_experts": [len(dead_experts(load)) for load in report.load],
        "entropy": report.entropy.tolist(),
        "balance_loss": report.balance_loss.tolist(),
    }


def write_samples(model: TinyGPT) -> dict[str, Any]:
    """The content of samples.json: texts from fixed prompts, as far as the alphabet has them.

    Each is what `generate` gives for its prompt with these settings, on a CPU.
    """
    prompts = [prompt for prompt in PROMPTS if _can_read(model, prompt)]
    prompts = [prompts[i % len(prompts)] for i in range(TEXTS)] if prompts else []
    settings = {"max_new_tokens": LENGTH, "temperature": TEMPERATURE}
    texts = generate_batch(model, prompts, seed=0, **settings) if prompts else []
    rows = zip(prompts, texts, strict=True)
    samples = [{"prompt": p, "seed": i, "text": text} for i, (p, text) in enumerate(rows)]
    return settings | {"samples": samples}


def _can_read(model: TinyGPT, text: str) -> bool:
    try:
        return bool(model.tokenizer.encode(text))
    except UnknownCharacterError:
        return False
