import pytest

from tinygpt.errors import ConfigError
from tinygpt.presets import PRESETS, find_preset


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_found_and_says_what_it_is(name):
    preset = find_preset(name)
    assert preset is PRESETS[name]
    assert 10 < len(preset.description) < 90
    assert preset.model.vocab_size == {"char": 65, "gpt2": 50_257}[preset.tokenizer]
    assert preset.train.eval_interval <= 500  # a checkpoint at least so often


def test_an_unknown_preset_is_an_error_that_lists_the_others():
    with pytest.raises(ConfigError, match="no preset 'huge'; there are tiny, tiny-moe, nanogpt"):
        find_preset("huge")
