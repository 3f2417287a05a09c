"""TinyGPT: a small package for learning how language models work, from characters upward."""

from . import console  # noqa: F401  first: Ctrl-C may come while the others are imported
from .config import DecodingConfig, ModelConfig, MoEConfig, TrainConfig
from .corpora import load_corpus
from .decoding import (
    generate,
    generate_batch,
    generate_beam,
    generate_combined,
    generate_greedy,
    generate_nucleus,
    generate_temperature,
    generate_top_k,
    generateV2,
    stream,
)
from .errors import TinyGPTError, UnknownCharacterError
from .model import TinyGPT, upcycle
from .presets import PRESETS
from .runtime import seed_all
from .text import BPETokenizer, CharTokenizer, WordPieceTokenizer
from .training import MetricsLogger, Trainer, load_pretrained, load_run, save_pretrained

__version__ = "0.1.0"

__all__ = [
    "PRESETS",
    "BPETokenizer",
    "CharTokenizer",
    "DecodingConfig",
    "MetricsLogger",
    "MoEConfig",
    "ModelConfig",
    "TinyGPT",
    "TinyGPTError",
    "TrainConfig",
    "Trainer",
    "UnknownCharacterError",
    "WordPieceTokenizer",
    "generate",
    "generateV2",
    "generate_batch",
    "generate_beam",
    "generate_combined",
    "generate_greedy",
    "generate_nucleus",
    "generate_temperature",
    "generate_top_k",
    "load_corpus",
    "load_pretrained",
    "load_run",
    "save_pretrained",
    "seed_all",
    "stream",
    "upcycle",
]
