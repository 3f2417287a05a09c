"""The model: a decoder-only transformer whose feed-forward layers may be a Mixture of Experts."""

from .balance import auxiliary_loss, balance_loss, importance_loss, rebalance, z_loss
from .cache import FixedCache, KVCache
from .experts import ExpertLinear, Experts, MoE, expert_width
from .gpt import IGNORED, Block, TinyGPT, TinyGPTOutput, evaluating
from .layers import MLP, Attention, activate, causal_scores, make_norm, rotary_table, rotate
from .router import Router, Routing

__all__ = [
    "IGNORED",
    "MLP",
    "Attention",
    "Block",
    "ExpertLinear",
    "Experts",
    "FixedCache",
    "KVCache",
    "MoE",
    "Router",
    "Routing",
    "TinyGPT",
    "TinyGPTOutput",
    "activate",
    "auxiliary_loss",
    "balance_loss",
    "causal_scores",
    "evaluating",
    "expert_width",
    "importance_loss",
    "make_norm",
    "rebalance",
    "rotary_table",
    "rotate",
    "z_loss",
]
