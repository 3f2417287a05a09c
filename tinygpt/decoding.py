"""From a prompt to a text: reading with a cache, sampling, beams, streams.

B batch, T time, V vocabulary. The logit filters of `filters.py` are names of this module, too.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .config import DecodingConfig
from .errors import ConfigError
from .filters import (
    NONE,
    allow_only,
    apply_frequency_penalty,
    apply_repetition_penalty,
    apply_temperature,
    ban_repeated_ngrams,
    draw,
    filter_epsilon,
    filter_eta,
    filter_min_p,
    filter_top_k,
    filter_top_p,
    filter_typical,
    noise,
    pick,
    process,
    processors,
)
from .layers import MLP, FixedCache, KVCache, activate, rotary_table, rotate
from .model import TinyGPT, evaluating
from .runtime import one_thread
from .tokenizer import CharTokenizer

__all__ = [
    "NONE",
    "Generated",
    "Reader",
    "Writer",
    "allow_only",
    "apply_frequency_penalty",
    "apply_repetition_penalty",
    "apply_temperature",
    "ban_repeated_ngrams",
    "clean_text",
    "draw",
    "filter_epsilon",
    "filter_eta",
    "filter_min_p",
    "filter_top_k",
    "filter_top_p",
    "filter_typical",
    "generate",
    "generateV2",
    "generate_beam",
    "generate_combined",
    "generate_greedy",
    "generate_lookup",
    "generate_nucleus",
    "generate_temperature",
    "generate_top_k",
    "process",
    "processors",
    "stream",
]

# --- reading tokens ------------------------------------------------------------------------------


class Reader:
    """Gives the logits after what was written so far, with a KV cache or by reading anew.

    Rows are padded on the left. Past `block_size`: `crop` reads the last `block_size` tokens anew
    for each token, `roll` lets a new token take the oldest one's place, `stop` is an error.
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
        if self.rolls and model.config.position != "rope":
            raise ConfigError(
                "past_block='roll' needs rotary positions; this model's are learned: use 'crop'"
            )
        dtype = model.wte.weight.dtype
        self.cache = KVCache(model.config, len(padding), model.device, dtype)
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
            logits = self.model(window, cache=cache).logits[:, -1]
        while cache.length < T and not crops:
            token = tokens.select(1, cache.length)
            logits = self.step(token.clamp(min=0) if self.padded else token)
        return logits

    def reorder(self, rows: Tensor) -> None:
        """Let row i go on from what row `rows[i]` read: for beam search."""
        self.cache.buffer.copy_(self.cache.buffer[:, :, rows])
        self.padding = self.padding[rows]


