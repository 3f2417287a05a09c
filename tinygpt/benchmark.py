"""Speed, measured so that it can be trusted: candidates take turns, medians count."""

import random
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from .config import PRESETS, DecodingConfig, ModelConfig, MoEConfig, TrainConfig
from .decoding import Writer, generate
from .errors import ConfigError
from .metrics import model_flop_utilisation
from .model import TinyGPT
from .moe import rebalance
from .optim import make_optimizers
from .runtime import autocast, pick_device
from .tokenizer import CharTokenizer

QUARTERS = torch.tensor([0.25, 0.5, 0.75])


def take_turns(
    candidates: dict[str, Callable[[], None]], rounds: int, warm_up: int = 5
) -> dict[str, list[float]]:
    """Seconds of each candidate in each round; all run once per round, so drift hits all alike.

    Their order is drawn anew for each round: a candidate finds the caches as another left them.
    """
    chance = random.Random(0)
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(warm_up + rounds):
        for name in chance.sample(list(candidates), len(candidates)):
            run = candidates[name]
            _wait()
            start = time.perf_counter()
            run()
            _wait()
            if number >= warm_up:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def step_time(preset: str = "nanogpt-cpu", rounds: int = 50, device: str = "auto") -> None:
    """Print the median time of a training step: ours against transformers' GPT-2 class.

    Both do the same: forward, loss, backward, clipping, one update of fused AdamW.
    """
    config, where = PRESETS[preset].model, pick_device(device)
    train = PRESETS[preset].train
    shape = (train.batch_size, config.block_size)
    x, y = torch.randint(config.vocab_size, (2, *shape), device=where)
    ours = TinyGPT(config).to(where)
    optimizers = make_optimizers(ours, train)
    candidates = {"tinygpt": _stepper(ours, lambda: ours(x, y).loss, optimizers, train.grad_clip)}
    if theirs := _transformers_gpt2(config, train):
        theirs.to(where)
        adamw = torch.optim.AdamW(theirs.parameters(), lr=train.lr, fused=True)
        candidates["transformers GPT-2"] = _stepper(
            theirs, lambda: theirs(x, labels=y).loss, [adamw], train.grad_clip
        )
    seconds = take_turns(candidates, rounds)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(
        f"training step, preset {preset}, batch {shape[0]} x {shape[1]}, {where.type}, "
        f"{torch.get_num_threads()} threads, {rounds} rounds"
    )
    for name, median in medians.items():
        print(f"  {name:20} {1e3 * median:8.2f} ms   {x.numel() / median:12,.0f} tokens/s")
    if theirs:
        ratios = [a / b for a, b in zip(*seconds.values(), strict=True)]
        print(f"  ratio {statistics.median(ratios):.2f} (median of the rounds' ratios)")
    else:
        print("  no comparison: transformers is not installed, or the preset is not GPT-2's model")
    used = model_flop_utilisation(ours, x.numel() / medians["tinygpt"])
    if used is not None:
        print(f"  model FLOP utilisation {100 * used:.1f} %")


