"""Settings as frozen dataclasses that refuse what cannot work.

The type hints say what each value must be, and are checked; what ties several settings together
stands in `__post_init__`.
"""

from ..checks import check_value
from .decoding import DecodingConfig
from .model import ModelConfig, MoEConfig
from .stored import from_dict, to_dict, unusual
from .train import TrainConfig

__all__ = [
    "DecodingConfig",
    "MoEConfig",
    "ModelConfig",
    "TrainConfig",
    "check_value",
    "from_dict",
    "to_dict",
    "unusual",
]
