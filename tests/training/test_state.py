from dataclasses import replace

import pytest
import torch

from tinygpt import TinyGPT
from tinygpt.corpora import Batches
from tinygpt.errors import CheckpointError
from tinygpt.training import make_optimizers
from tinygpt.training.state import (
    optimizer_tensors,
    random_states,
    restore_optimizers,
    restore_random_states,
)

from ..tools import QUICK


def optimizers(small, name):
    """Those of a small model, after an update."""
    model = TinyGPT(small)
    made = make_optimizers(model, replace(QUICK, optimizer=name))
    idx = torch.arange(8)[None]
    model(idx, idx).loss.backward()
    for optimizer in made:
        optimizer.step()
    return made


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_optimizers_get_back_what_they_had(small, name):
    tensors = optimizer_tensors(optimizers(small, name))
    others = make_optimizers(TinyGPT(small), replace(QUICK, optimizer=name))
    assert optimizer_tensors(others) == {}
    restore_optimizers(others, tensors)
    restored = optimizer_tensors(others)
    assert restored.keys() == tensors.keys()
    assert all(torch.equal(restored[k], tensors[k]) for k in tensors)


def test_state_of_another_optimizer_is_refused(small):
    muon, adamw = (optimizers(small, name) for name in ("muon", "adamw"))
    with pytest.raises(CheckpointError, match="does not fit"):
        restore_optimizers(adamw, optimizer_tensors(muon))


def test_random_numbers_go_on_where_they_were():
    batches, cpu = Batches(torch.arange(99), 4, 8, seed=0), torch.device("cpu")
    torch.manual_seed(5)
    states = random_states(batches, cpu)
    first = batches.draw()[0], torch.rand(3)
    torch.manual_seed(6)
    restore_random_states(states, batches, cpu)
    again = batches.draw()[0], torch.rand(3)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
