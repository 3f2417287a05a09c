"""What several tests share: small models and texts, and the notebooks' exercises."""

import shutil
import signal
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from tinygpt import ModelConfig, MoEConfig, TinyGPT, TrainConfig
from tinygpt.corpora import write_plays
from tinygpt.model import MLP, MoE, Router, Routing, rotary_table
from tinygpt.text import BPETokenizer, CharTokenizer, Tokenizer
from tinygpt.text.subwords import SubwordTokenizer
from tinygpt.training import latest_checkpoint, load_checkpoint, save_checkpoint

SHAPE = ModelConfig(vocab_size=65, block_size=24, n_layer=2, n_head=2, n_embd=16)
LLAMA = replace(
    SHAPE,
    norm="rmsnorm",
    position="rope",
    mlp="swiglu",
    tie_embeddings=False,
    attn_bias=False,
    mlp_bias=False,
)


DISPATCHES = ("loop", "split", "grouped_mm")


# ways to route that a causal language model may use
MODES = {
    "top-1": {},
    "top-2": {"top_k": 2, "norm_topk_prob": True},
    "straight-through": {"straight_through": True},
    "straight-through, top-3": {"straight_through": True, "top_k": 3, "top_p": 0.6},
    "capacity, top-1": {"capacity_factor": 0.6},
    "capacity, top-2": {"top_k": 2, "capacity_factor": 0.5},
    "top-p": {"top_k": 3, "top_p": 0.6, "capacity_factor": 0.3},
    "deepseek": {
        "n_experts": 6,
        "top_k": 2,
        "scores": "sigmoid",
        "norm_topk_prob": True,
        "balance": "bias",
        "n_groups": 3,
        "top_groups": 2,
        "n_shared": 1,
        "capacity_factor": 0.6,
    },
    "noisy": {"noisy": True, "jitter": 0.1, "capacity_factor": 0.6},
    "shared": {"n_shared": 2, "shared_gate": True},
    "forced": {"forced_balance": True},
}


def moe_config(shape: ModelConfig = SHAPE, **moe) -> ModelConfig:
    return replace(shape, moe=MoEConfig(**{"balance": "loss"} | moe))


def model_of(shape: ModelConfig = SHAPE, **moe) -> TinyGPT:
    """A model in eval mode, weights away from their start, routers and biases with opinions."""
    return opinionated(shaken(moe_config(shape, **moe)))


@torch.no_grad()
def opinionated(model: TinyGPT) -> TinyGPT:
    for router in routers(model):
        router.proj.weight.mul_(6)
        if hasattr(router, "bias"):
            router.bias.copy_(torch.randn(router.bias.shape) * 0.1)
    return model


def layer_of(shape: ModelConfig = SHAPE, **moe) -> MoE:
    return model_of(shape, **moe).blocks[0].ffn


def routers(model: TinyGPT) -> list[Router]:
    return [m for m in model.modules() if isinstance(m, Router)]


def random_ids(batch: int = 3, length: int = 24, seed: int = 1) -> torch.Tensor:
    return torch.randint(65, (batch, length), generator=torch.manual_seed(seed))


def normal(*shape: int, seed: int = 2) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def close(actual, expected, atol: float = 1e-5) -> None:
    torch.testing.assert_close(actual, expected, atol=atol, rtol=1e-4)


def routing_of(logits: torch.Tensor, top_k: int = 1, **changes) -> Routing:
    """What a plain router makes of logits `(B, T, E)`."""
    probs = logits.softmax(-1)
    weights, experts = probs.topk(top_k)
    dropped = torch.zeros_like(experts, dtype=torch.bool)
    return replace(Routing(logits, probs, experts, weights, dropped), **changes)


@st.composite
def layers(draw):
    E = draw(st.integers(1, 5))
    K = draw(st.integers(1, E))
    width = draw(st.integers(1, 9))
    shape = replace(
        SHAPE,
        n_embd=width,
        n_head=1,
        n_inner=draw(st.integers(1, 9)),
        mlp=draw(st.sampled_from(["gelu", "swiglu", "relu2"])),
        mlp_bias=draw(st.booleans()),
    )
    moe = {"n_experts": E, "top_k": K, "norm_topk_prob": K > 1 and draw(st.booleans())}
    limits = ({}, {"capacity_factor": 0.5}, {"top_p": 0.4}, {"top_p": 0.4, "capacity_factor": 0.5})
    moe |= draw(st.sampled_from(limits))
    size = draw(st.integers(1, 3)), draw(st.integers(1, 8)), width
    seed = draw(st.integers(0, 1000))
    return shape, moe, normal(*size, seed=seed), seed


