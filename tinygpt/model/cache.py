"""Keys and values of what was read: so that a new token costs one step, not a whole pass.

B batch, T time, S tokens kept, G heads of keys and values, D head size
"""

import torch
from torch import Tensor

from ..config import ModelConfig


class KVCache:
    """Keys and values of the tokens read so far, in buffers allocated once.

    `padding` `(B,)` says how many of the first tokens of each row are padding on the left: they
    are never attended to, and positions count from the first real token. It is replaced, never
    changed in place. Past `size` tokens a single new token takes the place of the oldest: its slot
    is its position modulo `size`, and the order of slots does not matter to a softmax.
    """

    def __init__(
        self,
        config: ModelConfig,
        batch_size: int = 1,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        padding: Tensor | None = None,
    ):
        self.size = config.block_size
        self.length = 0  # tokens read, also those whose slot was taken since
        self.padding = padding
        # keys and values of each layer, (L, 2, B, G, size, D)
        shape = (config.n_layer, 2, batch_size, config.kv_heads, self.size, config.head_size)
        self.buffer = torch.empty(shape, device=device, dtype=dtype)
        # what `before` needs: tokens, and what the shifted layers read
        self.tokens = torch.zeros(batch_size, self.size, dtype=torch.long, device=device)
        shape = (config.n_layer if config.token_shift else 0, batch_size, self.size, config.n_embd)
        self.read = torch.zeros(shape, device=device, dtype=dtype)

    @property
    def nbytes(self) -> int:
        """The memory of its buffers."""
        return self.buffer.nbytes + self.tokens.nbytes + self.read.nbytes

    def restart(self, padding: Tensor | None = None) -> None:
        """Forget everything read; the buffers are kept."""
        self.length, self.padding = 0, padding

    def positions(self, T: int, device: torch.device) -> Tensor:
        """Positions of the next T tokens: `(T,)`, or `(B, T)` with padding."""
        positions = torch.arange(self.length, self.length + T, device=device)
        if self.padding is None:
            return positions
        return (positions - self.padding[:, None]).clamp(min=0)

    def first(self, T: int, device: torch.device) -> Tensor | None:
        """Which of the next T tokens begin a row, `(T,)` or `(B, T)`; None: surely none of them."""
        if self.padding is None and self.length:
            return None
        return self.positions(T, device) == 0

    def mask(self, T: int, device: torch.device) -> Tensor | None:
        """Which of the kept tokens each of the next T may see, `(T, S)` or `(B, 1, T, S)`.

        None where a plain rule does: one new token sees all, a first window is causal.
        """
        if self.padding is None and (T == 1 or self.length == 0):
            return None
        newest = self.length + T - 1
        query = torch.arange(self.length, newest + 1, device=device)[:, None]
        slot = torch.arange(min(newest + 1, self.size), device=device)
        key = newest - (newest - slot) % self.size  # which token each slot holds
        seen = key <= query  # (T, S)
        if self.padding is None:
            return seen
        real = key >= self.padding[:, None, None, None]
        return seen & real | (key == query)  # padding sees itself: a row of nothing is NaN

    def before(self, kept: Tensor, new: Tensor) -> Tensor:
        """What came before each of `new` `(B, T, ...)`, the next in time, which is `kept`
        `(B, size, ...)`. What it says of a row's first token means nothing."""
        T, slot = new.shape[1], self.length % self.size
        last = kept[:, slot - 1, None]
        before = torch.cat([last, new[:, :-1]], dim=1)
        kept[:, slot : slot + T] = new
        return before

    def reorder(self, rows: Tensor) -> None:
        """Let row i hold what row `rows[i]` held."""
        self.buffer.copy_(self.buffer[:, :, rows])
        self.tokens.copy_(self.tokens[rows])
        self.read.copy_(self.read[:, rows])
        if self.padding is not None:
            self.padding = self.padding[rows]

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keep k and v `(B, G, T, D)`; return those of all tokens kept, `(B, G, S, D)`."""
        T, slot = k.shape[2], self.length % self.size
        kept = min(self.length + T, self.size)
        keys, values = self.buffer[layer, 0], self.buffer[layer, 1]  # (B, G, size, D)
        keys[:, :, slot : slot + T], values[:, :, slot : slot + T] = k, v
        return keys[:, :, :kept], values[:, :, :kept]


class FixedCache(KVCache):
    """A cache for steps of one token in which nothing depends on a number in Python.

    So a step can be compiled, or recorded as a CUDA graph: `length` is a tensor `(1,)` on the
    device, and attention goes over all slots, with a mask over those not yet taken.
    """

    def __init__(self, cache: KVCache, padding: Tensor | None = None):
        self.size, self.padding = cache.size, padding
        self.length = torch.zeros(1, dtype=torch.long, device=cache.buffer.device)
        # zeros, since a masked slot has weight 0, and 0 * NaN is NaN; a tensor for each layer's
        # keys and values, since a compiler copies all of a tensor that it sees changed in part
        cache.buffer.zero_()
        self.slots = [kept.clone() for kept in cache.buffer.flatten(0, 1)]  # (B, G, size, D)
        self.tokens, self.read = cache.tokens.clone(), [kept.clone() for kept in cache.read]

    def follow(self, cache: KVCache) -> None:
        """Take over what another cache of the same shape holds."""
        self.length.fill_(cache.length)
        for slots, kept in zip(self.slots, cache.buffer.flatten(0, 1), strict=True):
            slots.copy_(kept)
        self.tokens.copy_(cache.tokens)
        for kept, theirs in zip(self.read, cache.read, strict=True):
            kept.copy_(theirs)

    def positions(self, T: int, device: torch.device) -> Tensor:
        """The next token's position: `(1,)`, or `(B, 1)` with padding."""
        if self.padding is None:
            return self.length
        return (self.length - self.padding[:, None]).clamp(min=0)

    def first(self, T: int, device: torch.device) -> Tensor:
        """Whether the next token begins a row, `(1,)` or `(B, 1)`."""
        return self.positions(T, device) == 0

    def mask(self, T: int, device: torch.device) -> Tensor:
        """Which slots the next token may see, `(1, size)` or `(B, 1, 1, size)`."""
        slot = torch.arange(self.size, device=device)
        key = self.length - (self.length - slot) % self.size  # below 0: not yet taken
        if self.padding is None:
            return (key >= 0)[None]
        return (key >= self.padding[:, None, None, None]) | (key == self.length)

    def before(self, kept: Tensor, new: Tensor) -> Tensor:
        """What came before `new` `(B, 1, ...)`, which is `kept`."""
        last = kept.index_select(1, (self.length - 1) % self.size)
        kept.index_copy_(1, self.length % self.size, new)
        return last

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keep k and v `(B, G, 1, D)`; return all slots, `(B, G, size, D)`."""
        slot, (keys, values) = self.length % self.size, self.slots[2 * layer : 2 * layer + 2]
        return keys.index_copy_(2, slot, k), values.index_copy_(2, slot, v)
