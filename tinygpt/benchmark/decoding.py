"""The speed of writing."""

import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from ..config import DecodingConfig, ModelConfig, MoEConfig
from ..decoding import Writer, generate_batch
from ..measure import count_parameters
from ..model import TinyGPT
from ..runtime import one_thread, pick_device
from ..tables import Row
from ..text import CharTokenizer
from .report import Report, settings
from .rivals import transformers_gpt2, transformers_mixtral
from .timing import take_turns

DENSE = ModelConfig(block_size=512, n_layer=4, n_embd=128)
MIXTURE = replace(
    DENSE,
    norm="rmsnorm",
    position="rope",
    mlp="swiglu",
    tie_embeddings=False,
    attn_bias=False,
    mlp_bias=False,
    moe=MoEConfig(n_experts=4, top_k=2, norm_topk_prob=True),
)
TOKENS = {1: 300, 16: 64, 128: 16}  # new ones per row of a batch: all inside the block


def decoding_speed(rounds: int = 3, device: str = "auto") -> Report:
    """The speed of sampling by random models of 4 layers, 128 channels and 65 symbols.

    One of GPT-2's kind, and one of Mixtral's with 2 of 4 experts; 1, 16 and 128 rows; with and
    without a cache, on CUDA also with the step recorded. Beside them transformers' classes with
    their two caches, and the time to read, from a tensor of that size, the bytes that each step
    must read, on one thread as small models are: no program is faster that computes token by
    token. (With many rows arithmetic takes longer than reading, and this bound is far away.)
    """
    where, rows, notes = pick_device(device), [], []
    for name, config in (("dense", DENSE), ("2 of 4 experts", MIXTURE)):
        for batch, new in TOKENS.items():
            growth: list[float] = []
            ours = TinyGPT(config).to(where).eval()
            size = bytes_per_step(ours, batch, new)
            candidates = _candidates(ours, batch, new, growth) | _theirs(config, batch, new, where)
            candidates["reading alone"] = _reading(size, new, where)
            seconds = take_turns(candidates, rounds, warm_up=1)
            rows += [{"model": name, "rows": batch} | row for row in _rows(seconds, batch * new)]
            speed = size * new / statistics.median(seconds["reading alone"])
            notes.append(
                f"{name}, {batch} rows: a step reads {size / 1e6:.1f} MB, alone at "
                f"{speed / 1e9:.0f} GB/s"
            )
            if growth:
                ratio = statistics.median(growth)
                notes.append(f"{name}: the last 100 tokens took {ratio:.2f} times the first 100")
    question = "decoding inside the block (ours, up to 64 rows, on one thread)"
    return Report(f"{question}, {settings(where, rounds)}", rows, notes)


def _rows(seconds: dict[str, list[float]], tokens: int) -> list[Row]:
    """Tokens per second in the median round, over ours and over the bare reading's."""
    speeds = {name: tokens / statistics.median(values) for name, values in seconds.items()}
    return [
        {
            "who": name,
            "tokens_per_s": speed,
            "times_ours": speed / speeds["tinygpt"],
            "of_bound": speed / speeds["reading alone"],
        }
        for name, speed in speeds.items()
    ]


def _candidates(
    ours: TinyGPT, batch: int, new: int, growth: list[float]
) -> dict[str, Callable[[], None]]:
    """Our ways; `growth` gets the time of the last 100 tokens of a row over that of the first."""
    ours.tokenizer = CharTokenizer(map(chr, range(48, 48 + ours.config.vocab_size)))
    prompts = ["0"] * batch

    def write(**options) -> Callable[[], None]:
        return lambda: generate_batch(ours, prompts, new, seed=0, **options)

    def followed() -> None:
        writer = Writer(ours, prompts, new, None, DecodingConfig())
        times = [time.perf_counter() for _ in writer.run(seed=0)]
        growth.append((times[-1] - times[-100]) / (times[99] - times[0]))

    found = {"tinygpt": write(), "tinygpt without cache": write(use_cache=False)}
    if batch == 1:
        found["tinygpt token by token"] = followed
    if ours.device.type == "cuda":  # on a CPU compiling takes a minute, and gains nothing
        found["tinygpt compiled"] = write(compile=True)
    return found


def _theirs(
    config: ModelConfig, batch: int, new: int, where: torch.device
) -> dict[str, Callable[[], None]]:
    """transformers' model of the same shape with its usual and its static cache."""
    theirs = transformers_mixtral(config) if config.moe else transformers_gpt2(config)
    if theirs is None:
        return {}
    theirs.to(where).eval().generation_config.eos_token_id = None
    start = torch.ones(batch, 1, dtype=torch.long, device=where)  # 0 would be taken for padding
    options = {"max_new_tokens": new, "do_sample": True, "top_k": 0, "pad_token_id": 0}
    return {
        f"transformers, {kind} cache": lambda kind=kind: theirs.generate(
            start, cache_implementation=kind, **options
        )
        for kind in ("dynamic", "static")
    }


def bytes_per_step(model: TinyGPT, batch: int, new: int) -> int:
    """What must be read for one token per row: weights, and keys and values of `new` / 2 tokens.

    Of the tables a row per token, which is nothing, but all of a tied head. Of E experts those
    that at least one row takes, if each takes K by chance.
    """
    config, count = model.config, count_parameters(model)
    weights = count.total - count.embedding
    if config.tie_embeddings:
        weights += model.wte.weight.numel()
    if config.moe:
        experts = [p for name, p in model.named_parameters() if ".experts." in name]
        idle = (1 - config.moe.top_k / config.moe.n_experts) ** batch
        weights -= int(idle * sum(p.numel() for p in experts))
    kept = config.n_layer * config.n_embd * new * batch  # 2 of each, for half of the tokens
    return (weights + kept) * model.wte.weight.element_size()


def _reading(size: int, times: int, where: torch.device) -> Callable[[], None]:
    """Read a tensor of `size` bytes so many times, on as many threads as a small model has."""
    tensor = torch.ones(size // 4, device=where)

    def read() -> None:
        with one_thread(), torch.inference_mode():
            for _ in range(times):
                tensor.sum()

    return read
