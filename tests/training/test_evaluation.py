import math

import pytest
import torch

from tinygpt import TinyGPT
from tinygpt.measure import count_predictions, evaluate
from tinygpt.training import Run
from tinygpt.training.evaluation import Losses, best_model, measure_both

CPU = torch.device("cpu")


@pytest.mark.parametrize("limit", [None, 100])
def test_the_train_split_is_measured_on_as_many_tokens_as_the_other(corpus, small, limit):
    model, asked = TinyGPT(small), []

    def loss(model, tokens, limit):
        asked.append(limit)
        return evaluate(model, tokens, limit)

    losses = measure_both(loss, model, corpus.train, corpus.val, limit)
    assert losses.tokens == count_predictions(model, corpus.val, limit)
    assert asked == [limit, losses.tokens]
    assert losses.val == evaluate(model, corpus.val, limit)
    assert losses.train == evaluate(model, corpus.train, losses.tokens)


def test_the_loss_of_a_character_is_in_bits(corpus):
    bits = Losses(1.0, math.log(2), 10).columns(corpus)["val_bits_per_char"]
    assert bits == pytest.approx(1, rel=0.01)  # the corpus is one of characters


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_one_loss_that_is_not_finite_is_enough(bad):
    assert Losses(1.0, 2.0, 10).finite
    assert not Losses(bad, 2.0, 10).finite
    assert not Losses(1.0, bad, 10).finite


def test_best_weights_that_are_lost_are_told_of(run):
    said = []
    assert best_model(Run(run), 20, CPU, said.append) is not None
    (run / "step_0000020" / "model.safetensors").write_bytes(b"")
    assert best_model(Run(run), 20, CPU, said.append) is None
    assert said[0].startswith("the best weights, of step 20, are lost: ")
    assert len(said) == 1
