"""The notebooks' interactive parts. All results are drawn into the `value` of `HTML` widgets, so a
plain test can move a control and read what changed, and no picture flickers."""

from .attention import AttentionExplorer, attention_explorer
from .playground import SamplingPlayground, sampling_playground
from .router_live import RouterLab, router_lab
from .routing import RoutingExplorer, routing_explorer
from .windows import WindowExplorer, window_explorer

__all__ = [
    "AttentionExplorer",
    "RouterLab",
    "RoutingExplorer",
    "SamplingPlayground",
    "WindowExplorer",
    "attention_explorer",
    "router_lab",
    "routing_explorer",
    "sampling_playground",
    "window_explorer",
]
