"""Dense models to compare a mixture with: equal but for their feed-forward layers."""

from dataclasses import replace

from ..config import ModelConfig
from ..measure import count_parameters
from ..model import TinyGPT
from ..runtime import shapes_only


def dense_twin(config: ModelConfig, parameters: int) -> ModelConfig:
    """The dense model of the same shape whose feed-forward width makes it nearest to so many
    parameters."""

    def count(width: int) -> int:
        with shapes_only():
            return count_parameters(TinyGPT(replace(config, moe=None, n_inner=width))).total

    least = count(1)  # and each further unit of width adds as much
    width = 1 + round((parameters - least) / (count(2) - least))
    return replace(config, moe=None, n_inner=max(1, width))


def dense_twins(config: ModelConfig) -> dict[str, ModelConfig]:
    """Of a mixture: the dense models of as many active, and of as many total, parameters; of a
    dense model none."""
    if config.moe is None:
        return {}
    with shapes_only():
        counts = count_parameters(TinyGPT(config))
    sizes = {"dense, equal active": counts.active, "dense, equal total": counts.total}
    return {name: dense_twin(config, size) for name, size in sizes.items()}
