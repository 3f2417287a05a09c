"""What a model costs: parameters, FLOPs, the share of a device that it uses."""

from dataclasses import dataclass

from torch import nn

from ..model import ExpertLinear, TinyGPT


@dataclass(frozen=True)
class ParameterCount:
    """Numbers of weights. `embedding` (tables of tokens, positions, pairs) is part of `total`."""

    total: int
    active: int  # of one token: all but the experts it does not use; with top-p the most it can
    embedding: int
    head: int  # of the output over the vocabulary; 0 where it is tied to the embedding

    @property
    def active_inside(self) -> int:
        """Active ones between the tables and the head: what papers call non-embedding."""
        return self.active - self.embedding - self.head


def count_parameters(model: TinyGPT) -> ParameterCount:
    """Count the weights from the tensors themselves; a tied head is counted once."""
    total = sum(p.numel() for p in model.parameters())
    tables = [m for m in model.modules() if isinstance(m, nn.Embedding)]
    layers = [m for m in model.modules() if isinstance(m, ExpertLinear)]
    stacked = sum(p.numel() for layer in layers for p in layer.parameters())
    moe = model.config.moe
    idle = stacked * (moe.n_experts - moe.top_k) // moe.n_experts if moe else 0
    head = 0 if model.config.tie_embeddings else model.lm_head.weight.numel()
    embedding = sum(table.weight.numel() for table in tables)
    return ParameterCount(total, total - idle, embedding, head)


def flops_per_token(model: TinyGPT, training: bool = True) -> int:
    """Floating-point operations per token of a full window, matrix products only.

    Two per weight of each linear layer (of K experts, where there are some; with top-p that is the
    most), and 4 T H D per layer for scores and weighted sum (Chowdhery et al. 2022, appendix B,
    which counts the whole T x T square as here). Training costs three times the forward pass: the
    backward pass forms two products for each one.
    """
    config, modules = model.config, list(model.modules())
    linear = sum(2 * m.weight.numel() for m in modules if isinstance(m, nn.Linear))
    for layer in (m for m in modules if isinstance(m, ExpertLinear)):
        linear += 2 * config.moe.top_k * layer.weight[0].numel()
    width = config.n_head * config.head_size
    attention = 4 * config.n_layer * config.block_size * width
    return (3 if training else 1) * (linear + attention)
