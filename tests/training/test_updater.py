import math

import pytest
import torch

from tinygpt import TinyGPT, Trainer
from tinygpt.errors import NonFiniteError
from tinygpt.training.updater import Updater

from ..tools import QUICK, same_state


def model_for(small):
    torch.manual_seed(0)
    return TinyGPT(small)


def test_updates_alone_are_those_of_a_whole_training(corpus, small, tmp_path):
    """Evaluating, saving and logging change nothing of them."""
    trainer = Trainer(model_for(small), corpus, QUICK, tmp_path / "run")
    trainer.fit(progress=False)
    updater = Updater(model_for(small), corpus, QUICK)
    losses = [updater.train_step() for _ in range(updater.max_steps)]
    assert updater.step == trainer.step == 40
    assert (losses[-1], updater.grad_norm) == (trainer.loss, trainer.grad_norm)
    assert same_state(updater.model, trainer.model)


def test_an_update_that_would_ruin_the_weights_is_not_made(corpus, small):
    updater = Updater(model_for(small), corpus, QUICK)
    updater.train_step()
    updater.model.ln_f.bias.data[0] = math.nan
    before = [p.detach().clone() for p in updater.model.parameters()]
    with pytest.raises(NonFiniteError, match=r"at step 1; the update was not made\. Lower the"):
        updater.train_step()
    for p, q in zip(updater.model.parameters(), before, strict=True):
        assert torch.equal(p.nan_to_num(), q.nan_to_num())
    assert updater.step == 1
