from dataclasses import replace

import pytest
import torch

from tinygpt import generate_beam, generate_greedy
from tinygpt.decoding import beam_search
from tinygpt.decoding.stops import find_stop

from ..tools import byte_model, gpt2, ready


@pytest.mark.parametrize("shape", [{}, {"bigrams": 9999}, {"token_shift": True}])
def test_beam_search_finds_what_greedy_misses(shape):
    model = ready(replace(gpt2().config, **shape))

    def logprob(text):
        ids = torch.tensor([model.tokenizer.encode(text)])
        log_p = model(ids).logits[0, :-1].log_softmax(-1)
        return log_p.gather(1, ids[0, 1:, None])[2:].sum().item()

    (best, score), *_ = beam_search(model, "ABC", 20, n_beams=8)
    assert score == pytest.approx(logprob(best) / 20, abs=1e-4)
    assert logprob(best) > logprob(generate_greedy(model, "ABC", 20))


def test_beam_search_with_stop_and_length_penalty():
    model = gpt2()
    plain = generate_beam(model, "ABC", 30, n_beams=4)
    stop = plain[3 + 5]
    texts = beam_search(model, "ABC", 30, n_beams=4, stop=(stop,))
    assert all(stop not in text[3:] for text, _ in texts)
    long = generate_beam(model, "ABC", 30, n_beams=4, stop=(stop,), length_penalty=3.0)
    short = generate_beam(model, "ABC", 30, n_beams=4, stop=(stop,), length_penalty=-3.0)
    assert len(long) >= len(short)


@pytest.mark.parametrize("stop", [(), ("he",), ("e c", "\n\n"), ("t", "at")])
@pytest.mark.parametrize("bigrams", [0, 400])
def test_a_beam_as_wide_as_all_texts_finds_each_of_them(stop, bigrams):
    """Every text of two tokens, cut before the first stop text, with its score."""
    model = byte_model(bigrams=bigrams)
    tokenizer, V = model.tokenizer, model.config.vocab_size

    def log_p(ids):
        return model(torch.tensor([ids])).logits[0, -1].log_softmax(-1).tolist()

    expected, prompt = [], tokenizer.encode("the")
    for a, first in enumerate(log_p(prompt)):
        decoder = tokenizer.decoder()
        text = decoder.add(a)  # a character may not be complete yet
        if any(s in text for s in stop):
            expected.append((text[: find_stop(text, stop)], first))
            continue
        for b, second in enumerate(log_p([*prompt, a])):
            text = tokenizer.decode([a, b])
            expected.append((text[: find_stop(text, stop)], (first + second) / 2))
    found = beam_search(model, "the", 2, n_beams=V * V, stop=stop)
    assert [score for _, score in found] == pytest.approx(
        sorted((score for _, score in expected), reverse=True), abs=1e-4
    )
    assert sorted(text for text, _ in found) == sorted("the" + text for text, _ in expected)
