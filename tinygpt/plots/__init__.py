"""Every figure, as a function of arrays and tables that returns a matplotlib `Figure`."""

from .attention import (
    GUTTER,
    HEAD_FIGURES,
    THUMBNAIL,
    plot_all_heads,
    plot_attention,
    plot_heads,
    thumbnail,
)
from .base import BLUE, GREEN, GREY, HEAT, ORANGE, PINK, SKY, VERMILION, Picture, visible
from .benchmarks import plot_scaling, plot_tricks
from .characters import INPUT, TARGET, plot_bars, plot_filters, plot_page, plot_table, plot_window
from .curves import plot_convergence, plot_intervals, plot_lines, plot_training
from .learning import plot_descent
from .routing import (
    EXPERT_COLOURS,
    ends_line,
    expert_colour,
    plot_expert_distribution,
    plot_loads,
    plot_routing,
    tint,
)
from .settling import plot_co_activation, plot_routing_over_training, plot_specialisation
from .study import plot_differences, plot_seeds, plot_study_curves
from .way import plot_way

__all__ = [
    "BLUE",
    "EXPERT_COLOURS",
    "GREEN",
    "GREY",
    "GUTTER",
    "HEAD_FIGURES",
    "HEAT",
    "INPUT",
    "ORANGE",
    "PINK",
    "SKY",
    "TARGET",
    "THUMBNAIL",
    "VERMILION",
    "Picture",
    "ends_line",
    "expert_colour",
    "plot_all_heads",
    "plot_attention",
    "plot_bars",
    "plot_co_activation",
    "plot_convergence",
    "plot_descent",
    "plot_differences",
    "plot_expert_distribution",
    "plot_filters",
    "plot_heads",
    "plot_intervals",
    "plot_lines",
    "plot_loads",
    "plot_page",
    "plot_routing",
    "plot_routing_over_training",
    "plot_scaling",
    "plot_seeds",
    "plot_specialisation",
    "plot_study_curves",
    "plot_table",
    "plot_training",
    "plot_tricks",
    "plot_way",
    "plot_window",
    "thumbnail",
    "tint",
    "visible",
]
