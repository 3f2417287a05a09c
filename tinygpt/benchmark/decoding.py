"""The speed of writing."""

import statistics
import time

import torch

from ..config import DecodingConfig, ModelConfig, TrainConfig
from ..decoding import Writer, generate
from ..errors import ConfigError
from ..model import TinyGPT
from ..runtime import pick_device
from ..text import CharTokenizer
from .report import Report, settings
from .rivals import transformers_gpt2
from .timing import take_turns


def decoding_speed(rounds: int = 5, device: str = "auto") -> Report:
    """The speed of sampling 300 tokens, one row, all inside a block of 512.

    A random model of GPT-2's kind (4 layers, 4 heads, 128 channels, 65 symbols): ours with its
    cache, with its step compiled, and without a cache; and transformers' GPT-2 class with its own
    cache and the same settings.
    """
    new, where = 300, pick_device(device)
    config = ModelConfig(block_size=512, n_layer=4, n_embd=128)
    ours = TinyGPT(config).to(where).eval()
    ours.tokenizer = CharTokenizer(map(chr, range(48, 48 + config.vocab_size)))
    growth: list[float] = []  # of the time of 100 tokens, from the first to the last

    def with_cache() -> None:
        writer = Writer(ours, ["0"], new, None, DecodingConfig())
        times = [time.perf_counter() for _ in writer.run(seed=0)]
        growth.append((times[-1] - times[-100]) / (times[99] - times[0]))

    candidates = {
        "tinygpt": with_cache,
        "tinygpt without cache": lambda: generate(ours, "0", new, seed=0, use_cache=False),
    }
    notes = []
    try:
        generate(ours, "0", 2, compile=True)
        candidates["tinygpt compiled"] = lambda: generate(ours, "0", new, seed=0, compile=True)
    except ConfigError as error:
        notes.append(str(error))
    if theirs := transformers_gpt2(config, TrainConfig()):
        theirs.to(where).eval().generation_config.eos_token_id = None
        start = torch.zeros(1, 1, dtype=torch.long, device=where)
        options = {"max_new_tokens": new, "do_sample": True, "top_k": 0, "pad_token_id": 0}
        candidates["transformers GPT-2"] = lambda: theirs.generate(start, **options)
    seconds = take_turns(candidates, rounds, warm_up=1)
    rows = []
    for name, values in seconds.items():
        ratios = [a / b for a, b in zip(seconds["tinygpt"], values, strict=True)]
        speed, ratio = new / statistics.median(values), statistics.median(ratios)
        rows.append({"who": name, "tokens_per_s": speed, "times_ours": ratio})
    ratio = statistics.median(growth)
    notes.append(f"the last 100 tokens took {ratio:.2f} times as long as the first 100 (median)")
    return Report(f"decoding {new} tokens at batch 1, {settings(where, rounds)}", rows, notes)
