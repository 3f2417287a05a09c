"""Logits after what was written so far, with a KV cache or by reading anew."""

from torch import Tensor

from ..errors import ConfigError
from ..model import KVCache, TinyGPT
from .step import CompiledStep, Step


def new_cache(model: TinyGPT, rows: int) -> KVCache:
    """An empty cache for so many rows; `ConfigError` if there is no memory for it."""
    try:
        return KVCache(model.config, rows, model.device, model.wte.weight.dtype)
    except RuntimeError as error:
        raise ConfigError(
            f"no memory for the keys and values of {rows} rows of {model.config.block_size} "
            f"tokens; write fewer rows at a time ({str(error).strip().splitlines()[0]})"
        ) from error


class Reader:
    """Gives the logits after what was written so far, with a KV cache or by reading anew.

    Rows are padded on the left. Past `block_size`: `crop` reads the last `block_size` tokens anew
    for each token, and so does `stop`, where a row that is still written has all its tokens among
    them; `roll` lets a new token take the oldest one's place.
    """

    def __init__(
        self,
        model: TinyGPT,
        padding: Tensor,
        past_block: str,
        use_cache: bool = True,
        compile: bool = False,
    ):
        self.model, self.padding, self.use_cache = model, padding, use_cache
        self.rolls, self.padded = past_block == "roll", bool(padding.any())
        self.cache = new_cache(model, len(padding))
        if compile and not use_cache:
            raise ConfigError("compile=True is for the step over the cache; leave use_cache=True")
        if compile:
            self.step = CompiledStep(model, self.cache, padding if self.padded else None)
        else:
            self.step = Step(model, self.cache)

    def __call__(self, tokens: Tensor, T: int) -> Tensor:
        """Logits `(B, V)` after the first T of the tokens, of which only the new ones are read."""
        cache = self.cache
        crops = not self.rolls and cache.size < T
        if crops or cache.length == 0 or not self.use_cache:
            first = T - cache.size if crops else 0
            cache.restart((self.padding - first).clamp(min=0) if self.padded else None)
            window = tokens[:, first : min(T, first + cache.size)].clamp(min=0)
            logits = self.model(window, cache=cache, only_last=True).logits[:, -1]
        while cache.length < T and not crops:
            token = tokens.select(1, cache.length)
            logits = self.step(token.clamp(min=0) if self.padded else token)
        return logits

    def reorder(self, rows: Tensor) -> None:
        """Let row i go on from what row `rows[i]` read: for beam search."""
        self.cache.reorder(rows)
        self.padding = self.padding[rows]
