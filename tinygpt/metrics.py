"""What is measured: losses, the variety of texts, parameter and FLOP counts, the log of a run."""

import csv
import io
import math
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .data import take
from .errors import ConfigError, TinyGPTError
from .files import write_text
from .model import TinyGPT, evaluating
from .moe import ExpertLinear, balance_loss, variation, z_loss
from .runtime import autocast, peak_flops

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

EVAL_TOKENS = 1 << 14  # tokens of one forward pass in an evaluation


@torch.inference_mode()
def evaluate(
    model: TinyGPT, tokens: Tensor, max_tokens: int | None = None, precision: str = "auto"
) -> float:
    """Mean cross-entropy in nats per token over a 1-D split, each token but the first once.

    The split is cut into windows of `block_size` that do not overlap (the last may be shorter).
    With `max_tokens`, only so many tokens are predicted, in windows spread evenly over the split.
    """
    batches = _windows(model, tokens, max_tokens)
    losses = [_loss_sum(model, tokens, part, length, precision) for part, length in batches]
    counted = sum(part.numel() * length for part, length in batches)
    return torch.stack(losses).cpu().double().sum().item() / counted


def _windows(model: TinyGPT, tokens: Tensor, max_tokens: int | None) -> list[tuple[Tensor, int]]:
    """Batches of windows over a split: where they start, and how many tokens they predict."""
    T, n = model.config.block_size, len(tokens) - 1  # n predictions
    if n < 1:
        raise ConfigError(f"a loss needs at least 2 tokens, this split has {len(tokens)}")
    starts = torch.arange(0, n, T)
    if max_tokens is not None and max_tokens < n:
        count = min(max(1, max_tokens // T), max(1, n // T))
        starts = starts[torch.linspace(0, n // T - 1, count, dtype=torch.float64).clamp(0).long()]
    whole, rest = starts[starts + T <= n], starts[starts + T > n]
    batches = [(part, T) for part in whole.split(max(1, EVAL_TOKENS // T)) if len(part)]
    return batches + [(part, n - int(part)) for part in rest]  # a last, shorter window


def _read(model: TinyGPT, tokens: Tensor, starts: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """The inputs and targets `(B, length)` of windows."""
    index = starts.view(-1, 1) + torch.arange(length + 1)
    window = take(tokens, index.to(tokens.device)).to(model.device)
    return window[:, :-1], window[:, 1:]


def _loss_sum(
    model: TinyGPT, tokens: Tensor, starts: Tensor, length: int, precision: str
) -> Tensor:
    """Summed cross-entropy over windows of `length` predictions."""
    x, y = _read(model, tokens, starts, length)
    with evaluating(model), autocast(model.device, precision):
        return model(x, y).lm_loss * x.numel()


@dataclass(frozen=True)
class RoutingReport:
    """What the routers of a model did with a split; L layers with experts."""

    tables: Tensor  # (L, V, E) how often each symbol went to each expert
    balance_loss: Tensor  # (L,) 1: even
    z_loss: Tensor  # (L,)
    entropy: Tensor  # (L,) nats

    @property
    def load(self) -> Tensor:
        """Share of the choices that fell on each expert, `(L, E)`."""
        counts = self.tables.sum(1)
        return counts / counts.sum(-1, keepdim=True)

    @property
    def load_cv(self) -> float:
        """The largest coefficient of variation of a layer's load: 0 is even."""
        return max(map(variation, self.load))


@torch.inference_mode()
def measure_routing(
    model: TinyGPT, tokens: Tensor, max_tokens: int | None = None, precision: str = "auto"
) -> RoutingReport:
    """Read a split as `evaluate` does, and see where its tokens go, in eval mode."""
    if model.config.moe is None:
        raise ConfigError("this model has no experts; build it with ModelConfig(moe=MoEConfig())")
    parts = []
    for starts, length in _windows(model, tokens, max_tokens):
        x, _ = _read(model, tokens, starts, length)
        with evaluating(model), autocast(model.device, precision):
            routings = model(x, return_routing=True).routing
        tables = torch.stack([r.table(x, model.config.vocab_size) for r in routings])
        figures = [torch.stack([balance_loss(r), z_loss(r), r.entropy()]) for r in routings]
        parts.append((x.numel(), tables.cpu(), torch.stack(figures, dim=1).cpu()))  # (3, L)
    counts, tables, figures = zip(*parts, strict=True)
    shares = torch.tensor(counts) / sum(counts)
    means = (torch.stack(figures) * shares[:, None, None]).sum(0)
    return RoutingReport(sum(tables), *means)


@torch.inference_mode()
def surprisal(model: TinyGPT, tokens: Tensor) -> Tensor:
    """-ln p of each token `(n,)` given those before it, in nats; the first is NaN.

    Windows overlap by half: beyond the first, each token has at least half a block before it.
    """
    T, nats = model.config.block_size, torch.full((len(tokens),), torch.nan)
    idx = tokens.to(model.device).long()[None]
    for start in range(0, max(1, len(tokens) - 1), max(1, T // 2)):
        x, y = idx[:, start : start + T], idx[:, start + 1 : start + T + 1]
        with evaluating(model):
            logits = model(x[:, : y.shape[1]]).logits[0]
        window = F.cross_entropy(logits, y[0], reduction="none").cpu()
        fresh = T // 2 if start else 0  # the rest was measured with more context before
        nats[start + 1 + fresh : start + 1 + len(window)] = window[fresh:]
    return nats


def words(text: str) -> list[str]:
    """The words of a text in small letters, with the apostrophes inside them.

    >>> words("O'er the hill, ROMEO!")
    ["o'er", 'the', 'hill', 'romeo']
    """
    return re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)*", text.lower())


def distinct_n(text: str, n: int = 2) -> float:
    """Share of different ones among all runs of n words (after Li et al. 2016).

    1 means that no run of n words comes twice; a text of fewer than n words is nan.

    >>> distinct_n("to be or not to be", 2)  # to be, be or, or not, not to, to be
    0.8
    """
    if n < 1:
        raise ConfigError(f"n={n} must be at least 1")
    found = words(text)
    grams = [tuple(found[i : i + n]) for i in range(len(found) - n + 1)]
    return len(set(grams)) / len(grams) if grams else math.nan


def repetition_rate(text: str, n: int = 12) -> float:
    """Share of the characters that lie in a run of n characters which stood in the text before.

    A text that goes round in a circle comes close to 1; an empty text is nan.

    >>> repetition_rate("abcabcabx", n=3)  # abcab: the second time round
    0.5555555555555556
    """
    if n < 1:
        raise ConfigError(f"n={n} must be at least 1")
    seen, repeated = set(), [False] * len(text)
    for i in range(len(text) - n + 1):
        if text[i : i + n] in seen:
            repeated[i : i + n] = [True] * n
        seen.add(text[i : i + n])
    return sum(repeated) / len(text) if text else math.nan


def valid_word_share(text: str, vocabulary: Collection[str]) -> float:
    """Share of a text's words that are in `vocabulary` (small letters); nan without words.

    A word that the text breaks off in the middle of is left out.

    >>> valid_word_share("The catt sat on", {"the", "cat", "sat"})  # on: cut off?
    0.6666666666666666
    """
    found = words(text)
    if text[-1:].isalpha():
        found = found[:-1]
    return sum(word in vocabulary for word in found) / len(found) if found else math.nan


def bootstrap_interval(
    values: Tensor, level: float = 0.95, draws: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """Mean of independent measurements `(n,)`, and the ends of its confidence interval.

    The percentile bootstrap (Efron and Tibshirani 1993, chapter 13): measure anew by drawing n of
    the values with replacement, many times; the middle `level` of those means is the interval.
    """
    if len(values) < 2 or not 0 < level < 1:
        raise ConfigError(
            f"an interval needs at least 2 values and a level between 0 and 1, "
            f"not {len(values)} and {level}"
        )
    values = values.double()
    generator = torch.Generator().manual_seed(seed)
    picks = torch.randint(len(values), (draws, len(values)), generator=generator)
    tails = torch.tensor([0.5 - level / 2, 0.5 + level / 2], dtype=torch.float64)
    low, high = values[picks].mean(dim=1).quantile(tails).tolist()
    return values.mean().item(), low, high


@dataclass(frozen=True)
class ParameterCount:
    """Numbers of weights. `embedding` (token and position tables) is part of `total`."""

    total: int
    active: int  # that one token passes through: all but the experts it does not use
    embedding: int


def count_parameters(model: TinyGPT) -> ParameterCount:
    """Count the weights from the tensors themselves; a tied head is counted once."""
    total = sum(p.numel() for p in model.parameters())
    tables = [m for m in model.modules() if isinstance(m, nn.Embedding)]
    layers = [m for m in model.modules() if isinstance(m, ExpertLinear)]
    stacked = sum(p.numel() for layer in layers for p in layer.parameters())
    moe = model.config.moe
    idle = stacked * (moe.n_experts - moe.top_k) // moe.n_experts if moe else 0
    return ParameterCount(total, total - idle, sum(table.weight.numel() for table in tables))


def flops_per_token(model: TinyGPT, training: bool = True) -> int:
    """Floating-point operations per token of a full window, matrix products only.

    Two per weight of each linear layer (of K experts, where there are some), and 4 T C per layer
    for scores and weighted sum (Chowdhery et al. 2022, appendix B, which counts the whole T x T
    square as here). Training costs three times the forward pass: the backward pass forms two
    products for each one.
    """
    config, modules = model.config, list(model.modules())
    linear = sum(2 * m.weight.numel() for m in modules if isinstance(m, nn.Linear))
    for layer in (m for m in modules if isinstance(m, ExpertLinear)):
        linear += 2 * config.moe.top_k * layer.weight[0].numel()
    attention = 4 * config.n_layer * config.block_size * config.n_embd
    return (3 if training else 1) * (linear + attention)


def model_flop_utilisation(model: TinyGPT, tokens_per_s: float) -> float | None:
    """Share of the device's bf16 peak that training at this speed uses; None if not known."""
    peak = peak_flops(model.device)
    return None if peak is None else flops_per_token(model) * tokens_per_s / peak


class MetricsLogger:
    """One row per evaluation, kept in memory and, with a `path`, in a CSV file.

    An existing file is continued; a last line torn by a crash is dropped. TensorBoard and
    Weights & Biases get the same numbers when asked for (and installed).
    """

    COLUMNS = (
        "step",
        "epoch",
        "train_lm_loss",  # nats per token
        "val_lm_loss",
        "train_perplexity",
        "val_perplexity",
        "val_bits_per_char",
        "lr",
        "grad_norm",  # before clipping
        "tokens_per_s",
        "peak_gpu_gb",
        "seconds",
        "load_cv",  # of the experts, in the most uneven layer; nan without experts
        "balance_loss",  # mean over the layers with experts; 1: even
        "z_loss",
    )

    def __init__(
        self, path: str | Path | None = None, tensorboard: bool = False, wandb: str | None = None
    ):
        self.path = Path(path) if path else None
        self.rows: list[dict[str, float]] = []
        if self.path and self.path.exists():
            self.rows = self.read(self.path)
            self._rewrite()
        self._sinks = [_tensorboard(self.path)] if tensorboard else []
        if wandb:
            self._sinks.append(_wandb(wandb))

    def log(
        self, *, step: int, train_lm_loss: float, val_lm_loss: float, **values: float
    ) -> dict[str, float]:
        """Add a row; perplexities and bits per character are filled in from the losses."""
        unknown = set(values) - set(self.COLUMNS)
        if unknown:
            raise ConfigError(f"no column {', '.join(sorted(unknown))}; there are {self.COLUMNS}")
        values |= {
            "train_lm_loss": train_lm_loss,
            "val_lm_loss": val_lm_loss,
            "train_perplexity": math.exp(min(train_lm_loss, 700)),
            "val_perplexity": math.exp(min(val_lm_loss, 700)),
            "val_bits_per_char": val_lm_loss / math.log(2),
        }
        row = {name: float(values.get(name, math.nan)) for name in self.COLUMNS}
        row["step"] = int(step)
        self.rows.append(row)
        if self.path:
            self._append(row)
        for sink in self._sinks:
            sink(row)
        return row

    def truncate(self, step: int) -> None:
        """Forget the rows after `step`: a resumed run writes them again."""
        self.rows = [row for row in self.rows if row["step"] <= step]
        if self.path:
            self._rewrite()

    @classmethod
    def read(cls, path: str | Path) -> list[dict[str, float]]:
        """The rows of a CSV file; an incomplete last line is left out."""
        text = Path(path).read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]
        rows = list(csv.DictReader(io.StringIO(whole)))
        good = [row for row in rows if None not in row and None not in row.values()]
        blank = dict.fromkeys(cls.COLUMNS, math.nan)  # what an older file does not have
        return [
            blank | {k: int(v) if k == "step" else float(v) for k, v in r.items()} for r in good
        ]

    def frame(self) -> "pd.DataFrame":
        """The rows as a table."""
        import pandas as pd

        return pd.DataFrame(self.rows, columns=list(self.COLUMNS))

    def plot(self, **options) -> "Figure":
        """Loss and perplexity per epoch; see `plots.plot_training`."""
        from .plots import plot_training

        return plot_training(self.frame(), **options)

    def _append(self, row: dict[str, float]) -> None:
        with self._writable():
            if not self.path.exists():
                write_text(self.path, ",".join(self.COLUMNS) + "\n")
            with open(self.path, "a", encoding="utf-8", newline="\n") as file:
                file.write(_line(row))

    def _rewrite(self) -> None:
        with self._writable():
            write_text(self.path, ",".join(self.COLUMNS) + "\n" + "".join(map(_line, self.rows)))

    @contextmanager
    def _writable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise TinyGPTError(
                f"could not write {self.path}: {error}; make room or choose another folder"
            ) from error


def _line(row: dict[str, float]) -> str:
    return ",".join(repr(value) for value in row.values()) + "\n"


def _tensorboard(path: Path | None):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            "TensorBoard was asked for but is not installed: pip install tensorboard"
        ) from error
    writer = SummaryWriter(str(path.parent) if path else None)

    def write(row: dict[str, float]) -> None:
        for name, value in row.items():
            if name != "step":
                writer.add_scalar(name, value, row["step"])
        writer.flush()

    return write


def _wandb(project: str):
    try:
        import wandb
    except ImportError as error:
        raise ConfigError(
            "Weights & Biases was asked for but is not installed: pip install wandb"
        ) from error
    run = wandb.init(project=project)
    return lambda row: run.log(row, step=row["step"])
