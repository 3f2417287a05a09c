import pytest
import torch

from tinygpt import PRESETS, TinyGPT
from tinygpt.errors import ConfigError
from tinygpt.presets import find_preset


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_found_and_can_be_built(name):
    preset = find_preset(name)
    assert preset is PRESETS[name]
    assert preset.description
    with torch.device("meta"):
        TinyGPT(preset.model)


def test_an_unknown_preset_is_an_error_that_lists_the_others():
    with pytest.raises(ConfigError, match="no preset 'huge'; there are tiny, tiny-moe, nanogpt"):
        find_preset("huge")