def spy(function, called: list, name: str):
    def watched(*args):
        called.append(name)
        return function(*args)

    return watched


def with_equal_experts(mlp: str, **moe) -> tuple[MoE, MLP]:
    shape = replace(SHAPE, mlp=mlp)
    layer, dense = layer_of(shape, **moe), shaken(shape).blocks[0].ffn
    with torch.no_grad():
        for name, p in dense.named_parameters():
            layer.experts.get_parameter(name).copy_(p.expand(4, *p.shape))
    return layer, dense


def collapsed(expert: int, E: int = 4, top_k: int = 1) -> Routing:
    """All tokens to one expert (and those after it), with certainty."""
    logits = torch.full((2, 6, E), -50.0)
    logits[..., [(expert + i) % E for i in range(top_k)]] = 50.0
    return routing_of(logits, top_k)


def same_state(a: TinyGPT, b: TinyGPT) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def make_best(run, step):
    """Let the newest checkpoint say that the best one is that of `step`."""
    newest = latest_checkpoint(run)
    content = load_checkpoint(newest)
    content.state["best_step"] = step
    shutil.rmtree(newest)
    save_checkpoint(newest, content)


def capability() -> tuple[int, int]:
    return torch.cuda.get_device_capability() if torch.cuda.is_available() else (0, 0)


ampere = pytest.mark.skipif(capability() < (8, 0), reason="grouped_mm wants an Ampere GPU")


ALPHABET = "".join(chr(48 + i) for i in range(65))


def ready(config: ModelConfig) -> TinyGPT:
    model = shaken(config)
    with torch.no_grad():
        model.lm_head.weight.mul_(2)
    model.tokenizer = CharTokenizer(ALPHABET)
    return model


def gpt2():
    return ready(replace(VARIANTS["gpt2"], block_size=64))


_ROTARY = ModelConfig(block_size=24, n_layer=3, n_embd=32, norm="rmsnorm", position="rope")
VARIANTS = {
    "gpt2": ModelConfig(block_size=24, n_layer=3, n_embd=32),
    "llama": replace(LLAMA, n_layer=3, n_head=4, n_embd=32),
    "modern": replace(_ROTARY, mlp="relu2", qk_norm=True, tie_embeddings=False),
    "shifted": replace(_ROTARY, bigrams=9999, token_shift=True),
}
VARIANTS["qwen"] = replace(  # two queries read each key, of heads wider than C / H
    VARIANTS["llama"], n_kv_head=2, head_dim=10, qkv_bias=True, qk_norm=True
)


def shaken(config: ModelConfig) -> TinyGPT:
    """A model whose every weight, norms and biases too, is away from its start."""
    torch.manual_seed(0)
    model = TinyGPT(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p), alpha=0.08)
    return model


def ids(config: ModelConfig, batch: int = 3, length: int = 24) -> torch.Tensor:
    return torch.randint(config.vocab_size, (batch, length), generator=torch.manual_seed(1))


QUICK = TrainConfig(max_steps=40, batch_size=4, eval_interval=10, warmup_steps=5, lr=3e-3)
CHANCE = ["seconds", "tokens_per_s"]  # differ from run to run


def interrupt_after(trainer, step, progress=False):
    """Press Ctrl-C while update number `step` is being made."""
    train_step, evaluation = trainer.train_step, trainer._evaluate

    def watched():
        if trainer.step == step - 1:
            signal.raise_signal(signal.SIGINT)
        return train_step()

    def watched_evaluation(*args, **options):
        if step == 0:
            signal.raise_signal(signal.SIGINT)
        return evaluation(*args, **options)

    trainer.train_step, trainer._evaluate = watched, watched_evaluation
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(progress)
    assert trainer.step == step


# --- a tokenizer whose tokens are several characters, or part of one ----------------------------


