"""TinyGPT: a decoder-only transformer, from token ids to logits and loss.

B batch, T time, C channels (n_embd), H heads, V vocabulary
"""

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ..config import ModelConfig
from ..errors import ConfigError
from .balance import Total, alone, auxiliary_loss
from .cache import FixedCache, KVCache
from .experts import MoE
from .layers import MLP, Attention, AttentionMaps, Bigrams, Shift, make_norm, rotary_table
from .router import Routing

IGNORED = -100  # a target that is not learned


@dataclass
class TinyGPTOutput:
    """What a forward pass gives; what was not asked for is None.

    `loss` is what is trained, `lm_loss` the cross-entropy alone (nats per token). `attentions`
    and `attention_scores` (before the softmax) hold one `(B, H, T, S)` tensor per layer; S is T,
    with a cache also the tokens in it. `routing` is what each of L routers decided, `expert_load`
    how many of the tokens with a target chose each expert: `rebalance` wants it.
    """

    logits: Tensor  # (B, T, V)
    loss: Tensor | None = None
    lm_loss: Tensor | None = None
    attentions: list[Tensor] | None = None
    attention_scores: list[Tensor] | None = None
    routing: list[Routing] | None = None
    expert_load: Tensor | None = None  # (L, E)


@dataclass(frozen=True)
class Trace:
    """What a block found on its way: attention maps if asked for, routing if it has experts."""

    attention: AttentionMaps | None = None
    routing: Routing | None = None


class Block(nn.Module):
    """One layer: attention, then the feed-forward layer, each added to what came in."""

    def __init__(self, config: ModelConfig, layer: int = 0):
        super().__init__()
        self.ln_1 = make_norm(config)
        self.attn = Attention(config, layer)
        self.ln_2 = make_norm(config)
        self.shift = Shift(config, layer) if config.token_shift else None
        self.has_experts = config.is_moe(layer)
        self.ffn = MoE(config) if self.has_experts else MLP(config)

    def forward(
        self,
        x: Tensor,
        rotary: tuple[Tensor, Tensor] | None = None,
        mask: Tensor | None = None,
        cache: KVCache | None = None,
        return_attention: bool = False,
        only_last: bool = False,
    ) -> tuple[Tensor, Trace]:
        """x `(B, T, C)` -> `(B, T, C)`, and what was found; for the others see `Attention`.

        Found things are returned and never left on an object: a wrapper such as FSDP2 or
        activation checkpointing hands its block copies, or calls it twice.
        """
        attended, maps = self.attn(self.ln_1(x), rotary, mask, cache, return_attention, only_last)
        x = (x[:, -1:] if only_last else x) + attended
        h = self.ln_2(x)
        fed = self.ffn(h if self.shift is None else self.shift(h, cache))
        fed, routing = fed if self.has_experts else (fed, None)
        x = x + fed
        return x, Trace(maps, routing)


def cross_entropy(logits: Tensor, targets: Tensor, total: Total | None = None) -> Tensor:
    """Mean over the targets that are not ignored, nats per token; over those of all processes."""
    logits, targets = logits.flatten(0, 1), targets.flatten()
    if total is None:
        return F.cross_entropy(logits, targets)
    summed = F.cross_entropy(logits, targets, reduction="sum")
    return total(summed) / total((targets != IGNORED).sum())


