"""TinyGPT: a decoder-only transformer, from token ids to logits and loss.

B batch, T time, C channels (n_embd), H heads, V vocabulary
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import ModelConfig
from ..errors import ConfigError
from .balance import auxiliary_loss
from .cache import FixedCache, KVCache
from .experts import MoE
from .layers import MLP, Attention, Context, make_norm, rotary_table
from .router import Routing

IGNORED = -100  # a target that is not learned


@dataclass
class TinyGPTOutput:
    """What a forward pass gives; what was not asked for is None.

    `loss` is what is trained, `lm_loss` the cross-entropy alone (nats per token). `attentions`
    and `attention_scores` (before the softmax) hold one `(B, H, T, T)` tensor per layer, `routing`
    what each router decided.
    """

    logits: Tensor  # (B, T, V)
    loss: Tensor | None = None
    lm_loss: Tensor | None = None
    attentions: list[Tensor] | None = None
    attention_scores: list[Tensor] | None = None
    routing: list[Routing] | None = None


class Block(nn.Module):
    """One layer: attention, then the feed-forward layer, each added to what came in."""

    def __init__(self, config: ModelConfig, layer: int = 0):
        super().__init__()
        self.ln_1 = make_norm(config)
        self.attn = Attention(config, layer)
        self.ln_2 = make_norm(config)
        self.ffn = MoE(config) if config.is_moe(layer) else MLP(config)

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        """x `(B, T, C)` -> `(B, T, C)`."""
        x = x + self.attn(self.ln_1(x), context)
        x = x + self.ffn(self.ln_2(x), context)
        return x


class TinyGPT(nn.Module):
    """A GPT: embeddings, `n_layer` blocks, a final norm, and a head over the vocabulary.

    With LayerNorm, learned positions and gelu it is GPT-2 (Radford et al. 2019); with RMSNorm,
    rope and swiglu, no biases and an untied head, it is Llama (Touvron et al. 2023).
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.tokenizer = None  # set by the trainer and by load_run
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        if config.position == "learned":
            self.wpe = nn.Embedding(config.block_size, config.n_embd)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList([Block(config, layer) for layer in range(config.n_layer)])
        self.ln_f = make_norm(config)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=config.head_bias)
        self.init_weights()
        if config.tie_embeddings:
            self.lm_head.weight = self.wte.weight

    @torch.no_grad()
    def init_weights(self) -> None:
        """GPT-2's start: normal(0, 0.02), output projections divided by sqrt(2 n_layer).

        Each block adds two outputs to the residual stream; the division keeps its size from
        growing with depth. With `zero_init` the output projections and an untied head are zero.
        """
        depth = 0.0 if self.config.zero_init else 1 / math.sqrt(2 * self.config.n_layer)
        for name, p in self.named_parameters():
            if name.endswith("bias"):
                p.zero_()
            elif p.dim() >= 2:
                p.normal_(0, 0.02)
                if name.endswith("c_proj.weight"):
                    p.mul_(depth)
        if self.config.zero_init and not self.config.tie_embeddings:
            self.lm_head.weight.zero_()

    def forward(
        self,
        idx: Tensor,
        targets: Tensor | None = None,
        return_attention: bool = False,
        return_routing: bool = False,
        cache: KVCache | None = None,
        expert_mask: Tensor | None = None,
    ) -> TinyGPTOutput:
        """Token ids `(B, T)`, and targets `(B, T)` for a loss; targets of -100 are ignored.

        T may be at most `block_size`. With a `cache`, `idx` goes on after the tokens read before.
        `expert_mask` multiplies the experts' outputs: `(E,)`, or a row for each layer that has
        experts. Logits are float32.
        """
        T, device = idx.shape[1], idx.device
        self._check_length(T, cache)
        context = Context(cache=cache, traced=return_attention)
        if expert_mask is not None:
            context.expert_mask = self._expert_mask(expert_mask)
        if targets is not None and self.config.moe is not None:
            context.valid = targets != IGNORED
        if cache is None:
            positions = torch.arange(T, device=device)
        else:
            positions, context.mask = cache.positions(T, device), cache.mask(T, device)
        x = self.wte(idx)  # (B, T, C)
        if self.config.position == "learned":
            x = x + self.wpe(positions)
        else:
            config = self.config
            context.rotary = rotary_table(positions, config.head_size, config.rope_theta)
        if self.training:
            x = self.dropout(x)
        for block in self.blocks:
            x = block(x, context)
        if cache is not None:
            cache.length += T
        logits = self.lm_head(self.ln_f(x)).float()  # (B, T, V)
        out = TinyGPTOutput(logits)
        if targets is not None:
            out.lm_loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
            out.loss = out.lm_loss
            if self.config.moe is not None:
                extra = auxiliary_loss(context.routing, self.config.moe, context.valid)
                out.loss = out.lm_loss + extra
        if return_attention:
            out.attentions, out.attention_scores = context.attentions, context.attention_scores
        if return_routing:
            out.routing = context.routing
        return out

    def _expert_mask(self, mask: Tensor) -> Tensor:
        """The mask `(layers, E)`, checked."""
        moe, n_layer = self.config.moe, self.config.n_layer
        layers = sum(map(self.config.is_moe, range(n_layer)))
        if moe is None or mask.shape not in ((moe.n_experts,), (layers, moe.n_experts)):
            wanted = "no experts" if moe is None else f"({moe.n_experts},) or ({layers}, ...)"
            raise ConfigError(
                f"expert_mask has shape {tuple(mask.shape)}, this model wants {wanted}: a number "
                f"per expert, for each of the {layers} layers that have experts"
            )
        return mask.to(self.device, torch.float32).expand(layers, -1)

    def _check_length(self, T: int, cache: KVCache | None) -> None:
        limit = self.config.block_size
        if isinstance(cache, FixedCache):  # its reader knows; to look would make a GPU wait
            return
        read = 0 if cache is None else cache.length
        # rotary positions have no end, so one token may take the place of the oldest
        rolls = cache is not None and T == 1 and self.config.position == "rope"
        if read + T > limit and not rolls:
            raise ConfigError(
                f"a sequence of {read + T} tokens is longer than block_size={limit}; "
                f"shorten it, or train a model with a larger block_size"
            )

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.wte.weight.device


@contextmanager
def evaluating(model: TinyGPT) -> Iterator[None]:
    """Without dropout inside the block; afterwards in the mode it was in before."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
