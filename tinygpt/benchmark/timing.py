"""Timing that can be trusted: candidates take turns, medians count."""

import random
import time
from collections.abc import Callable

import torch

from ..config import ModelConfig, TrainConfig
from ..model import rebalance
from ..runtime import autocast


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
