"""Tricks that others report and the package leaves out: each as small as it can be written, so that
`time_to_loss` can measure what it is worth. Model tricks are kinds of `TinyGPT`, tricks of the
training kinds of `Trainer`.

B batch, T time, C channels, V vocabulary
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import ModelConfig
from ..model import TinyGPT, TinyGPTOutput
from ..training import NEWTON_SCHULZ, Muon, Trainer

# Amsel et al. 2025, "The Polar Express": another polynomial in each step, closer to 1 in fewer
POLAR_EXPRESS = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
)


class TokenShift(TinyGPT):
    """Attention, too, reads x_t + mu * x_(t-1), as `token_shift` lets feed-forward layers do."""

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        for norm in (norm for block in self.blocks for norm in (block.ln_1, block.ln_2)):
            norm.mu = nn.Parameter(torch.zeros(config.n_embd))
            norm.register_forward_hook(lambda norm, _, y: y + norm.mu * _one_later(y))


class ValueEmbeddings(TinyGPT):
    """Each token adds a vector of its own to its values, in every layer (Zhou et al. 2024 mix the
    first layer's values in; here a table of V x C per layer)."""

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        V, C = config.vocab_size, config.n_embd
        self.tables = nn.ModuleList(nn.Embedding(V, C) for _ in self.blocks)
        self.register_forward_pre_hook(lambda _, arguments: setattr(self, "idx", arguments[0]))
        for block, table in zip(self.blocks, self.tables, strict=True):
            nn.init.zeros_(table.weight)
            block.attn.c_attn.register_forward_hook(
                lambda _, x, y, table=table: y + F.pad(table(self.idx), (2 * C, 0))
            )


class SoftCap(TinyGPT):
    """Logits between -15 and 15, by a hyperbolic tangent (Gemma 2, section 2)."""

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        self.lm_head.register_forward_hook(lambda _, x, logits: 15 * torch.tanh(logits / 15))


class TwoTokens(TinyGPT):
    """A second head that learns the token after the next (Gloeckle et al. 2024), at weight 0.3."""

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        self.second = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        nn.init.zeros_(self.second.weight)
        self.ln_f.register_forward_hook(lambda _, x, y: setattr(self, "last", y))

    def forward(self, idx: Tensor, targets: Tensor | None = None, **options) -> TinyGPTOutput:
        """As the model; in training `loss` holds the second head's, too."""
        out = super().forward(idx, targets, **options)
        if self.training and targets is not None:
            logits = self.second(self.last[:, :-1]).flatten(0, 1)
            out.loss = out.loss + 0.3 * F.cross_entropy(logits, targets[:, 1:].flatten())
        return out


class Averaged(Trainer):
    """Ends with a running mean of the weights, over about 20 updates (Polyak and Juditsky 1992)."""

    def train_step(self) -> float:
        """One update; the last one puts the mean in the place of the weights."""
        loss = super().train_step()
        weights = [p.detach() for p in self.model.parameters()]
        if self.step == 1:
            self.mean = [w.clone() for w in weights]
        torch._foreach_lerp_(self.mean, weights, 0.05)
        if self.step == self.max_steps:
            torch._foreach_copy_(weights, self.mean)
        return loss


class CautiousDecay(Trainer):
    """Weight decay of 0.1, only where the update shrinks a weight, too (Chen et al. 2025)."""

    def train_step(self) -> float:
        """One update, and then the decay."""
        groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        decayed = [(p, group) for group in groups for p in group["params"] if p.dim() > 1]
        before = [p.detach().clone() for p, _ in decayed]
        loss = super().train_step()
        with torch.no_grad():
            for (p, group), was in zip(decayed, before, strict=True):
                p.sub_(0.1 * group["lr"] * was * ((was - p) * was > 0))
        return loss


class PolarExpress(Trainer):
    """Muon with the polynomials of Polar Express."""

    steps = POLAR_EXPRESS

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        for muon in (optimizer for optimizer in self.optimizers if isinstance(optimizer, Muon)):
            muon.steps = self.steps


class FourSteps(PolarExpress):
    """Muon with four steps of its own polynomial."""

    steps = NEWTON_SCHULZ[:4]


class ThreeSteps(PolarExpress):
    """Muon with three of them."""

    steps = NEWTON_SCHULZ[:3]


class GrowingBatch(Trainer):
    """Batches of half the size in the first half of the updates."""

    def train_step(self) -> float:
        """One update."""
        early = self.step < self.max_steps // 2
        self.batches.batch_size = self.config.batch_size // 2 if early else self.config.batch_size
        return super().train_step()


class GrowingContext(Trainer):
    """Windows of half the length, twice as many, in the first half of the updates."""

    def train_step(self) -> float:
        """One update."""
        early, T = self.step < self.max_steps // 2, self.model.config.block_size
        self.batches.block_size = T // 2 if early else T
        self.batches.batch_size = self.config.batch_size * (2 if early else 1)
        return super().train_step()


def _one_later(x: Tensor) -> Tensor:
    """x `(B, T, C)`, each vector at the place after its own; zeros at the first."""
    return F.pad(x, (0, 0, 1, 0))[:, :-1]
