import math
from dataclasses import FrozenInstanceError
from fractions import Fraction
from itertools import product

import pytest
import torch

from tinygpt import UnknownCharacterError, generate
from tinygpt.config import DecodingConfig
from tinygpt.decoding import process, processors
from tinygpt.errors import ConfigError, NonFiniteError
from tinygpt.text import CharTokenizer

from ..tools import ByteTokenizer, byte_model, subword_model


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


ENDS = {
    "repetition_penalty": [1e-30, 1.0, 1e30],
    "frequency": [-100, 0.0, 100],
    "presence": [-100.0, 0, 100.0],
}


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_penalties_at_the_ends_of_their_ranges_by_exact_fractions(scale):
    """Each logit is right to the rounding of what it is made of; at no temperature is one NaN."""
    tokenizer, generator = CharTokenizer("abcdef"), torch.Generator().manual_seed(0)
    for values in product(*ENDS.values()):
        options = {"banned": "a"} | dict(zip(ENDS, values, strict=True))
        logits = torch.empty(6).uniform_(-scale, scale, generator=generator)
        logits[0] = 2 * scale  # the largest is banned
        tokens = torch.randint(6, (1, 5), generator=generator)
        used = torch.bincount(tokens[0], minlength=6).tolist()
        chain = processors(DecodingConfig(**options), tokenizer)
        left = process(logits[None], tokens, 0, chain)[0].tolist()
        penalty, frequency, presence = map(Fraction, values)
        for x, n, got in list(zip(map(Fraction, logits.tolist()), used, left, strict=True))[1:]:
            punished = (x / penalty if x > 0 else x * penalty) if n else x
            terms = punished, -n * frequency, -bool(n) * presence
            assert abs(Fraction(got) - sum(terms)) <= sum(map(abs, terms)) / 2**22, options
        for t in (0.0, 5e-324, 1e-46, 1e-38, 0.009, 0.01, 1.0, 1e30):
            chain = processors(DecodingConfig(temperature=t, **options), tokenizer)
            p = process(logits[None], tokens, 0, chain)[0].softmax(-1)
            assert p.isfinite().all(), (t, options)
            assert p[0] == 0
            assert p[max(range(6), key=left.__getitem__)] == p.max()


def test_ten_thousand_uses_of_a_token_leave_the_others_apart():
    tokens = torch.tensor([[0] * 10_000 + [1] * 10_000])
    chain = processors(DecodingConfig(frequency=100), CharTokenizer("ab"))
    left = process(torch.tensor([[2.0, 0.0]]), tokens, 0, chain)
    assert left[0, 0] - left[0, 1] == pytest.approx(2, abs=1 / 16)


def test_what_float32_cannot_hold_is_an_error_that_names_the_steps():
    chain = processors(DecodingConfig(repetition_penalty=1e-30), CharTokenizer("ab"))
    with pytest.raises(ConfigError, match="row 1 are NaN or infinite after repetition 1e-30; use"):
        process(torch.tensor([[0.0, 1.0], [1e9, 1.0]]), torch.tensor([[0], [0]]), 0, chain)


@pytest.mark.parametrize("options", [{}, {"top_k": 1}, {"temperature": 0}, {"allowed": "a"}])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_logits_that_are_no_numbers_are_an_error(options, bad):
    """One minus infinity is a symbol of probability 0; a row of them is none."""
    chain, tokens = processors(DecodingConfig(**options), CharTokenizer("abc")), torch.tensor([[0]])
    for logits in ([bad] * 3, [0.0, 0.0, bad]):
        if logits == [0.0, 0.0, -math.inf]:
            assert process(torch.tensor([logits]), tokens, 0, chain)[0, 2] == -math.inf
            continue
        with pytest.raises(NonFiniteError, match="the model's logits for row 0 are NaN or infin"):
            process(torch.tensor([logits]), tokens, 0, chain)
    if options == {"allowed": "a"}:
        with pytest.raises(ConfigError, match="no symbol is left for row 0 after bans"):
            process(torch.tensor([[-math.inf, 0.0, 0.0]]), tokens, 0, chain)


def test_a_step_knows_its_function_and_is_frozen():
    (step,) = processors(DecodingConfig(top_k=1), CharTokenizer("ab"))
    logits = step(torch.tensor([[1.0, 2.0]]), torch.tensor([[0]]), 1)
    assert logits.tolist() == [[-torch.inf, 2.0]]
    with pytest.raises(FrozenInstanceError):
        step.value = 2


@pytest.mark.parametrize(
    ("character", "model"), [*((c, byte_model) for c in "t é."), ("ã", subword_model)]
)
def test_a_banned_character_is_never_written_whatever_the_tokens(character, model):
    model = model()
    assert character in generate(model, "the cat", 2000, seed=0)[7:]
    assert character not in generate(model, "the cat", 2000, seed=0, banned=character)[7:]


def test_a_banned_character_of_four_tokens_is_never_written():
    tokenizer = ByteTokenizer([b"t", *(bytes([byte]) for byte in "😀".encode())])
    model = byte_model(tokenizer)
    assert "😀" in generate(model, "t", 2000, seed=0)
    assert "😀" not in generate(model, "t", 2000, seed=0, banned="😀")


@pytest.mark.parametrize("model", [byte_model, subword_model])
def test_allowed_characters_are_the_only_ones_whatever_the_tokens(model):
    model = model()
    text = generate(model, "sat", 2000, seed=0, allowed="the cat")[3:]
    assert set(text) == set("the cat")
    text = generate(model, "sat", 2000, seed=0, allowed="é\n", banned="\n")[3:]
    assert set(text) == {"é"}


def test_characters_that_the_tokenizer_lacks_cannot_be_banned_or_allowed():
    tokenizer = CharTokenizer("ab")
    for options in ({"banned": "aé"}, {"allowed": "aé"}):
        with pytest.raises(UnknownCharacterError, match="'é'"):
            processors(DecodingConfig(**options), tokenizer)
    with pytest.raises(ConfigError, match="leave no symbol"):
        processors(DecodingConfig(allowed="a", banned="a"), tokenizer)
