"""What the tests share: a small text, a small corpus, small models."""

import os
import signal

import pytest
import torch
from hypothesis import settings

from tinygpt import ModelConfig, load_corpus

# the models here are too small for more threads, and another process tests beside this one
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # what tests start, kernels of notebooks too
settings.register_profile("busy machine", deadline=None)  # an example may be held up
settings.load_profile("busy machine")
# behind an & SIGINT is ignored, and a training leaves it so; the tests interrupt trainings
signal.signal(signal.SIGINT, signal.default_int_handler)

LINES = (
    "the cat sat on the mat and the dog sat on the log\n"
    "a frog in a bog had a clog for a dog\n"
    "who put the hat of the cat on the rat\n"
)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """A real Corpus, 5,000 characters, read from a file."""
    path = tmp_path_factory.mktemp("text") / "lines.txt"
    path.write_text((LINES * 60)[:5000], encoding="utf-8", newline="\n")
    return load_corpus(f"file:{path}")


@pytest.fixture(autouse=True)
def fewer_pictures(request, monkeypatch):
    """No training draws its curves, which takes longer than these trainings, unless a test takes
    the fixture `pictures`."""
    if "pictures" not in request.fixturenames:
        monkeypatch.setattr("tinygpt.training.products.draw", lambda metrics, path: None)


@pytest.fixture
def pictures():
    """Trainings draw their curves as they do outside of tests."""


@pytest.fixture
def two_threads():
    """Torch computes with two threads, in this test alone."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def small(corpus):
    """A model configuration that trains in milliseconds on `corpus`."""
    return ModelConfig(
        vocab_size=corpus.tokenizer.vocab_size, block_size=16, n_layer=2, n_head=2, n_embd=16
    )
