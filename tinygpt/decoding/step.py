"""One new token per row without the modules' overhead; and the same recorded once."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ConfigError
from ..model import MLP, FixedCache, KVCache, TinyGPT, activate, rotary_table, rotate

AT_ONCE = 16  # tokens whose rotary angles are made together


class Step:
    """One new token per row, as `TinyGPT.forward` would read it, without the modules' overhead.

    At batch 1 a small model spends most of its time in Python: looking up modules and their
    attributes costs more than the arithmetic. So they are looked up once, here. And a row alone is
    a vector `(C,)`: in float32 a matrix times a vector is faster than times a matrix of one row.
    To be called without gradients.
    """

    def __init__(self, model: TinyGPT, cache: KVCache):
        self.cache, self.config = cache, model.config
        B, C, config = cache.buffer.shape[2], self.config.n_embd, self.config
        H, G, D = config.n_head, config.kv_heads, config.head_size
        self.shape, self.grouped = (C,) if B == 1 else (B, C), G < H
        self.attended = (*self.shape[:-1], H * D)
        self.wte = model.wte.weight.detach()
        self.wpe = model.wpe.weight.detach() if self.config.position == "learned" else None
        self.bigrams = model.bigrams if self.config.bigrams else None
        # each layer writes its queries, keys and values here, and finds them by the same views
        self.qkv = self.wte.new_empty(*self.shape[:-1], (H + 2 * G) * D)
        heads = self.qkv.view(B, H + 2 * G, 1, D)
        self.q, self.qk = heads[:, :H], heads[:, : H + G]
        self.kv = heads[:, H:].unflatten(1, (2, G)).transpose(0, 1)  # (2, B, G, 1, D)
        self.layers = [
            (
                _norm(block.ln_1, B),
                _linear(block.attn.c_attn, B, out=self.qkv),
                _qk_norm(block.attn, B) if block.attn.qk_norm else None,
                _linear(block.attn.c_proj, B),
                _norm(block.ln_2, B),
                block.shift,
                _feed_forward(block.ffn, B),
            )
            for block in model.blocks
        ]
        self.ln_f, self.head = _norm(model.ln_f, B), _linear(model.lm_head, B)
        self.rotary: list[tuple[Tensor, Tensor]] = []  # of the tokens from place `first` on
        self.first, self.padding = 0, None

    def __call__(self, token: Tensor) -> Tensor:
        """Logits `(B, V)` after the tokens `(B,)`; the cache then holds them."""
        cache = self.cache
        slot, count = cache.length % cache.size, min(cache.length + 1, cache.size)
        # views of all layers, taken at once: (2, B, G, 1, D) to write, (B, G, S, D) to read
        slots = cache.buffer.narrow(4, slot, 1).unbind()
        kept = cache.buffer.flatten(0, 1).narrow(3, 0, count).unbind()
        mask = None if cache.padding is None else cache.mask(1, token.device)
        rotary = None if self.wpe is not None else self._rotary()
        x = self._embed(token).view(self.shape)
        for (ln_1, c_attn, qk_norm, c_proj, ln_2, shift, ffn), new, keys, values in zip(
            self.layers, slots, kept[::2], kept[1::2], strict=True
        ):
            c_attn(ln_1(x))
            if qk_norm:
                self.qk.copy_(qk_norm(self.qk))
            if rotary:
                self.qk.copy_(rotate(self.qk, *rotary))
            new.copy_(self.kv)
            y = F.scaled_dot_product_attention(self.q, keys, values, mask, enable_gqa=self.grouped)
            x = x + c_proj(y.view(self.attended))
            h = ln_2(x)
            if shift is not None:
                h = shift(h.view(len(token), 1, -1), cache).view_as(h)
            x = x + ffn(h)
        cache.length += 1
        return self.head(self.ln_f(x)).view(len(token), -1).float()

    def _embed(self, token: Tensor) -> Tensor:
        """The new tokens' vectors `(B, C)`, with learned positions."""
        cache, x = self.cache, torch.embedding(self.wte, token)
        if self.bigrams is not None:
            before, positions = (
                cache.before(cache.tokens, token[:, None]),
                cache.positions(1, token.device),
            )
            x = x + self.bigrams(token[:, None], before, positions)[:, 0]
        if self.wpe is None:
            return x
        if cache.padding is None:
            return x + self.wpe[cache.length]
        return x + self.wpe[cache.positions(1, token.device)[:, 0]]

    def _rotary(self) -> tuple[Tensor, Tensor]:
        """Cosines and sines for the new tokens; those of the next ones are made with them."""
        cache, config, place = self.cache, self.config, self.cache.length - self.first
        if self.padding is not cache.padding or not 0 <= place < len(self.rotary):
            self.first, self.padding, place = cache.length, cache.padding, 0
            positions = cache.positions(AT_ONCE, self.wte.device)
            tables = rotary_table(positions, config.head_size, config.rope_theta)
            self.rotary = list(zip(*(table.split(1, dim=-2) for table in tables), strict=True))
        return self.rotary[place]


# what follows takes parameters apart by `detach`: torch asks a Parameter more than a tensor


