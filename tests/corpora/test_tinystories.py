"""TinyStories in its several forms, from a local hub."""

import hashlib
import os
import subprocess
import sys
import textwrap
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import constants

from tinygpt import download, load_corpus, textfiles
from tinygpt.corpora import corpus as corpora
from tinygpt.corpora import encoding, tinystories
from tinygpt.errors import CorpusError
from tinygpt.files import ROOT

from ..server import Server, library, serve, status
from ..tools import marked_tokenizer

REAL = Path(os.environ.get("TINYGPT_DATA", "no folder")).absolute()
STORIES = ["the cat sat.\n\nthe cat sat at the hat.", "at tea the cat sat.", "that hat."]
MARK = "\n<|endoftext|>\n"
TRAIN = MARK.join([*STORIES, "", " \n"]) + MARK  # with empty stories, as after the last mark
VALID = MARK.join(STORIES[:2])
FILES = {"TinyStories-train.txt": TRAIN.encode(), "TinyStories-valid.txt": VALID.encode()}


@pytest.fixture
def hub(home, monkeypatch):
    """A local hub with a small data set in the place of the real one."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home[0] / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(download, "STALL", 2.0)
    monkeypatch.setattr(download, "GRACE", 20.0)
    impatient = SimpleNamespace(monotonic=time.monotonic, sleep=id)
    monkeypatch.setattr(download, "time", impatient)
    monkeypatch.setenv("no_proxy", "*")

    def start(files=FILES, **odd):
        for name in ("TRAIN", "VALID"):
            wanted = getattr(tinystories, name)
            content = files[wanted.file]
            known = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            monkeypatch.setattr(tinystories, name, replace(wanted, **known))
        folder = f"datasets/{tinystories.REPOSITORY}/resolve/{tinystories.COMMIT}"
        paths = {f"{folder}/{name}": content for name, content in files.items()}
        server = Server(library(paths, **odd))
        template = server.base + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        return server

    return start


def stories(corpus, split):
    """The stories of a split, read from its ids alone."""
    end, found = corpus.tokenizer.end_of_text, [[]]
    for token in getattr(corpus, split).tolist():
        if token == end:
            found.append([])
        else:
            found[-1].append(token)
    assert found.pop() == []  # an end comes last
    return [corpus.tokenizer.decode(ids) for ids in found]


def test_the_stories_and_their_ends_and_nothing_else(hub):
    with hub() as server:
        corpus = load_corpus("tinystories", marked_tokenizer())
        assert len(server.visits) == 2
    assert stories(corpus, "train") == STORIES
    assert stories(corpus, "val") == STORIES[:2]
    assert corpus.train.dtype == torch.uint16
    assert corpus.test is None
    assert corpus.contents.documents == {"train": 3, "val": 2}
    assert corpus.contents.bytes["train"] == sum(map(len, STORIES))
    assert "TinyStories-train.txt: 3 stories" in corpus.contents.notes
    assert corpus.licence == "CDLA-Sharing-1.0"


def test_fewer_stories(hub):
    with hub():
        corpus = load_corpus("tinystories:2", marked_tokenizer())
        assert stories(corpus, "train") == STORIES[:2]
        assert stories(corpus, "val") == STORIES[:2]
        assert load_corpus(corpus.name, marked_tokenizer()).contents == corpus.contents
        more = load_corpus("tinystories:9", marked_tokenizer())
    assert more.contents.notes[0] == "9 stories were asked for, there are 3"


def test_characters_have_blank_lines_between_stories(hub):
    with hub():
        corpus = load_corpus("tinystories")
    assert corpus.tokenizer.decode(corpus.train) == "".join(f"{s}\n\n" for s in STORIES)
    assert corpus.text == corpus.tokenizer.decode(torch.cat([corpus.train, corpus.val]))


def test_once_encoded_the_texts_are_not_needed_any_more(hub, home):
    with hub():
        first = load_corpus("tinystories", marked_tokenizer())
    for path in (home[0] / "data" / "tinystories").iterdir():
        path.unlink()
    second = load_corpus("tinystories", marked_tokenizer())
    assert torch.equal(first.train, second.train)


@pytest.mark.parametrize("size", [1, 7, 100])
def test_a_mark_may_lie_on_the_border_of_two_pieces(hub, monkeypatch, size):
    monkeypatch.setattr(textfiles, "PIECE", size)
    monkeypatch.setattr(tinystories, "_form", lambda path: "marked")  # it looks at one piece
    with hub():
        assert stories(load_corpus("tinystories", marked_tokenizer()), "train") == STORIES


ANSWERS = {
    "missing": (status(404), "404"),
    "busy": (status(429), "429"),
    "truncated for ever": (serve(b"x" * len(TRAIN), sent=5, ranges=False), "ended after"),
    "stalled": (serve(b"x" * len(TRAIN), sent=0, stalls=True), "timed out"),
    "another length": (serve(b"x"), "bytes long, expected"),
    "wrong bytes": (serve(b"x" * len(TRAIN)), "sha256"),
}


@pytest.mark.parametrize(("answer", "words"), ANSWERS.values(), ids=ANSWERS)
def test_a_hub_that_fails_gives_one_error_and_no_token_file(hub, home, answer, words, monkeypatch):
    monkeypatch.setattr(download, "STALL", 0.6)
    bad = hub(**{"TinyStories-train.txt": answer})
    with bad, pytest.raises(CorpusError, match=f"tinystories is not on this.*{words}"):
        load_corpus("tinystories", marked_tokenizer())
    assert not (home[0] / "data" / "tinystories" / "TinyStories-train.txt").exists()
    assert list((home[0] / "data" / "cache").iterdir()) == []
    with hub():
        assert stories(load_corpus("tinystories", marked_tokenizer()), "train") == STORIES


def test_a_broken_transfer_goes_on(hub):
    answers = iter([serve(TRAIN.encode(), sent=40)])
    whole = serve(TRAIN.encode())
    with hub(**{"TinyStories-train.txt": lambda *a: next(answers, whole)(*a)}) as server:
        assert stories(load_corpus("tinystories", marked_tokenizer()), "train") == STORIES
    assert "bytes=40-" in server.asked


def test_a_fallback_takes_the_place_of_what_cannot_be_had(hub, capsys):
    with hub(**{"TinyStories-train.txt": status(404)}):
        assert load_corpus("tinystories", fallback="tinyplays").name == "tinyplays"
    assert "Going on with tinyplays" in capsys.readouterr().out


@pytest.mark.full
def test_of_two_processes_one_downloads_and_encodes(home):
    code = """
        import sys
        from dataclasses import replace
        from pathlib import Path
        from huggingface_hub import constants
        constants.HUGGINGFACE_CO_URL_TEMPLATE = sys.argv[1]
        from tinygpt import load_corpus
        from tinygpt import places
        from tinygpt.corpora import stream, tinystories
        places.WORKSPACE = stream.WORKSPACE = Path.cwd()
        for name, size, sha256 in zip(("TRAIN", "VALID"), sys.argv[2::2], sys.argv[3::2]):
            wanted = getattr(tinystories, name)
            setattr(tinystories, name, replace(wanted, size=int(size), sha256=sha256))
        print(len(load_corpus("tinystories").train))
    """
    folder = f"datasets/{tinystories.REPOSITORY}/resolve/{tinystories.COMMIT}"
    known = [f(c) for c in FILES.values() for f in (len, lambda c: hashlib.sha256(c).hexdigest())]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "no_proxy": "*"}
    with Server(library({f"{folder}/{name}": c for name, c in FILES.items()})) as server:
        template = server.base + "/{repo_id}/resolve/{revision}/{filename}"
        command = [sys.executable, "-c", textwrap.dedent(code), template, *map(str, known)]
        run = {"stdout": subprocess.PIPE, "text": True, "env": environment, "cwd": home[0]}
        both = [subprocess.Popen(command, **run) for _ in range(2)]
        said = [process.communicate()[0].splitlines()[-1] for process in both]
        assert len(server.visits) == 2
    assert said[0] == said[1]


def test_memory_does_not_grow_with_the_text(hub, home, monkeypatch):
    monkeypatch.setattr(corpora, "MEMMAP_BYTES", 0)
    monkeypatch.setattr(textfiles, "PIECE", 1 << 14)
    monkeypatch.setattr(encoding, "TOGETHER", 1 << 14)
    peaks = []
    for count in (1_000, 20_000):
        text = MARK.join(f"the cat sat at {'tea ' * (i % 50)}." for i in range(count))
        with hub(FILES | {"TinyStories-train.txt": text.encode()}):
            tracemalloc.start()
            load_corpus("tinystories")
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        (home[0] / "data" / "tinystories" / "TinyStories-train.txt").unlink()
    assert peaks[1] < peaks[0] + 200_000


# --- the sample, and files of other forms --------------------------------------------------------


def sample(home, text):
    path = home[0] / "data" / "tinystories" / "sample.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_without_marks_is_one_running_text_and_told_to_be(home):
    sample(home, "\n\n".join(STORIES))
    corpus = load_corpus("tinystories-sample", marked_tokenizer())
    assert corpus.contents.documents == {"all": 1}
    assert corpus.tokenizer.end_of_text not in torch.cat([corpus.train, corpus.val])
    assert "no marks between its stories" in corpus.contents.notes[0]
    assert "a small sample of TinyStories" in corpus.source


def test_a_sample_with_marks_has_stories(home):
    sample(home, MARK.join(STORIES * 10))
    corpus = load_corpus("tinystories-sample", marked_tokenizer())
    assert stories(corpus, "train") == STORIES * 9
    assert stories(corpus, "val") == STORIES


def test_a_single_story_is_no_corpus(home):
    sample(home, STORIES[0] + MARK)
    with pytest.raises(CorpusError, match="tinystories-sample .* 1 document.* 'train'.*sample.txt"):
        load_corpus("tinystories-sample", marked_tokenizer())


def test_stories_in_quotes_are_one_a_line(tmp_path):
    path = tmp_path / "stories.txt"
    path.write_text('"the ""cat"" sat."\n"at tea."\n\n"that hat."\n')
    assert list(tinystories.stories(path)) == ['the "cat" sat.', "at tea.", "that hat."]


def test_stories_that_cannot_be_told_apart_are_refused(tmp_path):
    path = tmp_path / "stories.txt"
    path.write_text("\n\n".join(STORIES))
    with pytest.raises(CorpusError, match=r"stories.txt has no <|endoftext|> between its stories"):
        list(tinystories.stories(path))


def test_without_a_sample_it_is_said_where_it_goes(home):
    with pytest.raises(CorpusError, match=r"put some TinyStories at data/tinystories/sample.txt"):
        load_corpus("tinystories-sample")


@pytest.mark.skipif(not REAL.is_dir(), reason="its files are not in $TINYGPT_DATA")
def test_the_real_sample(home, monkeypatch):
    monkeypatch.setenv("TINYGPT_DATA", str(REAL))
    corpus = load_corpus("tinystories-sample", "gpt2")
    assert "173 places of broken encoding repaired" in corpus.contents.notes[0]
    assert len(corpus.train) + len(corpus.val) == 48_104  # 48,366 as it was
    assert not set("âã€™") & set(corpus.text)
