"""Where GPT-2's two files are looked for, and what is taken for them."""

import hashlib
from dataclasses import replace

import pytest

from tinygpt import BPETokenizer, places
from tinygpt.errors import CorpusError
from tinygpt.text import gpt2_files as module

from ..text.test_subwords import GPT2, gpt2, needs_gpt2

MERGES = module.HEADER + b"a b\n"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A workspace of our own; other files take the place of GPT-2's; the hub is not there."""
    contents = dict(zip(("vocab.json", "merges.txt"), (b"{}", MERGES), strict=True))
    files = [
        replace(f, size=len(contents[f.file]), sha256=hashlib.sha256(contents[f.file]).hexdigest())
        for f in module.FILES
    ]

    def fetch(wanted, path):
        raise CorpusError("no network")

    monkeypatch.setattr(places, "WORKSPACE", tmp_path)
    monkeypatch.setattr(module, "FILES", files)
    monkeypatch.setattr(module, "fetch", fetch)
    monkeypatch.setenv("TINYGPT_DATA", str(tmp_path / "shared"))
    return tmp_path


def put(folder, vocabulary=b"{}", merges=MERGES):
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_bytes(vocabulary)
    (folder / "merges.txt").write_bytes(merges)
    return folder


@pytest.mark.parametrize("merges", [MERGES, MERGES.removeprefix(module.HEADER)])
def test_the_workspace_comes_before_the_shared_folder(home, merges):
    shared = put(home / "shared" / "gpt2-bpe", merges=merges)
    assert module.gpt2_folder() == shared
    mine = put(home / "data" / "gpt2-bpe", merges=merges)
    assert module.gpt2_folder() == mine


def test_what_is_nowhere_is_fetched(home, monkeypatch):
    fetched = []
    monkeypatch.setattr(module, "fetch", lambda wanted, path: fetched.append(path))
    folder = home / "data" / "gpt2-bpe"
    assert module.gpt2_folder() == folder
    assert fetched == [folder / "vocab.json", folder / "merges.txt"]


def test_without_a_network_one_error_says_what_to_do(home, monkeypatch):
    for shared in (str(home / "shared"), ""):
        monkeypatch.setenv("TINYGPT_DATA", shared)
        with pytest.raises(CorpusError, match=r"could not be fetched \(no network\).*bpe:4000"):
            BPETokenizer.from_gpt2()


@pytest.mark.parametrize("other", [{"vocabulary": b"[]"}, {"merges": MERGES + b"a c\n"}])
def test_another_vocabulary_is_not_taken_for_gpt2s(home, other):
    put(home / "data" / "gpt2-bpe", **other)
    with pytest.raises(CorpusError, match=r"is not GPT-2's.*from_gpt2\(folder\)"):
        BPETokenizer.from_gpt2()


@needs_gpt2
def test_the_real_ones(monkeypatch, tmp_path):
    monkeypatch.setattr(places, "WORKSPACE", tmp_path)
    assert module.gpt2_folder() == GPT2
    assert BPETokenizer.from_gpt2() == gpt2()
