"""What is told of a run, finished or shipped: what it came to, and what it cost."""

from typing import Any

from torch import Tensor

from ..corpora import Corpus
from ..measure import (
    count_parameters,
    count_predictions,
    count_words,
    dead_experts,
    evaluate,
    flops_per_token,
    in_units,
    max_violation,
    measure_routing,
    variation,
)
from ..model import TinyGPT
from .checkpoint import Checkpoint, train_settings
from .manifest import SUMMARY
from .preflight import tokens_seen

UNITS = ("perplexity_per_token", "perplexity_per_word", "bits_per_char", "bits_per_byte")
LOSSES = tuple(
    f"{split}_{name}" for split in ("val", "test") for name in ("lm_loss", "tokens", *UNITS)
)
HISTORY = ("updates", "tokens", "seconds", "device", "processor")
MEASURED = ("tokens_per_s", "peak_gpu_gb", "peak_rss_gb")
ROUTED = 1 << 17  # tokens on which the balance of experts is measured


def summarise(
    model: TinyGPT,
    saved: Checkpoint,
    corpus: Corpus | None,
    measured: dict[str, float | None] | None = None,
    val_loss: float | None = None,
) -> dict[str, Any]:
    """The content of summary.json, for a model with the weights that are stored.

        weights                    which they are: those with the lowest loss of all evaluations
        val_lm_loss                nats per token on the whole validation split, in float32
        val_tokens                 of how many tokens that is the mean
        val_perplexity_per_token   and per word, bits per char and byte: the same loss, `in_units`
        test_...                   the same figures of the test split, where the corpus has one
        window, stride             tokens of a window, and from one to the next: see `evaluate`
        mean_context               tokens that a prediction sees, itself not counted, in the mean
        parameters                 numbers of weights
        active_parameters          of which one token passes through these
        training_flops_per_token   see `flops_per_token`
        forward_flops_per_token    of the forward pass alone
        updates, tokens, seconds   of the training up to these weights, with its evaluations
        device, processor          where it was made: "cpu" or "cuda", and the maker's name
        tokens_per_s               of the median update: see `Pace`
        peak_gpu_gb, peak_rss_gb   most memory used: on the GPU, or else by the whole process
        moe                        of experts, a figure per layer: see `RoutingReport`; else null

    What is not known is null: without the text (`corpus`), all that is measured on it. `val_loss`
    is the loss on the validation split if it has been measured already.
    """
    counts, T = count_parameters(model), model.config.block_size
    return {
        "weights": "best",
        **dict.fromkeys(LOSSES),
        **(_losses(model, corpus, val_loss) if corpus else {}),
        "window": T,
        "stride": T,
        "mean_context": (T + 1) / 2,
        "parameters": counts.total,
        "active_parameters": counts.active,
        "training_flops_per_token": flops_per_token(model),
        "forward_flops_per_token": flops_per_token(model, training=False),
        **_history(model, saved),
        **dict.fromkeys(MEASURED),
        **(measured or {}),
        "moe": _balance(model, corpus) if corpus and model.config.moe else None,
    }


def whole_loss(model: TinyGPT, corpus: Corpus) -> float:
    """Cross-entropy in nats per token on the whole validation split, computed in float32."""
    return evaluate(model, corpus.val, precision="fp32")


def _losses(model: TinyGPT, corpus: Corpus, val_loss: float | None) -> dict[str, Any]:
    """The figures of both splits, from the same weights."""
    val_loss = whole_loss(model, corpus) if val_loss is None else val_loss
    figures = _of_split("val", model, corpus.val, val_loss)
    if corpus.test is not None and len(corpus.test) > 1:
        test_loss = evaluate(model, corpus.test, precision="fp32")
        figures |= _of_split("test", model, corpus.test, test_loss)
    return figures


def _of_split(split: str, model: TinyGPT, tokens: Tensor, loss: float) -> dict[str, Any]:
    tokenizer = model.tokenizer
    units = in_units(loss, tokenizer.size(tokens), count_words(tokenizer, tokens))
    figures = {"lm_loss": loss, "tokens": count_predictions(model, tokens), **units}
    return {f"{split}_{name}": value for name, value in figures.items()}


def _history(model: TinyGPT, saved: Checkpoint) -> dict[str, Any]:
    """How the weights were made; of a run that was shipped before, what was said then."""
    if not saved.state:
        before = saved.about.get(SUMMARY, {})
        return {name: before.get(name) for name in HISTORY}
    tokens = tokens_seen(saved.state, model, train_settings(saved.settings))
    device = "cuda" if "rng.device" in saved.training else "cpu"
    step, seconds = saved.state["step"], saved.state["seconds"]
    values = step, tokens, seconds, device, saved.settings.get("processor")
    return dict(zip(HISTORY, values, strict=True))


def _balance(model: TinyGPT, corpus: Corpus) -> dict[str, Any]:
    report = measure_routing(model, corpus.val, ROUTED, precision="fp32")
    return {
        "tokens": count_predictions(model, corpus.val, ROUTED),
        "load_cv": [variation(load) for load in report.load],
        "max_violation": [max_violation(load) for load in report.load],
        "dead_experts": [len(dead_experts(load)) for load in report.load],
        "entropy": report.entropy.tolist(),
        "balance_loss": report.balance_loss.tolist(),
    }
