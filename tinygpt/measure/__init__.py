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
    Difference,
    bootstrap_interval,
    holm,
    paired_difference,
    unpaired_difference,
)
from .loss import count_predictions, evaluate, positions_read
from .memory import Memory, inference_memory, training_memory
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
from .specialisation import (
    CLASSES,
    Specialisation,
    classes,
    routing_over_training,
    specialisation,
    token_labels,
)
from .variety import distinct_n, repetition_rate, valid_word_share, words

__all__ = [
    "CLASSES",
    "FIGURES",
    "Difference",
    "Memory",
    "ParameterCount",
    "Reading",
    "RoutingReport",
    "Specialisation",
    "agreement",
    "bootstrap_interval",
    "classes",
    "co_activation",
    "compare_spread",
    "count_parameters",
    "count_predictions",
    "dead_experts",
    "distinct_n",
    "evaluate",
    "expert_layers",
    "flops_per_token",
    "head_figures",
    "holm",
    "inference_memory",
    "map_figures",
    "max_violation",
    "measure_even",
    "measure_heads",
    "measure_routing",
    "mutual_information",
    "paired_difference",
    "positions_read",
    "read",
    "repetition_rate",
    "routing_over_training",
    "saturation",
    "speaker_lines",
    "specialisation",
    "surprisal",
    "token_labels",
    "training_memory",
    "unpaired_difference",
    "valid_word_share",
    "variation",
    "without_expert",
    "without_heads",
    "words",
]
