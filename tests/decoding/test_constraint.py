from functools import cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PrefixConstrainedLogitsProcessor

from tinygpt import UnknownCharacterError, generate, generate_batch
from tinygpt.config import DecodingConfig
from tinygpt.decoding import process, processors
from tinygpt.errors import ConfigError
from tinygpt.text import CharTokenizer

from ..tools import (
    ByteTokenizer,
    byte_model,
    byte_tokenizer,
    gpt2,
    histories,
    random_logits,
    subword_model,
    subword_tokenizer,
)

BYTES = byte_tokenizer()
ANSWER = st.sets(st.sampled_from("the cas.\né😀"))


def test_constraint_equals_transformers():
    tokenizer = CharTokenizer("abcdefgh")
    logits, tokens = random_logits(8, 0, rows=50), histories(8, 6, 1, rows=50)

    def next_ids(batch_id, ids):
        return [int(ids[-1]), (int(ids[-1]) + 1) % 8]

    def next_symbols(text):
        return [text[-1], "abcdefgh"[("abcdefgh".index(text[-1]) + 1) % 8]]

    expected = PrefixConstrainedLogitsProcessor(next_ids, 1)(tokens, logits.clone())
    chain = processors(DecodingConfig(), tokenizer, next_symbols)
    torch.testing.assert_close(process(logits, tokens, 0, chain), expected)


@pytest.mark.parametrize("tok", [BYTES, subword_tokenizer()], ids=["bytes", "bpe"])
@given(
    answers=st.lists(st.sets(st.sampled_from("the cas.\né😀")), min_size=1, max_size=5),
    start=st.integers(0, 9),
)
def test_each_character_of_a_token_must_be_allowed_in_its_place(tok, answers, start):
    """By the definition, over all tokens; the answers follow each other with the text's length."""
    text, asked = "the cat sat."[: start + 1], []

    def constraint(text: str) -> set[str]:
        asked.append(text)
        return answers[len(text) % len(answers)]

    def may_follow(piece: str | None) -> bool:
        return bool(piece) and all(
            c in answers[(len(text) + i) % len(answers)] for i, c in enumerate(piece)
        )

    (step,) = processors(DecodingConfig(), tok, constraint)
    kept = step(torch.zeros(1, tok.vocab_size), torch.tensor([tok.encode(text)]), 0)[0] == 0
    assert kept.tolist() == [may_follow(piece) for piece in tok.texts]
    assert len(asked) == len(set(asked))  # each text is asked about once


def test_characters_are_asked_about_once_per_row_and_step():
    asked = []
    model = gpt2()
    generate_batch(model, ["AB", "C"], 5, seed=0, constraint=lambda t: asked.append(t) or "AB")
    assert [len(text) for text in asked] == [2, 1, 3, 2, 4, 3, 5, 4, 6, 5]


@pytest.mark.parametrize("model", [byte_model, subword_model])
def test_a_text_of_long_tokens_obeys_its_constraint(model):
    model, follows = model(), {"t": "h ", "h": "e", "e": " ", " ": "tcs", "c": "a", "s": "a"}

    @cache
    def constraint(text: str) -> str:
        return follows.get(text[-1], "t.")  # after an a, mostly: t or a full stop

    text = generate(model, "the", 500, seed=1, constraint=constraint)
    assert len(text) > 503  # tokens of several characters, too
    assert all(text[i] in constraint(text[:i]) for i in range(3, len(text)))


def test_a_token_may_be_longer_than_calls_can_be_deep():
    tokenizer = ByteTokenizer([b"a", b"b", b"a" * 5000])
    (step,) = processors(DecodingConfig(), tokenizer, lambda text: "a")
    kept = step(torch.zeros(1, 3), torch.tensor([[1]]), 0)[0] == 0
    assert kept.tolist() == [True, False, True]


def test_what_a_constraint_may_not_say():
    with pytest.raises(UnknownCharacterError, match="'é'"):
        generate(gpt2(), "A", constraint=lambda text: "Aé")
    with pytest.raises(ConfigError, match="no symbol is left for row 0 after constraint"):
        generate(byte_model(), "the", constraint=lambda text: "")  # nor the mark without a text
