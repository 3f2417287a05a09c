"""What is measured: losses, routing, the variety of texts, costs, and how sure a mean is."""

from .attention import (
    FIGURES,
    compare_spread,
    head_figures,
    map_figures,
    measure_even,
    measure_heads,
    speaker_lines,
    without_heads,
)
from .cost import ParameterCount, count_parameters, flops_per_token
from .intervals import (
    SURE,
    Difference,
    bootstrap_interval,
    holm,
    paired_difference,
    unpaired_difference,
)
from .loss import count_predictions, evaluate, positions_read
from .memory import Memory, inference_memory, training_memory
from .peak import peak_bytes
from .reading import Reading, expert_layers, read, surprisal, without_expert
from .routing import (
    RoutingReport,
    agreement,
    co_activation,
    dead_experts,
    max_violation,
    measure_routing,
    mutual_information,
    saturation,
    variation,
)
from .sparsity import GradientFlow, experts_computed, gradient_flow, layer_figures, memory_per_batch
from .specialisation import (
    CLASSES,
    Specialisation,
    classes,
    routing_over_training,
    specialisation,
    token_labels,
)
from .units import count_words, in_units, perplexity
from .variety import distinct_n, repetition_rate, valid_word_share, words
from .way import Way, token_way

__all__ = [
    "CLASSES",
    "FIGURES",
    "SURE",
    "Difference",
    "GradientFlow",
    "Memory",
    "ParameterCount",
    "Reading",
    "RoutingReport",
    "Specialisation",
    "Way",
    "agreement",
    "bootstrap_interval",
    "classes",
    "co_activation",
    "compare_spread",
    "count_parameters",
    "count_predictions",
    "count_words",
    "dead_experts",
    "distinct_n",
    "evaluate",
    "expert_layers",
    "experts_computed",
    "flops_per_token",
    "gradient_flow",
    "head_figures",
    "holm",
    "in_units",
    "inference_memory",
    "layer_figures",
    "map_figures",
    "max_violation",
    "measure_even",
    "measure_heads",
    "measure_routing",
    "memory_per_batch",
    "mutual_information",
    "paired_difference",
    "peak_bytes",
    "perplexity",
    "positions_read",
    "read",
    "repetition_rate",
    "routing_over_training",
    "saturation",
    "speaker_lines",
    "specialisation",
    "surprisal",
    "token_labels",
    "token_way",
    "training_memory",
    "unpaired_difference",
    "valid_word_share",
    "variation",
    "without_expert",
    "without_heads",
    "words",
]
