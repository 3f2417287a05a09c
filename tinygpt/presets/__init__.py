"""The named models: what each is made of, how it is trained, and on what."""

from .find import PRESETS, find_preset
from .preset import Preset

__all__ = ["PRESETS", "Preset", "find_preset"]
