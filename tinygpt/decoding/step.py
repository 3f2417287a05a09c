"""One new token per row without the modules' overhead; and the same recorded once."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ConfigError
from ..model import MLP, FixedCache, KVCache, TinyGPT, activate, in_float32, rotary_table, rotate


class Step:
    """One new token per row, as `TinyGPT.forward` would read it, without the modules' overhead.

    At batch 1 a small model spends most of its time in Python: looking up modules and their
    attributes costs more than the arithmetic. So they are looked up once, here.
    """

    def __init__(self, model: TinyGPT, cache: KVCache):
        self.cache, self.config = cache, model.config
        self.wte = model.wte.weight
        self.wpe = model.wpe.weight if self.config.position == "learned" else None
        self.bigrams = model.bigrams if self.config.bigrams else None
        self.layers = [
            (
                _norm(block.ln_1),
                _linear(block.attn.c_attn),
                _qk_norm(block.attn) if block.attn.qk_norm else None,
                _linear(block.attn.c_proj),
                _norm(block.ln_2),
                _feed_forward(block.ffn),
            )
            for block in model.blocks
        ]
        self.ln_f, self.head = _norm(model.ln_f), _linear(model.lm_head)

    def __call__(self, token: Tensor) -> Tensor:
        """Logits `(B, V)` after the tokens `(B,)`; the cache then holds them."""
        cache, B, H = self.cache, len(token), self.config.n_head
        slot, count = cache.length % cache.size, min(cache.length + 1, cache.size)
        # views of all layers, taken at once: (2, B, H, 1, D) to write, (B, H, S, D) to read
        slots = cache.buffer.narrow(4, slot, 1).unbind()
        kept = cache.buffer.flatten(0, 1).narrow(3, 0, count).unbind()
        mask = None if cache.padding is None else cache.mask(1, token.device)
        x, rotary = self._embed(token)  # (B, C)
        for (ln_1, c_attn, qk_norm, c_proj, ln_2, ffn), new, keys, values in zip(
            self.layers, slots, kept[::2], kept[1::2], strict=True
        ):
            heads = c_attn(ln_1(x)).view(B, 3, H, 1, -1).transpose(0, 1)
            if qk_norm or rotary:
                q, k, new[1] = heads  # (B, H, 1, D)
                if qk_norm:
                    q, k = qk_norm[0](q), qk_norm[1](k)
                if rotary:
                    q, k = rotate(q, *rotary), rotate(k, *rotary)
                new[0] = k
            else:
                q = heads[0]
                new.copy_(heads[1:])
            y = F.scaled_dot_product_attention(q, keys, values, mask)
            x = x + c_proj(y.view(B, -1))
            x = x + ffn(ln_2(x))
        cache.length += 1
        return self.head(self.ln_f(x)).float()

    def _embed(self, token: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """The new tokens' vectors, with learned positions or beside the rotary table."""
        cache, config, x = self.cache, self.config, torch.embedding(self.wte, token)
        if self.bigrams is not None:
            before, positions = cache.before(token[:, None]), cache.positions(1, token.device)
            x = x + self.bigrams(token[:, None], before, positions)[:, 0]
        if self.wpe is None:
            positions = cache.positions(1, token.device)
            return x, rotary_table(positions, config.head_size, config.rope_theta)
        if cache.padding is None:
            return x + self.wpe[cache.length], None
        return x + self.wpe[cache.positions(1, token.device)[:, 0]], None


def _linear(module: nn.Linear) -> Callable[[Tensor], Tensor]:
    weight, bias = module.weight.t(), module.bias
    return (lambda x: x @ weight) if bias is None else lambda x: torch.addmm(bias, x, weight)


def _norm(module: nn.Module) -> Callable[[Tensor], Tensor]:
    shape = list(module.normalized_shape)
    if isinstance(module, nn.RMSNorm):
        return partial(torch.rms_norm, normalized_shape=shape, weight=module.weight, eps=module.eps)
    weight, bias, eps = module.weight, module.bias, module.eps
    return lambda x: torch.layer_norm(x, shape, weight, bias, eps)


def _qk_norm(attention: nn.Module) -> tuple[Callable[[Tensor], Tensor], ...]:
    return tuple(partial(in_float32, norm) for norm in (attention.q_norm, attention.k_norm))


def _feed_forward(module: nn.Module) -> Callable[[Tensor], Tensor]:
    if type(module) is not MLP:
        return lambda x: module(x[:, None])[0][:, 0]  # (B, C) as one position
    up, down, kind = _linear(module.c_fc), _linear(module.c_proj), module.kind
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
