import pytest

from tinygpt.corpora import corpus_names
from tinygpt.errors import ConfigError
from tinygpt.presets import PRESETS, find_preset
from tinygpt.text import tokenizer_maker


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_found_and_says_what_it_is(name):
    preset = find_preset(name)
    assert preset is PRESETS[name]
    assert 10 < len(preset.description) < 90
    assert preset.model.vocab_size == {"char": 65, "gpt2": 50_257}[preset.tokenizer]
    assert preset.train.eval_interval <= 500  # a checkpoint at least so often


@pytest.mark.parametrize("name", PRESETS)
def test_its_text_and_its_tokenizer_are_names_that_are_known(name):
    corpus, _, count = PRESETS[name].corpus.partition(":")
    assert corpus in corpus_names()
    assert not count or count.isdecimal()
    tokenizer_maker(PRESETS[name].tokenizer)  # as `load_corpus` does before it reads a text


def test_an_unknown_preset_is_an_error_that_lists_the_others():
    with pytest.raises(ConfigError, match="no preset 'huge'; there are tiny, tiny-moe, nanogpt"):
        find_preset("huge")