def _linear(module: nn.Linear, rows: int, out: Tensor | None = None) -> Callable[[Tensor], Tensor]:
    weight, bias = module.weight.detach(), None if module.bias is None else module.bias.detach()
    where = {} if out is None else {"out": out}
    if rows == 1:
        product = (torch.mv,) if bias is None else (torch.addmv, bias)
        return partial(*product, weight, **where)
    weight = weight.t()
    if bias is None:
        return lambda x: torch.mm(x, weight, **where)
    return lambda x: torch.addmm(bias, x, weight, **where)


def _norm(module: nn.Module, rows: int) -> Callable[[Tensor], Tensor]:
    weight, shape, eps = module.weight.detach(), list(module.normalized_shape), module.eps
    if isinstance(module, nn.RMSNorm):
        return _rms_norm(weight, eps, rows)
    bias = module.bias.detach()
    return lambda x: torch.layer_norm(x, shape, weight, bias, eps)


def _rms_norm(weight: Tensor, eps: float, rows: int) -> Callable[[Tensor], Tensor]:
    """The norm of x `(..., C)`; for a row alone as the LayerNorm of [x, -x], whose mean is 0.

    That is one kernel over twice the numbers, where torch has six for an RMSNorm on a CPU.
    """
    C = weight.shape[-1]
    if rows > 1:
        return lambda x: weight * torch.rms_norm(x, [C], eps=eps)
    return lambda x: weight * torch.layer_norm(torch.cat([x, -x], -1), [2 * C], eps=eps)[..., :C]


def _qk_norm(attention: nn.Module, rows: int) -> Callable[[Tensor], Tensor]:
    """The norms of queries and keys `(B, H + G, 1, D)`, in float32."""
    norms = {attention.q_norm: attention.n_head, attention.k_norm: attention.kv_heads}
    weights = [norm.weight.detach().expand(heads, 1, -1) for norm, heads in norms.items()]
    ones = torch.ones_like(weights[0][0, 0], dtype=torch.float32)
    norm = _rms_norm(ones, attention.q_norm.eps, rows)
    # joined at each call: who takes a text token by token may train the model meanwhile
    return lambda qk: torch.cat(weights).float() * norm(qk.float())


def _feed_forward(module: nn.Module, rows: int) -> Callable[[Tensor], Tensor]:
    if type(module) is not MLP:
        return lambda x: module(x.view(rows, 1, -1))[0].view_as(x)  # as one position
    up, down, kind = _linear(module.c_fc, rows), _linear(module.c_proj, rows), module.kind
    return lambda x: down(activate(up(x), kind))


class CompiledStep:
    """As `Step`, recorded once as a CUDA graph and replayed; without CUDA, by torch.compile.

    On a GPU the step of a small model is many kernels that take less time than it takes to start
    them one by one; a graph starts them together. It is recorded anew for each text. What
    torch.compile made serves all later calls with the same shapes, and follows the weights.
    """

    def __init__(self, model: TinyGPT, cache: KVCache, padding: Tensor | None):
        self.model, self.cache, self.fixed = model, cache, FixedCache(cache, padding)
        B, device = cache.buffer.shape[2], cache.buffer.device
        self.token = torch.zeros(B, dtype=torch.long, device=device)
        self.run, self.length = None, -1  # tokens in the fixed cache; -1: others than in the cache

    def __call__(self, token: Tensor) -> Tensor:
        """Logits `(B, V)` after the tokens `(B,)`; the fixed cache then holds them."""
        if self.run is None:  # here, since what is compiled holds for the modes it was compiled in
            self.run = self._prepared()
        if self.length != self.cache.length:
            self.fixed.follow(self.cache)
        self.token.copy_(token)
        logits = self.run()
        self.length = self.cache.length = self.cache.length + 1
        return logits

    def _prepared(self) -> Callable[[], Tensor]:
        run = partial(_read_one, self.model, self.fixed, self.token)
        on_gpu = self.token.device.type == "cuda"
        try:
            return _recorded(run, self.fixed) if on_gpu else _compiled(run)
        except RuntimeError as error:
            reason = str(error).strip().split("\n")[0]
            needs = "a step without a look at its results" if on_gpu else "a C++ compiler"
            raise ConfigError(
                f"compile=True needs {needs}; use compile=False, or mend this: {reason}"
            ) from error


def _read_one(model: TinyGPT, cache: FixedCache, token: Tensor) -> Tensor:
    return model(token[:, None], cache=cache).logits[:, -1]


def _compiled(run: partial) -> Callable[[], Tensor]:
    run = partial(torch.compile(run.func, dynamic=False), *run.args)
    run()
    return run


def _recorded(run: Callable[[], Tensor], cache: FixedCache) -> Callable[[], Tensor]:
    device, graph = cache.length.device, torch.cuda.CUDAGraph()
    with torch.cuda.device(device):
        aside, now = torch.cuda.Stream(), torch.cuda.current_stream()
        aside.wait_stream(now)
        with torch.cuda.stream(aside):
            for _ in range(3):  # the libraries prepare what may not be done while recording
                cache.length.zero_()
                run()
        now.wait_stream(aside)
        with torch.cuda.graph(graph):
            logits = run()

    def replay() -> Tensor:
        graph.replay()
        return logits.clone()  # the next replay writes to the same place

    return replay
