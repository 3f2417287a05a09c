import hashlib

import pytest

from tinygpt import places
from tinygpt.corpora import plain, stream


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A workspace of our own, which is the current folder, with one registered corpus."""
    text = "to be or not to be\n" * 20
    digest = hashlib.sha256(text.encode()).hexdigest()
    remote = places.Remote("input.txt", "http://127.0.0.1:9/input.txt", digest, len(text))
    monkeypatch.setattr(places, "WORKSPACE", tmp_path)
    monkeypatch.setattr(stream, "WORKSPACE", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(plain.FILES, "hamlet", remote)
    monkeypatch.delenv("TINYGPT_DATA", raising=False)
    return tmp_path, text
