"""TinyGPT: a small package for learning how language models work, from characters upward."""

from .checkpoint import load_run
from .config import PRESETS, DecodingConfig, ModelConfig, MoEConfig, TrainConfig
from .data import load_corpus
from .decoding import (
    generate,
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
from .metrics import MetricsLogger
from .model import TinyGPT
from .runtime import seed_all
from .tokenizer import CharTokenizer
from .trainer import Trainer

__version__ = "0.1.0"

__all__ = [
    "PRESETS",
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
    "generate",
    "generateV2",
    "generate_beam",
    "generate_combined",
    "generate_greedy",
    "generate_nucleus",
    "generate_temperature",
    "generate_top_k",
    "load_corpus",
    "load_run",
    "seed_all",
    "stream",
]
