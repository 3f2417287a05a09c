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
from .cost import ParameterCount, count_parameters, flops_per_token, model_flop_utilisation
from .intervals import (
    Difference,
    bootstrap_interval,
    holm,
    paired_difference,
    unpaired_difference,
)
from .loss import count_predictions, evaluate
from .reading import Reading, expert_layers, read, surprisal, without_expert
from .routing import (
    RoutingReport,
    agreement,
    dead_experts,
    max_violation,
    measure_routing,
    mutual_information,
    variation,
)
from .variety import distinct_n, repetition_rate, valid_word_share, words

__all__ = [
    "FIGURES",
    "Difference",
    "ParameterCount",
    "Reading",
    "RoutingReport",
    "agreement",
    "bootstrap_interval",
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
    "map_figures",
    "max_violation",
    "measure_even",
    "measure_heads",
    "measure_routing",
    "model_flop_utilisation",
    "mutual_information",
    "paired_difference",
    "read",
    "repetition_rate",
    "speaker_lines",
    "surprisal",
    "unpaired_difference",
    "valid_word_share",
    "variation",
    "without_expert",
    "without_heads",
    "words",
]
