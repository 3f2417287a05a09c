"""The corpora by name."""

from collections.abc import Callable
from functools import lru_cache

import torch

from ..errors import CorpusError
from . import tinyplays
from .characters import CharTokenizer
from .corpus import TRAIN_SHARE, Corpus, encoded
from .documents import Texts
from .folder import own_folder
from .gutenberg import gutenberg
from .machado import machado
from .plain import FILES, own_file, registered_file
from .tinystories import tinystories, tinystories_sample
from .tokenizer import Tokenizer
from .wikitext import wikitext, wikitext_valid
