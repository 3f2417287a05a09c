"""Models of sub-words, with GPT-2's vocabulary: Portuguese books, TinyStories, GPT-2 itself.

In comments: E experts, K of them per token, F the width of one.
"""

from dataclasses import replace

from ..config import ModelConfig, MoEConfig, TrainConfig
from .preset import Preset

VOCABULARY = 50_257  # GPT-2's tokens

# --- GPT-2 and SwiGLU experts on Portuguese books -------------------------------------------------

_PTBR = ModelConfig(
    vocab_size=VOCABULARY,
    block_size=512,
    n_layer=12,
    n_head=12,
    n_embd=768,
    n_inner=3072,
    dropout=0.1,
    position="rope",
    mlp="swiglu",
    tie_embeddings=False,
    qkv_bias=False,
)

_PTBR_TRAIN = TrainConfig(
    max_steps=2500,  # of 16,384 tokens: about three times through a hundred books
    batch_size=4,
    grad_accum_steps=8,
    lr=5e-4,
    beta2=0.95,
    warmup_steps=100,
    eval_interval=500,
    max_eval_tokens=1 << 15,
)


def _ptbr(description: str, n_inner: int = 3072, moe: MoEConfig | None = None) -> Preset:
    model = replace(_PTBR, n_inner=n_inner, moe=moe)
    return Preset(description, "gutenberg-pt", "gpt2", model, _PTBR_TRAIN)


def _switch(E: int, K: int, F: int, capacity: float) -> MoEConfig:
    """Experts kept busy by Switch's loss; two of them share a token by their probabilities."""
    return MoEConfig(
        n_experts=E,
        top_k=K,
        n_inner=F,
        capacity_factor=capacity,
        norm_topk_prob=K > 1,
        balance="loss",
    )


_PORTUGUESE = {
    "ptbr-dense": _ptbr("GPT-2's size with rotary positions and SwiGLU, on Portuguese books"),
    "ptbr-dense-active": _ptbr("the dense model with the active parameters of ptbr-moe-4x1", 768),
    "ptbr-moe-4x1": _ptbr(
        "as large as ptbr-dense in all, each token using 1 of 4 experts",
        moe=_switch(4, 1, 768, 1.0),
    ),
    "ptbr-moe-6x1": _ptbr(
        "as ptbr-moe-4x1, with 1 of 6 experts of width 640", moe=_switch(6, 1, 640, 1.1)
    ),
    "ptbr-moe-8x2": _ptbr(
        "as ptbr-moe-4x1, with 2 of 8 experts of width 512", moe=_switch(8, 2, 512, 1.25)
    ),
}

# --- sparse experts on TinyStories ----------------------------------------------------------------


def _sparse(C: int, layers: int, context: int, dense: int | None = None) -> ModelConfig:
    """Two of 16 experts of width 2 C without biases; or a dense layer of a given width."""
    experts = MoEConfig(n_experts=16, top_k=2, n_inner=2 * C, norm_topk_prob=True)
    return ModelConfig(
        vocab_size=VOCABULARY,
        block_size=context,
        n_layer=layers,
        n_head=C // 64,
        n_embd=C,
        n_inner=dense,
        tie_embeddings=False,
        mlp_bias=False,
        moe=None if dense else experts,
    )


def _stories(description: str, model: ModelConfig, lr: float = 3e-4) -> Preset:
    train = TrainConfig(
        max_steps=5000,
        batch_size=4,
        grad_accum_steps=max(1, 2048 // model.block_size),  # 8,192 tokens an update
        lr=lr,
        beta2=0.95,
        weight_decay=0.01,
        warmup_steps=200,
        eval_interval=500,
        max_eval_tokens=1 << 15,
    )
    return Preset(description, "tinystories", "gpt2", model, train)


_STORIES = {
    "sparse-158m": _stories(
        "16 experts of which each token uses 2, on TinyStories", _sparse(512, 6, 256)
    ),
    "sparse-158m-512": _stories("sparse-158m with a context of 512", _sparse(512, 6, 512)),
    "sparse-158m-1024": _stories("sparse-158m with a context of 1,024", _sparse(512, 6, 1024)),
    "sparse-158m-2048": _stories("sparse-158m with a context of 2,048", _sparse(512, 6, 2048)),
    "sparse-158m-dense-active": _stories(
        "the dense model with the active parameters of sparse-158m",
        _sparse(512, 6, 256, dense=2 * 1024),
    ),
    "sparse-158m-dense-total": _stories(
        "the dense model with all parameters of sparse-158m",
        _sparse(512, 6, 256, dense=16 * 1024),
    ),
    "sparse-512m": _stories("sparse-158m, three times as large", _sparse(768, 11, 1024), 2e-4),
    "sparse-1b": _stories("sparse-158m, six times as large", _sparse(1152, 10, 1024), 2e-4),
}

# --- GPT-2, in whose shapes its weights are read --------------------------------------------------


def _gpt2(layers: int, heads: int, C: int, moe: MoEConfig | None = None) -> ModelConfig:
    return ModelConfig(VOCABULARY, 1024, layers, heads, C, moe=moe)


def _trained(description: str, model: ModelConfig, batch_size: int, lr: float) -> Preset:
    train = TrainConfig(
        max_steps=10_000,
        batch_size=batch_size,
        grad_accum_steps=64 // batch_size,  # 65,536 tokens an update
        lr=lr,
        beta2=0.95,
        warmup_steps=500,
        eval_interval=500,
        max_eval_tokens=1 << 16,
    )
    return Preset(description, "tinystories", "gpt2", model, train)


_GPT2 = {
    "gpt2": _trained(
        "the shape of GPT-2, for its weights or to train it", _gpt2(12, 12, 768), 8, 6e-4
    ),
    "gpt2-medium": _trained("the shape of GPT-2 medium", _gpt2(24, 16, 1024), 4, 3e-4),
    "gpt2-large": _trained("the shape of GPT-2 large", _gpt2(36, 20, 1280), 2, 2.5e-4),
    "gpt2-xl": _trained("the shape of GPT-2 XL", _gpt2(48, 25, 1600), 1, 2e-4),
    "gpt2-moe": _trained(
        "what upcycling gpt2 gives: 8 experts in each layer, of which each token uses 2",
        _gpt2(12, 12, 768, MoEConfig(n_experts=8, top_k=2, n_inner=3072, straight_through=True)),
        4,
        3e-4,
    ),
}

SUBWORDS: dict[str, Preset] = _PORTUGUESE | _STORIES | _GPT2
