"""A text ends where the model writes the end of it: against transformers, and in every way out."""

from dataclasses import replace

import pytest
import torch

from tinygpt import CharTokenizer, generate, generate_batch, generate_greedy, stream
from tinygpt.decoding import beam_search, generate_details, generate_lookup, stream_tokens

from ..parity import as_theirs
from ..tools import ALPHABET, VARIANTS, ready, scripted, subword_model


class Ending(CharTokenizer):
    """Characters, one of which is taken for the end of a text."""

    @property
    def end_of_text(self) -> int:
        return 40


@pytest.fixture
def pair():
    """A model that ends its texts, and transformers' with the same weights."""
    model = ready(replace(VARIANTS["gpt2"], block_size=64))
    model.tokenizer = Ending(ALPHABET)
    return model, as_theirs(model)


def theirs(model, prompt, new, seed, **options):
    idx, end = torch.tensor([model[0].tokenizer.encode(prompt)]), 40
    torch.manual_seed(seed)
    options = {"top_k": 0, "pad_token_id": 0, "eos_token_id": end, "max_new_tokens": new} | options
    (row,) = model[1].generate(idx, **options).tolist()
    row = row[: row.index(end)] if end in row else row
    return model[0].tokenizer.decode(row)


def test_texts_end_where_transformers_texts_end(pair):
    model, ended = pair[0], 0
    for seed in range(30):
        text = theirs(pair, "ABC", 60, seed, do_sample=True)
        assert generate(model, "ABC", 60, seed=seed) == text
        assert "ABC" + "".join(stream(model, "ABC", 60, seed=seed)) == text
        (row,) = generate_details(model, ["ABC"], 60, seed=seed)
        assert (row.text, len(row.tokens)) == (text, len(text) - 3)
        assert row.stopped == (len(text) < 63)
        assert list(stream_tokens(model, "ABC", 60, seed=seed)) == row.tokens
        ended += row.stopped
    assert 5 < ended < 30
    alone = [generate(model, "ABC", 60, seed=seed) for seed in range(8)]
    assert generate_batch(model, ["ABC"] * 8, 60, seed=0) == alone


def ends_itself(model):
    """The same with an end that greedy decoding soon comes to."""
    text = generate_greedy(model, "ABC", 20)
    token = model.tokenizer.encode(text)[10]

    class Early(Ending):
        end_of_text = token

    model.tokenizer = Early(ALPHABET)
    return text[: 3 + text[3:].index(ALPHABET[token])]


def test_greedy_lookup_and_beams_end(pair):
    model = pair[0]
    text = ends_itself(model)
    assert len(text) <= 10
    assert generate_greedy(model, "ABC", 20) == text
    assert generate_lookup(model, "ABC", 20) == text
    assert beam_search(model, "ABC", 20, n_beams=1)[0][0] == text
    end = ALPHABET[model.tokenizer.end_of_text]
    found = beam_search(model, "ABC", 20, n_beams=6)
    assert all(end not in text[3:] for text, _ in found)
    assert min(len(text) for text, _ in found) < 23


def test_a_score_counts_the_end(pair):
    model = pair[0]
    text = ends_itself(model)
    ids = [*model.tokenizer.encode(text), model.tokenizer.end_of_text]
    logits = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    nats = [logits[i - 1, ids[i]].item() for i in range(3, len(ids))]
    ((_, score),) = beam_search(model, "ABC", 20, n_beams=1)
    assert score == pytest.approx(sum(nats) / len(nats), abs=1e-4)


def test_an_unfinished_character_before_the_end(monkeypatch):
    model = subword_model()
    half = model.tokenizer.encode("😀")[:1]
    tokens = [*model.tokenizer.encode(" the word"), *half, model.tokenizer.end_of_text, 5]
    for stop, text in (((), " the word\ufffd"), (("rd\ufffd",), " the wo"), (("x",), None)):
        text = " the word\ufffd" if text is None else text
        scripted(monkeypatch, tokens)
        (row,) = generate_details(model, ["cat"], 9, stop=stop)
        assert (row.text, row.stopped) == ("cat" + text, True)
        assert model.tokenizer.end_of_text not in row.tokens
        scripted(monkeypatch, tokens)
        assert "".join(stream(model, "cat", 9, stop=stop)) == text
        scripted(monkeypatch, tokens)
        assert list(stream_tokens(model, "cat", 9, stop=stop)) == row.tokens


def test_an_empty_prompt_begins_a_text():
    model = subword_model()
    (row,) = generate_details(model, [""], 8, seed=0)
    ids = torch.tensor([[model.tokenizer.end_of_text]])
    first = model(ids).logits[0, -1].log_softmax(-1)[row.tokens[0]].item()
    assert row.raw_logprobs[0] == pytest.approx(first, abs=1e-4)
    assert row.text == model.tokenizer.decode(row.tokens)
    assert generate_batch(model, ["the", ""], 8, seed=0)[0] == generate(model, "the", 8, seed=0)
    with pytest.raises(ValueError, match="prompt is empty"):
        generate(ready(VARIANTS["gpt2"]), "", 8)