def moe_speed(rounds: int = 20, device: str = "auto") -> None:
    """Print the time of a training step with experts, top-1, over that of the dense model with the
    same active parameters: each expert is as wide as the dense layer.

    On a CPU the model of notebook 04, with 4 experts at 2,048 tokens and 16 and 64 at 8,192; on
    CUDA a model of GPT-2's width in bf16, at 16,384 tokens.
    """
    where = pick_device(device)
    if where.type == "cuda":
        shape = ModelConfig(block_size=1024, n_layer=4, n_head=12, n_embd=768)
        cases = [(4, 16), (16, 16), (64, 16)]
    else:
        shape, cases = PRESETS["tiny"].model, [(4, 64), (16, 256), (64, 256)]
    for n_experts, batch in cases:
        arms: dict[str, MoEConfig | None] = {"dense": None}
        for way in ("auto", "split", "grouped_mm", "loop"):
            arms[way] = MoEConfig(n_experts=n_experts, dispatch=way)
        arms["auto, even load"] = MoEConfig(n_experts=n_experts, forced_balance=True)
        x, y = torch.randint(shape.vocab_size, (2, batch, shape.block_size), device=where)
        steps = {name: _training(replace(shape, moe=moe), x, y) for name, moe in arms.items()}
        seconds = take_turns(steps, rounds, warm_up=min(3, rounds))
        print(
            f"training step, {n_experts} experts, top-1, {x.numel():,} tokens, {where.type}, "
            f"{torch.get_num_threads()} threads, {rounds} rounds"
        )
        for name, values in seconds.items():
            ratios = [a / b for a, b in zip(values, seconds["dense"], strict=True)]
            low, middle, high = torch.tensor(ratios).quantile(QUARTERS).tolist()
            print(
                f"  {name:16} {1e3 * statistics.median(values):8.2f} ms   {middle:5.2f} times dense"
                f"   (middle half of the rounds: {low:.2f} to {high:.2f})"
            )


def _training(config: ModelConfig, x: torch.Tensor, y: torch.Tensor) -> Callable[[], None]:
    model = TinyGPT(config).to(x.device).train()
    return _stepper(model, lambda: model(x, y).loss, make_optimizers(model, TrainConfig()), 1.0)


def decoding_speed(rounds: int = 5, device: str = "auto") -> None:
    """Print the speed of sampling 300 tokens, one row, all inside a block of 512.

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
    try:
        generate(ours, "0", 2, compile=True)
        candidates["tinygpt compiled"] = lambda: generate(ours, "0", new, seed=0, compile=True)
    except ConfigError as error:
        print(error)
    if theirs := _transformers_gpt2(config, TrainConfig()):
        theirs.to(where).eval().generation_config.eos_token_id = None
        start = torch.zeros(1, 1, dtype=torch.long, device=where)
        options = {"max_new_tokens": new, "do_sample": True, "top_k": 0, "pad_token_id": 0}
        candidates["transformers GPT-2"] = lambda: theirs.generate(start, **options)
    seconds = take_turns(candidates, rounds, warm_up=1)
    threads = torch.get_num_threads()
    print(f"decoding {new} tokens at batch 1, {where.type}, {threads} threads, {rounds} rounds")
    for name, values in seconds.items():
        ratios = [a / b for a, b in zip(values, seconds["tinygpt"], strict=True)]
        speed = new / statistics.median(values)
        print(f"  {name:22} {speed:8,.0f} tokens/s   {statistics.median(ratios):5.2f} times ours")
    ratio = statistics.median(growth)
    print(f"  the last 100 tokens took {ratio:.2f} times as long as the first 100 (median)")


def _stepper(model, loss: Callable, optimizers: list, clip: float | None) -> Callable[[], None]:
    def step() -> None:
        with autocast(next(model.parameters()).device):
            value = loss()
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip or float("inf"))
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        rebalance(model)

    return step


def _transformers_gpt2(config: ModelConfig, train: TrainConfig):
    """transformers' GPT-2 with random weights in our shape; None where it would be another model,
    or is not installed."""
    same = config.norm == "layernorm" and config.position == "learned" and config.mlp == "gelu"
    try:
        from transformers import GPT2Config, GPT2LMHeadModel
    except ImportError:
        return None
    if not same or config.qk_norm or train.optimizer != "adamw":
        return None
    rates = dict.fromkeys(("attn_pdrop", "resid_pdrop", "embd_pdrop"), config.dropout)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=config.vocab_size,
            n_positions=config.block_size,
            n_embd=config.n_embd,
            n_layer=config.n_layer,
            n_head=config.n_head,
            n_inner=config.inner_size,
            bos_token_id=0,
            eos_token_id=0,
            **rates,
        )
    ).train()


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
