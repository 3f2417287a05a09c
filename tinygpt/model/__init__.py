"""The model: a decoder-only transformer whose feed-forward layers may be a Mixture of Experts."""

from .balance import auxiliary_loss, balance_loss, importance_loss, rebalance, z_loss
from .cache import FixedCache, KVCache
from .experts import ExpertLinear, Experts, MoE, expert_width
from .gpt import IGNORED, Block, TinyGPT, TinyGPTOutput, Trace, evaluating, own_tensors
from .layers import (
    MLP,
    Attention,
    AttentionMaps,
    Bigrams,
    Shift,
    activate,
    in_float32,
    make_norm,
    masked_scores,
    rotary_table,
    rotate,
)
from .router import ROUNDING, Router, Routing, choice_table, fewest, float64
from .upcycle import experts_of_copies, upcycle
from .weights import assemble, fill, read_pretrained, write_pretrained

__all__ = [
    "IGNORED",
    "MLP",
    "ROUNDING",
    "Attention",
    "AttentionMaps",
    "Bigrams",
    "Block",
    "ExpertLinear",
    "Experts",
    "FixedCache",
    "KVCache",
    "MoE",
    "Router",
    "Routing",
    "Shift",
    "TinyGPT",
    "TinyGPTOutput",
    "Trace",
    "activate",
    "assemble",
    "auxiliary_loss",
    "balance_loss",
    "choice_table",
    "evaluating",
    "expert_width",
    "experts_of_copies",
    "fewest",
    "fill",
    "float64",
    "importance_loss",
    "in_float32",
    "make_norm",
    "masked_scores",
    "own_tensors",
    "read_pretrained",
    "rebalance",
    "rotary_table",
    "rotate",
    "upcycle",
    "write_pretrained",
    "z_loss",
]