class ByteTokenizer(Tokenizer):
    """Tokens of any bytes; at each place the longest that fits is taken."""

    kind = "bytes, for tests"

    def __init__(self, tokens: list[bytes]):
        self.tokens = tokens

    @property
    def vocab_size(self) -> int:
        return len(self.tokens)

    def token_bytes(self, token: int) -> bytes:
        return self.tokens[token]

    def encode_array(self, text: str) -> np.ndarray:
        left, ids = text.encode(), []
        while left:
            best = max((t for t in self.tokens if t and left.startswith(t)), key=len)
            ids.append(self.tokens.index(best))
            left = left[len(best) :]
        return np.array(ids, dtype=np.int32)

    def cut(self, text: str) -> int:
        return 0

    def to_json(self) -> dict:
        return {"tokens": [list(token) for token in self.tokens]}

    @classmethod
    def from_json(cls, content: dict) -> "ByteTokenizer":
        return cls([bytes(token) for token in content["tokens"]])


def byte_tokenizer() -> ByteTokenizer:
    """The bytes of "the cat sat. é😀" and line ends alone, runs of them, and an end mark."""
    alone = {bytes([byte]) for byte in "the cat sat. é😀\n".encode()}
    runs = [b"the", b" cat", b" sat", b"at", b".\n", b"\n\n", b"t.", "é".encode(), b" \xc3", b""]
    return ByteTokenizer([*sorted(alone), *runs])


class MarkedTokenizer(ByteTokenizer):
    """One whose token without bytes marks the end of a text."""

    kind = "bytes and a mark, for tests"

    @property
    def end_of_text(self) -> int:
        return self.tokens.index(b"")


def marked_tokenizer() -> MarkedTokenizer:
    """`byte_tokenizer` with a mark."""
    return MarkedTokenizer(byte_tokenizer().tokens)


def byte_model(tokenizer: Tokenizer | None = None, **shape) -> TinyGPT:
    """A random model whose tokens are several characters or part of one, `byte_tokenizer`'s."""
    tokenizer = tokenizer or byte_tokenizer()
    model = ready(replace(VARIANTS["modern"], vocab_size=tokenizer.vocab_size, **shape))
    model.tokenizer = tokenizer
    return model


SAMPLE = write_plays(30_000).text + "O coração não é uma ação. 😀🎉 don't we'll 日本語を!\n\n" * 40


@lru_cache
def subword_tokenizer(kind: type[SubwordTokenizer] = BPETokenizer) -> SubwordTokenizer:
    """A real tokenizer; some of its tokens are words, some end within a character."""
    return kind.train(SAMPLE, vocab_size=900)


def subword_model(tokenizer: Tokenizer | None = None, **shape) -> TinyGPT:
    """A random model with the tokens of a trained tokenizer."""
    return byte_model(tokenizer or subword_tokenizer(), **shape)


# --- decoding -----------------------------------------------------------------------------------


def random_logits(V: int, seed: int, rows: int = 2000) -> torch.Tensor:
    """Rows from flat to peaked; without ties, which only exact arithmetic would decide alike."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.rand(rows, 1, generator=generator) * 6
    return torch.randn(rows, V, generator=generator) * scale


def histories(V: int, length: int, seed: int, rows: int = 2000) -> torch.Tensor:
    return torch.randint(V, (rows, length), generator=torch.Generator().manual_seed(seed))


def scripted(monkeypatch, tokens: list[int]) -> None:
    """Let the next text be these tokens, whatever the model says."""
    left = iter(tokens)
    monkeypatch.setattr(
        "tinygpt.decoding.writer.pick", lambda logits, noise: torch.tensor([next(left)])
    )


def sliding_window_logits(model: TinyGPT, idx: torch.Tensor, T: int) -> torch.Tensor:
    """One forward pass in which each token sees itself and the T - 1 before it."""
    n = idx.shape[1]
    distance = torch.arange(n)[:, None] - torch.arange(n)
    table = rotary_table(torch.arange(n), model.config.head_size, model.config.rope_theta)
    mask = (distance >= 0) & (distance < T)
    x = model.wte(idx)
    if model.config.bigrams:
        x = x + model.bigrams(idx, idx.roll(1, 1), torch.arange(n))
    for block in model.blocks:
        x, _ = block(x, table, mask)
    return model.lm_head(model.ln_f(x))
