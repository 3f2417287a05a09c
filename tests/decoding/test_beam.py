import pytest
import torch

from tinygpt import generate_beam, generate_greedy
from tinygpt.decoding import beam_search

from ..tools import gpt2


def test_beam_search_finds_what_greedy_misses():
    model = gpt2()

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
