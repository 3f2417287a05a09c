from dataclasses import replace

import pytest
import torch

from tinygpt import ModelConfig, TinyGPT, TrainConfig, Trainer
from tinygpt.errors import ConfigError
from tinygpt.measure import count_predictions, evaluate, read


@pytest.fixture(scope="module")
def trained(corpus):
    """A small model that has learned to use its context, and a text that it reads."""
    torch.manual_seed(0)
    size = corpus.tokenizer.vocab_size
    model = TinyGPT(ModelConfig(vocab_size=size, block_size=8, n_layer=2, n_head=2, n_embd=32))
    config = TrainConfig(max_steps=150, batch_size=16, lr=5e-3, warmup_steps=10, max_eval_tokens=64)
    Trainer(model, corpus, config).fit(progress=False)
    return model, corpus.val


@pytest.mark.parametrize("length", [2, 16, 17, 18, 100, 4097])
def test_every_token_but_the_first_is_predicted_once(small, length):
    torch.manual_seed(0)
    model = TinyGPT(small)
    tokens = torch.randint(small.vocab_size, (length,))
    losses = []
    for start in range(0, length - 1, small.block_size):
        window = tokens[start : start + small.block_size + 1][None]
        logits = model(window[:, :-1]).logits[0].double()
        losses += torch.nn.functional.cross_entropy(
            logits, window[0, 1:], reduction="none"
        ).tolist()
    assert len(losses) == length - 1
    assert evaluate(model, tokens) == pytest.approx(sum(losses) / len(losses), abs=1e-6)


def test_evaluation_leaves_the_mode_and_ignores_dropout(small):
    model = TinyGPT(replace(small, dropout=0.5)).train()
    tokens = torch.randint(small.vocab_size, (200,))
    assert evaluate(model, tokens) == evaluate(model, tokens)
    assert model.training


def test_a_limit_takes_windows_from_the_whole_split(small):
    model = TinyGPT(small)
    easy, hard = torch.zeros(1000, dtype=torch.long), torch.randint(small.vocab_size, (1000,))
    with torch.no_grad():
        model.lm_head.weight.mul_(20)
    tokens = torch.cat([easy, hard])
    whole, part = evaluate(model, tokens), evaluate(model, tokens, max_tokens=400)
    only_easy = evaluate(model, easy)
    assert abs(part - whole) < 0.5 * abs(only_easy - whole)
    assert evaluate(model, tokens, max_tokens=10_000) == whole
    assert evaluate(model, tokens[:10], max_tokens=5) == evaluate(model, tokens[:10])


@pytest.mark.parametrize("limit", [None, 1, 100, 499, 10_000])
def test_the_count_is_of_what_is_measured(small, monkeypatch, limit):
    model, seen = TinyGPT(small), []
    model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].numel()))
    tokens = torch.randint(small.vocab_size, (500,))
    loss = evaluate(model, tokens, limit)
    assert count_predictions(model, tokens, limit) == sum(seen)
    assert sum(seen) == {1: 16, 100: 96}.get(limit, 499)
    monkeypatch.setattr("tinygpt.measure.loss.CPU_PASS", 1)  # a window in each forward pass
    assert evaluate(model, tokens, limit) == pytest.approx(loss, abs=1e-6)
    assert len(seen) > 2 or limit == 1


def test_a_split_without_a_target_is_refused(small):
    with pytest.raises(ConfigError, match="at least 2 tokens, this split has 1"):
        evaluate(TinyGPT(small), torch.tensor([0]))


def test_more_context_gives_another_loss_of_the_same_model(trained):
    """So a figure says its window and stride, and is compared at the same ones only."""
    model, tokens = trained
    apart, overlapping = evaluate(model, tokens), read(model, tokens).loss
    assert overlapping < apart - 0.01
    T = model.config.block_size
    seen = [i % T + 1 for i in range((len(tokens) - 1) // T * T)]
    assert sum(seen) / len(seen) == (T + 1) / 2
