"""Files of the hub, from a local one and from the cache."""

import hashlib
from dataclasses import replace

import pytest
from huggingface_hub import constants

from tinygpt import download
from tinygpt.errors import CheckpointError, CorpusError
from tinygpt.hub import HubFile, fetch, snapshot

from .server import Server, serve

CONTENT = b"words" * 1000
FILE = HubFile("org/words", "0" * 40, "words.txt", 5000, hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    """The cache of the hub for a while, which is read at import otherwise."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(download, "STALL", 1.0)
    return tmp_path / "cache"


def use(server, monkeypatch):
    template = server.url.replace("input.txt", "{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def cached(cache, content, monkeypatch):
    folder = cache / "models--org--words" / "snapshots" / FILE.commit
    folder.mkdir(parents=True)
    (folder / FILE.file).write_bytes(content)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_a_file_comes_from_its_commit(tmp_path, monkeypatch, kind):
    paths = []

    def answer(to, start):
        paths.append(to.path)
        serve(CONTENT)(to, start)

    with Server(answer) as server:
        use(server, monkeypatch)
        fetch(replace(FILE, kind=kind), tmp_path / "home" / "words.txt")
    assert (tmp_path / "home" / "words.txt").read_bytes() == CONTENT
    start = "/datasets" if kind == "dataset" else ""
    assert paths == [f"{start}/org/words/resolve/{FILE.commit}/words.txt"]


def test_wrong_bytes_are_refused(tmp_path, monkeypatch):
    with Server(serve(b"sdrow" * 1000)) as server:
        use(server, monkeypatch)
        with pytest.raises(CorpusError, match="sha256.*expected.*nothing was kept"):
            fetch(FILE, tmp_path / "home" / "words.txt")
    assert not (tmp_path / "home").exists()


def test_the_hubs_cache_is_used_without_a_network(tmp_path, monkeypatch, empty_cache):
    cached(empty_cache, CONTENT, monkeypatch)
    fetch(FILE, tmp_path / "home" / "words.txt")
    assert (tmp_path / "home" / "words.txt").read_bytes() == CONTENT


def test_a_place_that_cannot_be_written_to_is_said(tmp_path, monkeypatch, empty_cache):
    cached(empty_cache, CONTENT, monkeypatch)
    (tmp_path / "home").write_text("a file")
    with pytest.raises(CorpusError, match=r"could not copy .*words.txt to .*home"):
        fetch(FILE, tmp_path / "home" / "words.txt")


def test_a_damaged_cache_is_not_used(tmp_path, monkeypatch, empty_cache):
    cached(empty_cache, b"other", monkeypatch)
    with pytest.raises(CorpusError, match="org/words/words.txt.*HF_HUB_OFFLINE is set"):
        fetch(FILE, tmp_path / "home" / "words.txt")


def test_without_a_network_the_error_comes_at_once(tmp_path, monkeypatch):
    with Server(serve(CONTENT)) as server:
        use(server, monkeypatch)
    with pytest.raises(CorpusError, match="could not download.*refused"):
        fetch(FILE, tmp_path / "home" / "words.txt")
    assert not (tmp_path / "home").exists()


def test_a_model_is_not_asked_for_again_and_again_without_a_network(monkeypatch):
    """The client waits half a minute between its tries."""
    monkeypatch.setattr("tinygpt.hub.getproxies", lambda: {"no": "localhost"})  # which is no proxy
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail("it waits"))
    with pytest.raises(
        CheckpointError, match="no network: nowhere.invalid has no address.*hf down"
    ):
        snapshot("owner/model", "http://nowhere.invalid")


@pytest.mark.parametrize("proxies", [{}, {"https": "http://127.0.0.1:9"}])
@pytest.mark.parametrize("endpoint", ["nowhere.invalid", "localhost:80", "https://", "http://[x"])
def test_an_address_that_is_none_is_said(monkeypatch, endpoint, proxies):
    monkeypatch.setattr("tinygpt.hub.getproxies", lambda: proxies)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    with pytest.raises(CheckpointError, match=r"\(HF_ENDPOINT\) must be https:// and the name"):
        snapshot("owner/model")
