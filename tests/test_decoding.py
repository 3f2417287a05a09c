import pytest
import torch

from tinygpt import TinyGPT, UnknownCharacterError, generate, generate_greedy, generate_temperature
from tinygpt.decoding import apply_temperature
from tinygpt.errors import ConfigError


@pytest.fixture
def model(small, corpus):
    torch.manual_seed(0)
    model = TinyGPT(small)
    model.tokenizer = corpus.tokenizer
    with torch.no_grad():
        model.wte.weight.mul_(20)  # far from uniform
    return model


def test_temperature_divides_and_zero_is_the_first_maximum():
    logits = torch.tensor([[3.0, 1.0, 3.0], [0.0, 2.0, 1.0]])
    before = logits.clone()
    assert torch.equal(apply_temperature(logits, 2.0), logits / 2)
    inf = float("inf")
    expected = torch.tensor([[3.0, -inf, -inf], [-inf, 2.0, -inf]])
    assert torch.equal(apply_temperature(logits, 0), expected)
    assert torch.equal(logits, before)
    for bad in (-0.1, float("nan")):
        with pytest.raises(ConfigError, match=r"temperature=.* must be at least 0"):
            apply_temperature(logits, bad)


def test_greedy_is_the_argmax_of_each_window(model, corpus):
    ids = corpus.tokenizer.encode("the cat")
    model.eval()
    for _ in range(30):  # beyond block_size, too
        window = torch.tensor([ids[-model.config.block_size :]])
        ids.append(int(model(window).logits[0, -1].argmax()))
    assert generate_greedy(model, "the cat", 30) == corpus.tokenizer.decode(ids)


def test_a_seed_repeats_and_the_global_state_is_left_alone(model):
    state = torch.get_rng_state()
    first, second = (generate(model, "the", 40, seed=3) for _ in range(2))
    assert first == second
    assert generate(model, "the", 40, seed=4) != first
    assert generate(model, "the", 40) != generate(model, "the", 40)
    assert torch.equal(torch.get_rng_state(), state)


def test_samples_follow_the_distribution(model, corpus):
    model.eval()
    logits = model(torch.tensor([corpus.tokenizer.encode("the c")])).logits[0, -1]
    expected = (logits / 0.7).softmax(0)
    draws = [generate_temperature(model, "the c", 1, 0.7, seed=i)[-1] for i in range(2000)]
    counts = torch.bincount(torch.tensor(corpus.tokenizer.encode("".join(draws))), minlength=21)
    error = (counts / 2000 - expected).abs()
    assert (error < 4 * (expected * (1 - expected) / 2000).sqrt() + 1e-3).all()


def test_mode_and_length(model):
    model.train()
    assert generate(model, "a", 0) == "a"
    assert len(generate(model, "a" * 50, 5)) == 55  # a prompt longer than the block
    assert model.training


def test_bad_arguments(model):
    with pytest.raises(ConfigError, match="prompt is empty"):
        generate(model, "")
    with pytest.raises(UnknownCharacterError, match="'Z' at position 1"):
        generate(model, "aZ")
    with pytest.raises(ConfigError, match="max_new_tokens=-1"):
        generate(model, "a", -1)
    model.tokenizer = None
    with pytest.raises(ConfigError, match="has no tokenizer"):
        generate(model, "a")
