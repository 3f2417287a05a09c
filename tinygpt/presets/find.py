"""All presets by their names."""

from ..errors import ConfigError
from .characters import CHARACTERS
from .preset import Preset
from .subwords import SUBWORDS

PRESETS: dict[str, Preset] = CHARACTERS | SUBWORDS


def find_preset(name: str) -> Preset:
    """The preset of this name; `ConfigError` lists those that there are."""
    if name not in PRESETS:
        raise ConfigError(f"there is no preset {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]