class TinyGPT(nn.Module):
    """A GPT: embeddings, `n_layer` blocks, a final norm, and a head over the vocabulary.

    With LayerNorm, learned positions and gelu it is GPT-2 (Radford et al. 2019); with RMSNorm,
    rope and swiglu, no biases and an untied head, it is Llama (Touvron et al. 2023); `qkv_bias`
    makes it Qwen2, `qk_norm` Qwen3.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.tokenizer = None  # set by the trainer and by load_run
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        if config.position == "learned":
            self.wpe = nn.Embedding(config.block_size, config.n_embd)
        if config.bigrams:
            self.bigrams = Bigrams(config)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList([Block(config, layer) for layer in range(config.n_layer)])
        self.ln_f = make_norm(config)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
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
        only_last: bool = False,
        recompute: bool = False,
        total: Total | None = None,
    ) -> TinyGPTOutput:
        """Token ids `(B, T)`, and targets `(B, T)` for a loss; targets of -100 are ignored.

        T may be at most `block_size`. With a `cache`, `idx` goes on after the tokens read before.
        Logits are float32. To write on, those after the last token do: with `only_last` they are
        `(B, 1, V)`, and the last block is computed for no other place than its keys and values.
        That is for eval, without targets; the last layer's maps and routing are of one place, too.

        With `recompute` (activation checkpointing; Chen et al. 2016) the backward pass computes
        each block once more, instead of what it needs being kept. Where several processes share
        the rows of a batch, `total` gives what a sum over own tokens is over all of theirs; losses
        and `expert_load` are then those of the whole batch.
        """
        if only_last and targets is not None:
            raise ConfigError("only_last gives logits of one place, targets are of all: take one")
        self._check_length(idx.shape[1], cache, return_attention)
        x, rotary, mask = self._embed(idx, cache)  # (B, T, C)
        traces = []
        for block in self.blocks:
            # a shifted layer reads the position before, too
            last = only_last and block is self.blocks[-1] and block.shift is None
            call = partial(checkpoint, block, use_reentrant=False) if recompute else block
            x, trace = call(x, rotary, mask, cache, return_attention, last)
            traces.append(trace)
        if cache is not None:
            cache.length += idx.shape[1]
        x = x[:, -1:] if only_last else x
        out = TinyGPTOutput(self.lm_head(self.ln_f(x)).float())  # (B, T, V)
        routing = [trace.routing for trace in traces if trace.routing is not None]
        if targets is not None:
            out.lm_loss = cross_entropy(out.logits, targets, total)
            out.loss = out.lm_loss
            if routing:
                valid = targets != IGNORED
                total = total or alone
                out.loss = out.lm_loss + auxiliary_loss(routing, self.config.moe, valid, total)
                out.expert_load = total(torch.stack([r.counts(valid) for r in routing]))
        if return_attention:
            out.attentions = [trace.attention.weights for trace in traces]
            out.attention_scores = [trace.attention.scores for trace in traces]
        if return_routing:
            out.routing = routing
        return out

    def _embed(
        self, idx: Tensor, cache: KVCache | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor] | None, Tensor | None]:
        """The tokens' vectors, with learned positions or beside the rotary table; the mask."""
        T, device, config = idx.shape[1], idx.device, self.config
        x, rotary, mask = self.wte(idx), None, None
        if cache is None:
            positions = torch.arange(T, device=device)
        else:
            positions, mask = cache.positions(T, device), cache.mask(T, device)
        if config.bigrams:
            before = idx.roll(1, 1) if cache is None else cache.before(cache.tokens, idx)
            x = x + self.bigrams(idx, before, positions)
        if config.position == "learned":
            x = x + self.wpe(positions)
        else:
            rotary = rotary_table(positions, config.head_size, config.rope_theta)
        return self.dropout(x) if self.training else x, rotary, mask

    def _check_length(self, T: int, cache: KVCache | None, return_attention: bool) -> None:
        limit = self.config.block_size
        if isinstance(cache, FixedCache) and not return_attention:
            return  # its reader knows; to look would make a GPU wait
        read = 0 if cache is None else int(cache.length)
        # rotary positions have no end, so one token may take the place of the oldest
        rolls = cache is not None and T == 1 and self.config.position == "rope"
        if read + T > limit and not rolls:
            raise ConfigError(
                f"a sequence of {read + T} tokens is longer than block_size={limit}; "
                f"shorten it, or train a model with a larger block_size"
            )
        if read + T > limit and return_attention:
            raise ConfigError(
                f"past block_size={limit} a cache holds its tokens in another order than that of "
                f"time, so a map over it would mislead; read the last {limit} tokens anew"
            )

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.wte.weight.device


def own_tensors(model: TinyGPT) -> dict[str, Tensor]:
    """Every tensor of a model by its name, once: not the head where it is the embedding."""
    state = dict(model.state_dict())
    if model.config.tie_embeddings:
        del state["lm_head.weight"]
    return state


class evaluating:
    """A context without dropout; afterwards the model is in the mode it was in before.

    A class, since at each token of a text a generator would cost more than the look at the mode.
    """

    def __init__(self, model: TinyGPT):
        self.model, self.was_training = model, model.training

    def __enter__(self) -> None:
        if self.was_training:
            self.model.eval()

    def __exit__(self, *error) -> None:
        if self.was_training:
            self.model.train()
