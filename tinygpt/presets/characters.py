"""Models of characters: seconds to minutes on a laptop, and a GPU's first."""

from dataclasses import replace

from ..config import ModelConfig, MoEConfig, TrainConfig
from .preset import Preset

_MODERN = ModelConfig(
    block_size=64,
    n_layer=4,
    n_embd=128,
    norm="rmsnorm",
    position="rope",
    mlp="relu2",
    qk_norm=True,
    tie_embeddings=False,
    attn_bias=False,
    mlp_bias=False,
    zero_init=True,
)

_LAPTOP = replace(_MODERN, block_size=256, mlp="swiglu", dropout=0.15, token_shift=True)

_MUON = TrainConfig(
    max_steps=400,
    batch_size=12,
    optimizer="muon",
    muon_lr=0.02,
    lr=3e-3,
    weight_decay=0.0,
    schedule="wsd",
    warmup_steps=20,
    min_lr_ratio=0.0,
    eval_interval=100,
)

_BABY = replace(_LAPTOP, n_layer=6, n_head=6, n_embd=384, dropout=0.2)

_LONG = replace(
    _MUON,
    max_steps=4000,
    batch_size=16,
    lr=0.008,
    weight_decay=0.1,
    warmup_steps=50,
    decay_fraction=0.8,
    eval_interval=200,
)

_QUICK = replace(
    _MUON,
    max_steps=450,
    batch_size=64,
    lr=0.008,
    weight_decay=0.1,
    warmup_steps=20,
    decay_fraction=0.8,
    eval_interval=100,
    compile=True,
)

CHARACTERS: dict[str, Preset] = {
    "tiny": Preset(
        "the model of notebook 02: seconds on a laptop",
        model=ModelConfig(block_size=32, n_layer=2, n_head=4, n_embd=64),
        train=TrainConfig(max_steps=1500, batch_size=32, lr=4e-3, eval_interval=150),
    ),
    "tiny-moe": Preset(
        "the model of notebook 04: as tiny, with 4 experts of which each token uses 1",
        model=ModelConfig(block_size=32, n_layer=2, n_head=4, n_embd=64, moe=MoEConfig()),
        train=TrainConfig(max_steps=1500, batch_size=32, lr=4e-3, eval_interval=150),
    ),
    "nanogpt-cpu": Preset(
        "the shape and training of nanoGPT's CPU example",
        model=ModelConfig(block_size=64, n_layer=4, n_embd=128, attn_bias=False, mlp_bias=False),
        train=TrainConfig(max_steps=2000, batch_size=12, lr=1e-3, eval_interval=250),
    ),
    "modern": Preset(
        "the same size with the parts of later models, and Muon: as good in a fifth of the steps",
        model=_MODERN,
        train=_MUON,
    ),
    "speedrun": Preset(
        "as good as nanoGPT's CPU example in three seconds: one layer, bigrams, Muon",
        model=replace(
            _MODERN,
            n_layer=1,
            n_head=2,
            n_embd=64,
            mlp="swiglu",
            zero_init=False,
            bigrams=1 << 13,
        ),
        train=replace(
            _MUON,
            max_steps=180,
            batch_size=24,
            muon_lr=0.03,
            muon_momentum=0.9,
            lr=0.008,
            beta2=0.95,
            warmup_steps=10,
            decay_fraction=0.8,
            eval_interval=60,
        ),
    ),
    "laptop": Preset(
        "longer context, token shift and dropout: until it is worth listening to",
        model=_LAPTOP,
        train=_LONG,
    ),
    "laptop-moe": Preset(
        "as laptop, with 8 experts half as wide of which each token uses 2",
        model=replace(
            _LAPTOP,
            moe=MoEConfig(n_experts=8, top_k=2, norm_topk_prob=True, n_inner=172),
        ),
        train=_LONG,
    ),
    "baby": Preset(
        "the shape of nanoGPT's GPU example with laptop's parts: as good in four seconds of a GPU",
        model=_BABY,
        train=_QUICK,
    ),
    "baby-moe": Preset(
        "as baby, with 8 experts half as wide of which each token uses 2",
        model=replace(
            _BABY,
            moe=MoEConfig(n_experts=8, top_k=2, norm_topk_prob=True, n_inner=512),
        ),
        train=_QUICK,
    ),
}
