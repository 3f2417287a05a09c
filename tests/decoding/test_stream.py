from dataclasses import replace

import pytest
import torch

from tinygpt import generate, stream
from tinygpt.decoding import generate_details, stream_tokens
from tinygpt.errors import ConfigError

from ..tools import (
    VARIANTS,
    ByteTokenizer,
    byte_model,
    byte_tokenizer,
    gpt2,
    ready,
    scripted,
    subword_tokenizer,
)


def test_streaming_gives_text_as_it_comes_and_holds_back_what_may_be_a_stop(monkeypatch):
    model = gpt2()
    scripted(monkeypatch, model.tokenizer.encode("nENDmENDE"))
    assert list(stream(model, "Z", 9, stop=("ENDE",))) == ["n", "ENDm"]
    scripted(monkeypatch, model.tokenizer.encode("nEN"))
    assert list(stream(model, "Z", 3, stop=("END",))) == ["n", "EN"]  # the end: nothing to wait for


def test_streams_equal_generate_with_the_same_seed():
    model = gpt2()
    whole = generate(model, "ABC", 80, seed=5, temperature=0.8, stop=("Z",))
    assert "ABC" + "".join(stream(model, "ABC", 80, seed=5, temperature=0.8, stop=("Z",))) == whole


def test_who_takes_a_stream_computes_as_they_please():
    model, threads = gpt2(), torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        for _ in stream(model, "ABC", 3, seed=0):
            assert torch.get_num_threads() == 3
            assert not torch.is_inference_mode_enabled()
    finally:
        torch.set_num_threads(threads)


MARKED = ByteTokenizer([*byte_tokenizer().tokens, "\ufffd".encode()])


@pytest.mark.parametrize("tokenizer", [MARKED, subword_tokenizer()], ids=["bytes", "bpe"])
@pytest.mark.parametrize("stop", [(), ("t",), ("at ", "t.\n", "s"), ("\ufffd", "h")])
def test_streams_of_any_tokens_joined_are_what_generate_adds(stop, tokenizer):
    model, texts = byte_model(tokenizer), []
    for seed in range(60):
        options = {"seed": seed, "stop": stop}
        (row,) = generate_details(model, ["the cat"], 12, **options)
        assert row.text == generate(model, "the cat", 12, **options)
        pieces = list(stream(model, "the cat", 12, **options))
        assert "the cat" + "".join(pieces) == row.text
        assert all(pieces)
        assert list(stream_tokens(model, "the cat", 12, **options)) == row.tokens
        texts.append(row.text[7:])
    if not stop:
        assert any("\ufffd" in text[:-1] for text in texts)
        assert any(text.endswith("\ufffd") for text in texts)  # half written at the end
    assert not any(s in text for s in stop for text in texts)


def test_a_character_comes_when_it_is_complete(monkeypatch):
    model = byte_model()
    tokens = [model.tokenizer.tokens.index(bytes([byte])) for byte in "t😀é".encode()]
    scripted(monkeypatch, tokens[:-1])
    assert list(stream(model, "the", 6)) == ["t", "😀", "\ufffd"]


def test_tokens_come_at_once_and_with_stop_texts_when_they_are_sure(monkeypatch):
    model = gpt2()
    tokens = model.tokenizer.encode("nENDmENDE")
    scripted(monkeypatch, tokens)
    assert list(stream_tokens(model, "Z", 9, stop=("ENDE",))) == tokens[:5]
    coming = stream_tokens(model, "Z", 2)
    for token in (7, 3):  # each comes before the next is written
        scripted(monkeypatch, [token])
        assert next(coming) == token


def test_a_forced_token_is_a_constraint_and_the_draws_go_on():
    model = gpt2()
    plain = generate(model, "ABC", 30, seed=4, top_k=20)
    symbol = "m" if plain[7] != "m" else "n"
    forced = {4: model.tokenizer.encode(symbol)[0]}
    ids = list(stream_tokens(model, "ABC", 30, seed=4, top_k=20, forced=forced))
    everything = model.tokenizer.characters
    expected = generate(
        model,
        "ABC",
        30,
        seed=4,
        top_k=20,
        constraint=lambda text: symbol if len(text) == 7 else everything,
    )
    assert model.tokenizer.decode(ids) == expected[3:]
    assert expected[:7] == plain[:7]
    assert expected[7] == symbol


def test_a_forced_token_keeps_the_draws_of_the_other_places():
    """In a model that has no memory, only the forced places differ."""
    model = gpt2()
    with torch.no_grad():
        model.wte.weight.zero_()
        model.wpe.weight.zero_()
        model.lm_head.weight = torch.nn.Parameter(torch.randn(65, 32) * 0.1)
    plain = list(stream_tokens(model, "ABC", 30, seed=4))
    forced = {0: 64 - plain[0], 9: 64 - plain[9], 40: 1}
    changed = list(stream_tokens(model, "ABC", 30, seed=4, forced=forced))
    assert [i for i in range(30) if changed[i] != plain[i]] == [0, 9]
    assert [changed[i] for i in (0, 9)] == [forced[0], forced[9]]
    greedy = stream_tokens(model, "ABC", 5, temperature=0.0, forced={1: 7})
    assert list(greedy)[1] == 7


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"forced": {2: 65}}, "token 65, forced at place 2, must be from 0 to 64"),
        ({"forced": {2: -1}}, "token -1, forced at place 2, must be"),
        ({"forced": {2: 5}, "banned": "5"}, "'5'. is forced at place 2, but `banned`"),
        ({"forced": {2: 5}, "allowed": "AB"}, "rules it out"),
        ({"past_block": "roll"}, "'roll' needs rotary positions"),
        ({"stop": "abc"}, "stop takes several texts"),
    ],
)
def test_bad_arguments_are_errors_before_anything_is_asked_for(options, words):
    with pytest.raises(ConfigError, match=words):
        stream_tokens(gpt2(), "A", 5, **options)


def test_a_training_in_between_neither_disturbs_the_text_nor_is_disturbed():
    """The mode belongs to whoever computes: eval mode while a token is written, and only then."""
    model = ready(replace(VARIANTS["gpt2"], dropout=0.5))
    expected = generate(model.eval(), "AB", 12, seed=0)
    pieces = []
    for piece in stream(model.train(), "AB", 12, seed=0):
        pieces.append(piece)
        assert model.training
        assert all(module.training for module in model.modules())
    assert "AB" + "".join(pieces) == expected
    model.train()
    for _ in stream(model, "AB", 3, seed=0):
        model.eval()
    assert not model.training
