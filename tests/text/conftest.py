import hashlib

import pytest

from tinygpt.text import corpus, stream


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A repository root of our own, with one registered corpus, and no network."""
    text = "to be or not to be\n" * 20
    digest = hashlib.sha256(text.encode()).hexdigest()
    remote = corpus.Remote("input.txt", "http://127.0.0.1:9/input.txt", digest, "none")
    monkeypatch.setattr(corpus, "ROOT", tmp_path)
    monkeypatch.setattr(stream, "ROOT", tmp_path)
    monkeypatch.setattr(corpus, "REGISTRY", {"hamlet": remote})
    monkeypatch.delenv("TINYGPT_DATA", raising=False)
    return tmp_path, text
