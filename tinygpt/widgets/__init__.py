"""The notebooks' interactive parts. All results are drawn into the `value` of `HTML` widgets, so a
plain test can move a control and read what changed, and no picture flickers."""

from .explorers import AttentionExplorer, WindowExplorer, attention_explorer, window_explorer
from .playground import SamplingPlayground, sampling_playground

__all__ = [
    "AttentionExplorer",
    "SamplingPlayground",
    "WindowExplorer",
    "attention_explorer",
    "sampling_playground",
    "window_explorer",
]