class Step:
    """One new token per row, as `TinyGPT.forward` would read it, without the modules' overhead.

    At batch 1 a small model spends most of its time in Python: looking up modules and their
    attributes costs more than the arithmetic. So they are looked up once, here.
    """

    def __init__(self, model: TinyGPT, cache: KVCache):
        self.cache, self.config = cache, model.config
        self.wte = model.wte.weight
        self.wpe = model.wpe.weight if self.config.position == "learned" else None
        self.layers = [
            (
                _norm(block.ln_1),
                _linear(block.attn.c_attn),
                block.attn.qk_norm and (_norm(block.attn.q_norm), _norm(block.attn.k_norm)),
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


def _feed_forward(module: nn.Module) -> Callable[[Tensor], Tensor]:
    if type(module) is not MLP:
        return lambda x: module(x[:, None])[:, 0]  # (B, C) as one position
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


# --- writing text --------------------------------------------------------------------------------

Constraint = Callable[[str], Iterable[str]]


@dataclass
class Generated:
    """One row of what was generated; log-probabilities are in nats, one per new token."""

    text: str  # prompt and continuation
    tokens: list[int]  # the new ones
    raw_logprobs: list[float]  # under the model itself
    logprobs: list[float]  # under the distribution that was drawn from, after all filters
    stopped: bool  # by a stop sequence; it is not part of the text


class Writer:
    """Rows of tokens being written side by side, in one buffer `(B, T)` padded on the left."""

    def __init__(
        self,
        model: TinyGPT,
        prompts: list[str],
        max_new_tokens: int,
        tokenizer: CharTokenizer | None,
        config: DecodingConfig,
        constraint: Constraint | None = None,
    ):
        self.model, self.config = model, config
        self.tokenizer = tokenizer = _tokenizer(model, tokenizer)
        ids = [tokenizer.encode(prompt) for prompt in prompts]
        _check_request(prompts, max_new_tokens, config, model)
        self.prompt_length = self.length = max(map(len, ids))
        shape = len(ids), self.prompt_length + max_new_tokens
        self.tokens = torch.full(shape, NONE, device=model.device)
        for row, prompt in zip(self.tokens, ids, strict=True):
            row[self.length - len(prompt) : self.length] = torch.tensor(prompt)
        self.padding = torch.tensor([self.length - len(p) for p in ids], device=model.device)
        self.chain = processors(config, tokenizer, constraint, model.device)
        self.stop = [tokenizer.encode(text) for text in config.stop]
        self.new: list[list[int]] = [[] for _ in ids]  # kept only where stop sequences need it
        self.ends: list[int | None] = [None] * len(ids)  # new tokens before the stop sequence
        self.logits: list[tuple[Tensor, Tensor]] = []  # raw and processed, if `details`

    def run(
        self,
        seed: int | None = None,
        use_cache: bool = True,
        details: bool = False,
        compile: bool = False,
    ) -> Iterator[None]:
        """Write one token per row and yield, until the buffer is full or all rows have ended."""
        last = self.tokens.shape[1]
        if self.config.past_block == "stop":
            # the last token is written but never read, so there is room for one more
            last = min(last, self.model.config.block_size + 1)
        small = self.model.config.n_embd <= 256 and len(self.tokens) <= 64
        luck = None
        if self.config.temperature != 0:
            generators, V = _generators(len(self.tokens), seed), self.tokenizer.vocab_size
            luck = noise(generators, V, last - self.length, self.tokens.device)
        with evaluating(self.model):
            read = Reader(self.model, self.padding, self.config.past_block, use_cache, compile)
            while self.length < last and None in self.ends:
                # not around the yield: who takes the tokens computes as they please
                with one_thread(small), torch.inference_mode():
                    self._write(read, luck, details)
                yield

    def _write(self, read: Reader, luck: Iterator[Tensor] | None, details: bool) -> None:
        """Add a token to each row: by the next noise, or the most probable if there is none."""
        logits = processed = read(self.tokens, self.length)
        if self.chain:
            tokens = self.tokens[:, : self.length]
            processed = process(logits, tokens, self.prompt_length, self.chain)
        choice = processed.argmax(dim=-1) if luck is None else pick(processed, next(luck))
        self.tokens[:, self.length] = choice
        self.length += 1
        if details:
            self.logits.append((logits, processed))
        if self.stop:
            self._stop(choice.tolist())

    def _stop(self, choice: list[int]) -> None:
        """End the rows whose new tokens end with a stop sequence; the longest one is cut off."""
        for i, token in enumerate(choice):
            new = self.new[i]
            new.append(token)
            lengths = [len(s) for s in self.stop if new[-len(s) :] == s]
            if lengths and self.ends[i] is None:
                self.ends[i] = len(new) - max(lengths)

    def new_tokens(self, row: int) -> list[int]:
        """What was written in a row, without its stop sequence."""
        return self.tokens[row, self.prompt_length : self.length][: self.ends[row]].tolist()

    def text(self, row: int) -> str:
        """The row's prompt and what was written."""
        prompt = self.tokens[row, self.padding[row] : self.prompt_length]
        return self.tokenizer.decode(prompt) + self.tokenizer.decode(self.new_tokens(row))

    def details(self, row: int) -> Generated:
        """The row with its log-probabilities."""
        new = self.new_tokens(row)
        logprobs = [
            [x[row].log_softmax(dim=-1)[token].item() for x, token in zip(kind, new, strict=False)]
            for kind in (zip(*self.logits, strict=True) if self.logits else ([], []))
        ]
        return Generated(self.text(row), new, *logprobs, stopped=self.ends[row] is not None)


def generateV2(
    model: TinyGPT,
    prompt: str | list[str],
    max_new_tokens: int = 200,
    *,
    seed: int | None = None,
    tokenizer: CharTokenizer | None = None,
    constraint: Constraint | None = None,
    use_cache: bool = True,
    details: bool = False,
    compile: bool = False,
    **options,
) -> str | list[str] | Generated | list[Generated]:
    """The prompt and its continuation, with every option of `DecodingConfig` by name.

    A list of prompts gives a list. Row i draws from its own generator, seeded `seed + i`, so it
    is what that prompt would give alone. `constraint(text)` gives the symbols that may follow a
    text. With `details`, a `Generated` with tokens and log-probabilities. `compile` is for a GPU,
    see `CompiledStep`. Bad input raises `ConfigError` or `UnknownCharacterError`, both
    `ValueError`, before anything is written.
    """
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    config = _decoding_config(options)
    writer = Writer(model, prompts, max_new_tokens, tokenizer, config, constraint)
    for _ in writer.run(seed, use_cache, details, compile):
        pass
    results = [writer.details(i) if details else writer.text(i) for i in range(len(prompts))]
    return results[0] if isinstance(prompt, str) else results


def generate(model: TinyGPT, prompt: str | list[str], max_new_tokens: int = 200, **options):
    """The prompt and its continuation: plain sampling, at temperature 1. See `generateV2`."""
    return generateV2(model, prompt, max_new_tokens, **options)


def generate_greedy(model: TinyGPT, prompt: str | list[str], max_new_tokens: int = 200, **options):
    """Always the most probable token. See `generateV2`."""
    return generateV2(model, prompt, max_new_tokens, temperature=0.0, **options)


def generate_temperature(
    model: TinyGPT,
    prompt: str | list[str],
    max_new_tokens: int = 200,
    temperature: float = 0.8,
    **options,
):
    """From the sharpened (below 1) or flattened (above 1) distribution. See `generateV2`."""
    return generateV2(model, prompt, max_new_tokens, temperature=temperature, **options)


def generate_top_k(
    model: TinyGPT, prompt: str | list[str], max_new_tokens: int = 200, top_k: int = 10, **options
):
    """From the k most probable tokens. See `generateV2`."""
    return generateV2(model, prompt, max_new_tokens, top_k=top_k, **options)


def generate_nucleus(
    model: TinyGPT,
    prompt: str | list[str],
    max_new_tokens: int = 200,
    top_p: float = 0.9,
    **options,
):
    """From the fewest tokens that together have probability p. See `generateV2`."""
    return generateV2(model, prompt, max_new_tokens, top_p=top_p, **options)


def generate_combined(
    model: TinyGPT,
    prompt: str | list[str],
    max_new_tokens: int = 200,
    temperature: float = 0.8,
    top_k: int = 20,
    top_p: float = 0.95,
    **options,
):
    """Temperature, then top-k, then top-p: a usual mixture. See `generateV2`."""
    cuts = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    return generateV2(model, prompt, max_new_tokens, **cuts, **options)


def stream(
    model: TinyGPT,
    prompt: str,
    max_new_tokens: int = 200,
    *,
    seed: int | None = None,
    tokenizer: CharTokenizer | None = None,
    constraint: Constraint | None = None,
    compile: bool = False,
    **options,
) -> Iterator[str]:
    """Yield the continuation as it comes; joined, it is what `generateV2` adds to the prompt.

    What may be the beginning of a stop sequence is held back until it is clear that it is not.
    Bad input raises here, not at the first piece.
    """
    config = _decoding_config(options)
    writer = Writer(model, [prompt], max_new_tokens, tokenizer, config, constraint)
    return _pieces(writer, writer.run(seed, compile=compile))


def _pieces(writer: Writer, steps: Iterator[None]) -> Iterator[str]:
    shown = 0
    for _ in steps:
        new = writer.tokenizer.decode(writer.new_tokens(0))
        safe = len(new) - (_unfinished(new, writer.config.stop) if None in writer.ends else 0)
        if safe > shown:
            yield new[shown:safe]
            shown = safe
    if rest := writer.tokenizer.decode(writer.new_tokens(0))[shown:]:
        yield rest


def _unfinished(text: str, stop: tuple[str, ...]) -> int:
    """Length of the longest end of a text that begins a stop sequence."""
    lengths = [n for s in stop for n in range(1, len(s)) if text.endswith(s[:n])]
    return max(lengths, default=0)


def generate_beam(
    model: TinyGPT,
    prompt: str,
    max_new_tokens: int = 200,
    *,
    n_beams: int = 4,
    length_penalty: float = 1.0,
    n_best: int = 1,
    tokenizer: CharTokenizer | None = None,
    stop: tuple[str, ...] = (),
    past_block: str = "crop",
) -> str | list[tuple[str, float]]:
    """Beam search: keep the `n_beams` most probable continuations, grown by a token at a time.

    The score is the sum of log-probabilities over the new tokens, divided by their number to the
    power `length_penalty` (above 0 favours long texts; they differ in length only with `stop`).
    With `n_best` above 1, the best texts with their scores in nats, best first.
    """
    _check_beams(n_beams, n_best)
    config = DecodingConfig(temperature=0.0, stop=stop, past_block=past_block)
    writer = Writer(model, [prompt] * n_beams, max_new_tokens, tokenizer, config)
    with evaluating(model):
        finished = _beam_search(writer, n_beams, length_penalty)
    best = sorted(finished, key=lambda pair: -pair[1])[:n_best]
    return best if n_best > 1 else best[0][0]


@torch.inference_mode()
def _beam_search(w: Writer, n_beams: int, length_penalty: float) -> list[tuple[str, float]]:
    read = Reader(w.model, w.padding, w.config.past_block)
    sums = torch.full((n_beams, 1), -torch.inf, device=w.tokens.device)
    sums[0] = 0  # all beams are equal at first: only one may grow
    finished, V = [], w.tokenizer.vocab_size
    last = w.tokens.shape[1]
    if w.config.past_block == "stop":
        last = min(last, w.model.config.block_size + 1)

    def score(row: int) -> float:
        new = w.length - w.prompt_length
        return float(sums[row]) / max(1, new) ** length_penalty

    while w.length < last and len(finished) < n_beams:
        totals = sums + read(w.tokens, w.length).log_softmax(dim=-1)  # (n_beams, V)
        sums, best = totals.flatten().topk(n_beams)
        sums, rows = sums[:, None], best // V
        w.tokens.copy_(w.tokens[rows])
        w.tokens[:, w.length] = best % V
        w.length += 1
        read.reorder(rows)
        for row in range(n_beams) if w.stop else ():
            new = w.new_tokens(row)
            lengths = [len(s) for s in w.stop if new[-len(s) :] == s]
            if lengths and sums[row] > -torch.inf:
                finished.append((w.text(row)[: -max(lengths)], score(row)))
                sums[row] = -torch.inf  # grows no more
        if (sums == -torch.inf).all():
            break
    alive = [row for row in range(n_beams) if sums[row] > -torch.inf]
    return finished + [(w.text(row), score(row)) for row in alive]


def generate_lookup(
    model: TinyGPT,
    prompt: str,
    max_new_tokens: int = 200,
    *,
    ngram: int = 3,
    draft: int = 8,
    tokenizer: CharTokenizer | None = None,
) -> str:
    """Greedy text by prompt-lookup speculative decoding (Saxena 2023; Leviathan et al. 2023).

    When the last `ngram` tokens stood in the text before, what followed them there is taken as a
    draft of up to `draft` tokens. One forward pass then says how many of them greedy decoding would
    have written; those are kept. The text equals `generate_greedy`'s, often in fewer passes.
    """
    if ngram < 1 or draft < 1:
        raise ConfigError(f"ngram={ngram} and draft={draft} must be at least 1")
    config = DecodingConfig(temperature=0.0)
    writer = Writer(model, [prompt], max_new_tokens, tokenizer, config)
    with evaluating(model):
        _speculate(writer, ngram, draft)
    return writer.text(0)


@torch.inference_mode()
def _speculate(w: Writer, ngram: int, draft: int) -> int:
    """Fill the writer's buffer; returns the number of forward passes."""
    block, last = w.model.config.block_size, w.tokens.shape[1]
    cache, passes = KVCache(w.model.config, 1, w.tokens.device, w.model.wte.weight.dtype), 0
    while w.length < min(last, block):
        guess = _lookup(w.tokens[0, : w.length].tolist(), ngram)[:draft]
        guess = guess[: min(last, block) - w.length - 1]
        w.tokens[0, w.length : w.length + len(guess)] = torch.tensor(guess, dtype=torch.long)
        unread = w.tokens[:, cache.length : w.length + len(guess)]
        choices = w.model(unread, cache=cache).logits[0, -len(guess) - 1 :].argmax(dim=-1).tolist()
        agreed = next(
            (i for i, (a, b) in enumerate(zip(guess, choices, strict=False)) if a != b), len(guess)
        )
        w.tokens[0, w.length : w.length + agreed + 1] = torch.tensor(choices[: agreed + 1])
        w.length += agreed + 1
        cache.length = w.length - 1  # what was guessed wrong is overwritten by what comes
        passes += 1
    read = Reader(w.model, w.padding, "crop")
    while w.length < last:  # beyond the block there is no cache to check a draft with
        w.tokens[:, w.length] = read(w.tokens, w.length).argmax(dim=-1)
        w.length += 1
        passes += 1
    return passes


def _lookup(tokens: list[int], ngram: int) -> list[int]:
    """What followed the last earlier occurrence of the final `ngram` tokens; [] if none."""
    end = tokens[-ngram:]
    for start in range(len(tokens) - ngram - 1, -1, -1):
        if tokens[start : start + ngram] == end:
            return tokens[start + ngram :]
    return []


def clean_text(text: str) -> str:
    """A sample tidied for display: no unfinished last line, no stray or doubled spaces and lines.

    A speaker's name without a speech at the end goes, too. A single line is left as it is.

    >>> clean_text("ROMEO:\\nAy  me. \\n\\n\\n\\nJULIET:\\nO Rom")
    'ROMEO:\\nAy me.'
    """
    lines = [re.sub(r"[ \t]+", " ", line).strip() for line in text.split("\n")]
    if len(lines) > 1:
        lines = lines[:-1]  # it may have been cut off anywhere
    while lines and (not lines[-1] or lines[-1].endswith(":")):
        lines.pop()
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip("\n")


def _generators(count: int, seed: int | None) -> list[torch.Generator]:
    generators = [torch.Generator() for _ in range(count)]
    for i, generator in enumerate(generators):
        generator.seed() if seed is None else generator.manual_seed(seed + i)
    return generators


def _tokenizer(model: TinyGPT, tokenizer: CharTokenizer | None) -> CharTokenizer:
    tokenizer = tokenizer or model.tokenizer
    if tokenizer is None:
        raise ConfigError("this model has no tokenizer; give one: generate(…, tokenizer=tok)")
    if tokenizer.vocab_size != model.config.vocab_size:
        raise ConfigError(
            f"the tokenizer has {tokenizer.vocab_size} symbols, the model's vocab_size is "
            f"{model.config.vocab_size}; give the tokenizer that the model was trained with"
        )
    return tokenizer


def _decoding_config(options: dict) -> DecodingConfig:
    unknown = sorted(set(options) - set(DecodingConfig.__dataclass_fields__))
    if unknown:
        known = ", ".join(DecodingConfig.__dataclass_fields__)
        raise ConfigError(f"there is no option {', '.join(unknown)}; there are {known}")
    return DecodingConfig(**options)


def _check_request(
    prompts: list[str], max_new_tokens: int, config: DecodingConfig, model: TinyGPT
) -> None:
    if not prompts or not all(prompts):
        raise ConfigError("a prompt is empty; give at least one character, for example '\\n'")
    if max_new_tokens < 0:
        raise ConfigError(f"max_new_tokens={max_new_tokens} must be at least 0")
    longest, block = max(map(len, prompts)), model.config.block_size
    if config.past_block == "stop" and longest > block:
        raise ConfigError(
            f"a prompt of {longest} tokens is longer than block_size={block}, and past_block is "
            f"'stop'; shorten it, or use past_block='crop'"
        )


def _check_beams(n_beams: int, n_best: int) -> None:
    if n_beams < 1:
        raise ConfigError(f"n_beams={n_beams} must be at least 1")
    if not 1 <= n_best <= n_beams:
        raise ConfigError(f"n_best={n_best} must be between 1 and n_beams={n_beams}")
