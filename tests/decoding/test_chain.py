from dataclasses import FrozenInstanceError

import pytest
import torch

from tinygpt import UnknownCharacterError, generate
from tinygpt.config import DecodingConfig
from tinygpt.decoding import process, processors
from tinygpt.errors import ConfigError
from tinygpt.text import CharTokenizer

from ..tools import ByteTokenizer, byte_model


def test_the_chain_has_the_documented_order_and_nothing_that_is_off():
    tokenizer = CharTokenizer("abcdefgh")
    everything = DecodingConfig(
        eta=0.1, epsilon=0.1, typical=0.9, min_p=0.1, top_p=0.9, top_k=5, temperature=0.5,
        banned="a", no_repeat_ngram=3, presence=0.1, repetition_penalty=1.2,
    )  # fmt: skip
    chain = processors(everything, tokenizer, constraint=lambda text: "b")
    assert [(step.name, step.value) for step in chain] == [
        ("repetition", 1.2), ("frequency", 0.0), ("no repeated n-gram", 3), ("bans", None),
        ("constraint", None), ("temperature", 0.5), ("top-k", 5), ("top-p", 0.9), ("min-p", 0.1),
        ("typical", 0.9), ("epsilon", 0.1), ("eta", 0.1),
    ]  # fmt: skip
    assert [step.label for step in chain] == [
        "repetition 1.2", "frequency 0, presence 0.1", "no repeated 3-gram", "bans", "constraint",
        "temperature 0.5", "top-k 5", "top-p 0.9", "min-p 0.1", "typical 0.9", "epsilon 0.1",
        "eta 0.1",
    ]  # fmt: skip
    assert processors(DecodingConfig(), tokenizer) == []
    assert processors(DecodingConfig(top_k=0), tokenizer) == []


def test_a_row_with_nothing_left_names_the_filters():
    tokenizer = CharTokenizer("ab")
    chain = processors(DecodingConfig(no_repeat_ngram=1, temperature=0.5), tokenizer)
    with pytest.raises(ConfigError, match="no symbol is left for row 1 after no repeated 1-gram"):
        process(torch.zeros(2, 2), torch.tensor([[0, 0], [0, 1]]), 0, chain)


def test_a_step_knows_its_function_and_is_frozen():
    (step,) = processors(DecodingConfig(top_k=1), CharTokenizer("ab"))
    logits = step(torch.tensor([[1.0, 2.0]]), torch.tensor([[0]]), 1)
    assert logits.tolist() == [[-torch.inf, 2.0]]
    with pytest.raises(FrozenInstanceError):
        step.value = 2


@pytest.mark.parametrize("character", "t é.")
def test_a_banned_character_is_never_written_whatever_the_tokens(character):
    model = byte_model()
    assert character in generate(model, "the cat", 2000, seed=0)[7:]
    assert character not in generate(model, "the cat", 2000, seed=0, banned=character)[7:]


def test_a_banned_character_of_four_tokens_is_never_written():
    tokenizer = ByteTokenizer([b"t", *(bytes([byte]) for byte in "😀".encode())])
    model = byte_model(tokenizer)
    assert "😀" in generate(model, "t", 2000, seed=0)
    assert "😀" not in generate(model, "t", 2000, seed=0, banned="😀")


def test_allowed_characters_are_the_only_ones_whatever_the_tokens():
    model = byte_model()
    text = generate(model, "sat", 2000, seed=0, allowed="the cat")[3:]
    assert set(text) == set("the cat")
    text = generate(model, "sat", 2000, seed=0, allowed="é\n", banned="\n")[3:]
    assert set(text) == {"é"}
    tokenizer = CharTokenizer("ab")
    for options in ({"banned": "aé"}, {"allowed": "aé"}):
        with pytest.raises(UnknownCharacterError, match="'é'"):
            processors(DecodingConfig(**options), tokenizer)
    with pytest.raises(ConfigError, match="leave no symbol"):
        processors(DecodingConfig(allowed="a", banned="a"), tokenizer)
