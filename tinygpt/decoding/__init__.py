"""From a prompt to a text: filters, the draw, sampling, beams, streams."""

from .beam import beam_search, generate_beam
from .chain import Processor, process, processors
from .constraint import Constraint
from .filters import (
    NONE,
    allow_only,
    apply_frequency_penalty,
    apply_repetition_penalty,
    apply_temperature,
    ban_repeated_ngrams,
    filter_epsilon,
    filter_eta,
    filter_min_p,
    filter_top_k,
    filter_top_p,
    filter_typical,
)
from .generate import (
    clean_text,
    generate,
    generate_batch,
    generate_combined,
    generate_details,
    generate_greedy,
    generate_nucleus,
    generate_temperature,
    generate_top_k,
    generateV2,
)
from .lookup import generate_lookup
from .reader import Reader
from .sampling import draw, noise, pick
from .step import CompiledStep, Step
from .stream import stream, stream_tokens
from .writer import Generated, Writer

__all__ = [
    "NONE",
    "CompiledStep",
    "Constraint",
    "Generated",
    "Processor",
    "Reader",
    "Step",
    "Writer",
    "allow_only",
    "apply_frequency_penalty",
    "apply_repetition_penalty",
    "apply_temperature",
    "ban_repeated_ngrams",
    "beam_search",
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
    "generate_batch",
    "generate_beam",
    "generate_combined",
    "generate_details",
    "generate_greedy",
    "generate_lookup",
    "generate_nucleus",
    "generate_temperature",
    "generate_top_k",
    "noise",
    "pick",
    "process",
    "processors",
    "stream",
    "stream_tokens",
]
