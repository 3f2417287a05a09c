import io
import json
import os
import random
import shutil
import subprocess
import sys
import textwrap
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from tinygpt import CharTokenizer, load_corpus, textfiles
from tinygpt.corpora import corpus as module
from tinygpt.corpora import get_batch, stream
from tinygpt.corpora.documents import Document
from tinygpt.corpora.encoding import encode
from tinygpt.errors import CorpusError
from tinygpt.files import ROOT, alone, sha256
from tinygpt.text import tokenizer

from ..tools import byte_tokenizer


def test_a_large_text_is_memory_mapped_and_the_same(home, monkeypatch):
    root, _ = home
    text = "Zwölf Boxkämpfer 😀\n" * 500
    (root / "large.txt").write_text(text, encoding="utf-8", newline="\n")
    plain = load_corpus("file:large.txt")
    monkeypatch.setattr(module, "MEMMAP_BYTES", 100)
    for corpus in (load_corpus("file:large.txt"), load_corpus("file:large.txt")):  # made, reused
        assert corpus.train.dtype == torch.uint16
        assert corpus.tokenizer == plain.tokenizer
        assert torch.equal(corpus.train.long(), plain.train)
        assert torch.equal(corpus.val.long(), plain.val)
        x, y = get_batch(corpus.train, 4, 8, torch.Generator().manual_seed(0))
        a, b = get_batch(plain.train, 4, 8, torch.Generator().manual_seed(0))
        assert torch.equal(x, a)
        assert torch.equal(y, b)
        assert x.dtype == torch.int64
        assert corpus.val_size == plain.val_size


def test_a_file_is_encoded_by_any_tokenizer(tmp_path, monkeypatch):
    monkeypatch.setattr(textfiles, "PIECE", 10)  # also in the middle of a token
    text, tok = "the cat sat. é😀\n" * 9, byte_tokenizer()
    (tmp_path / "text.txt").write_text(text, encoding="utf-8", newline="\n")
    document, sink = Document("all", textfiles.pieces(tmp_path / "text.txt")), io.BytesIO()
    encode([document], tok, sink)
    assert tok.decode(np.frombuffer(sink.getvalue(), dtype="<u2")) == text


def test_more_tokens_than_sixteen_bits_can_number(home, monkeypatch):
    """They take 32, signed: torch can neither index nor count with unsigned ones."""
    monkeypatch.setattr(module, "MEMMAP_BYTES", 100)
    text = "".join(map(chr, range(0x1_0000, 0x1_0000 + (1 << 16) + 1))) * 2
    Path("large.txt").write_text(text, encoding="utf-8")
    corpus = load_corpus("file:large.txt")
    assert corpus.tokenizer.vocab_size == (1 << 16) + 1
    assert corpus.train.dtype == torch.int32
    assert corpus.tokenizer.decode(torch.cat([corpus.train, corpus.val])) == text
    x, y = get_batch(corpus.train, 4, 8, torch.Generator().manual_seed(0))
    assert torch.equal(y[:, :-1], x[:, 1:])
    assert corpus.val_size.characters == len(corpus.val)


def test_the_size_of_a_large_split_is_counted_without_a_copy(home, monkeypatch):
    root, _ = home
    monkeypatch.setattr(module, "MEMMAP_BYTES", 100)
    monkeypatch.setattr(tokenizer, "CHUNK", 1000)
    (root / "large.txt").write_text("abcdé" * 1_000_000, encoding="utf-8")
    corpus = load_corpus("file:large.txt")
    tracemalloc.start()
    assert corpus.val_size.bytes == 600_000
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()


# --- what lies in the cache ----------------------------------------------------------------------

TEXT = "Zwölf Boxkämpfer jagen Viktor. 😀\n" * 100


@pytest.fixture
def cached(home, monkeypatch):
    """The folder that TEXT, in large.txt, has been encoded into."""
    monkeypatch.setattr(module, "MEMMAP_BYTES", 100)
    Path("large.txt").write_text(TEXT, encoding="utf-8", newline="\n")
    load_corpus("file:large.txt")
    return Path("data", "cache", sha256(Path("large.txt"))[:16])


def read_again() -> str:
    corpus = load_corpus("file:large.txt")
    return corpus.tokenizer.decode(torch.cat([corpus.train, corpus.val]))


def truncate(path, size):
    path.write_bytes(path.read_bytes()[:size])


def flip(path, bit):
    content = bytearray(path.read_bytes())
    content[bit // 8 % len(content)] ^= 1 << bit % 8
    path.write_bytes(content)


def rewrite(folder, **changes):
    record = json.loads((folder / "record.json").read_text())
    (folder / "record.json").write_text(json.dumps(record | changes))


def of_another_text(folder):
    CharTokenizer("abc").save(folder / "tokenizer.json")


def with_unknown_ids(folder):
    """All sums are right, so only the ids themselves can tell."""
    ids = np.fromfile(folder / "tokens", dtype="<u2")
    ids[1000] = 60_000
    ids.tofile(folder / "tokens")
    sums = {name: sha256(folder / name) for name in ("tokenizer.json", "contents.json", "tokens")}
    rewrite(folder, sha256=sums)


DAMAGES = {
    "truncated": lambda folder: truncate(folder / "tokens", 2000),
    "odd": lambda folder: truncate(folder / "tokens", 2001),
    "empty": lambda folder: truncate(folder / "tokens", 0),
    "longer": lambda folder: (folder / "tokens").open("ab").write(b"xx"),
    "flipped": lambda folder: flip(folder / "tokens", 3000),
    "no tokens": lambda folder: (folder / "tokens").unlink(),
    "no tokenizer": lambda folder: (folder / "tokenizer.json").unlink(),
    "half a tokenizer": lambda folder: truncate(folder / "tokenizer.json", 10),
    "another tokenizer": of_another_text,
    "unknown ids": with_unknown_ids,
    "unfinished": lambda folder: (folder / "record.json").unlink(),
    "half a record": lambda folder: truncate(folder / "record.json", 10),
    "an empty record": lambda folder: (folder / "record.json").write_text("{}"),
    "a deep record": lambda folder: (folder / "record.json").write_text("[" * 100_000),
    "another text's": lambda folder: rewrite(folder, text="0" * 64),
    "another type": lambda folder: rewrite(folder, dtype="<i4"),
    "another size": lambda folder: rewrite(folder, vocab_size=70_000),
    "an earlier version's": lambda folder: (folder / "tokens").rename(folder / "tokens.uint16"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_cache_is_made_anew_with_a_message(cached, damage, capsys):
    assert read_again() == TEXT
    assert capsys.readouterr().out == ""
    damage(cached)
    assert read_again() == TEXT
    assert "large.txt is damaged, unfinished or old; encoding it again" in capsys.readouterr().out
    assert read_again() == TEXT
    assert capsys.readouterr().out == ""
    assert sorted(path.name for path in cached.iterdir()) == [
        "contents.json",
        "record.json",
        "tokenizer.json",
        "tokens",
    ]


@pytest.mark.full
def test_every_flipped_bit_in_the_cache_is_found(cached, capsys):
    draw, whole = random.Random(0), Path("whole")
    shutil.copytree(cached, whole)
    for name in ("tokens", "tokenizer.json", "contents.json", "record.json"):
        for _ in range(200):
            flip(cached / name, draw.randrange(8 * (whole / name).stat().st_size))
            assert read_again() == TEXT
            assert "encoding it again" in capsys.readouterr().out
            for path in whole.iterdir():
                assert (cached / path.name).read_bytes() == path.read_bytes()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask to speak of")
@pytest.mark.parametrize("mask", [0o022, 0o027])
def test_the_cache_may_be_read_by_whom_the_umask_lets(cached, mask):
    shutil.rmtree(cached.parent)
    before = os.umask(mask)
    try:
        read_again()
    finally:
        os.umask(before)
    for path in (cached.parent, cached, *cached.iterdir()):
        assert path.stat().st_mode & 0o777 == (0o777 if path.is_dir() else 0o666) & ~mask


@pytest.mark.parametrize("more", ["the same letters", "ǧ"])
def test_a_text_that_changes_while_it_is_encoded(cached, monkeypatch, more):
    shutil.rmtree(cached)
    encode = stream.encode

    def after_a_change(*args):
        Path("large.txt").write_text(TEXT + more, encoding="utf-8")
        return encode(*args)

    monkeypatch.setattr(stream, "encode", after_a_change)
    with pytest.raises(CorpusError, match=r"large.txt is another text than when it was loaded"):
        load_corpus("file:large.txt")
    assert list(cached.parent.iterdir()) == []
    monkeypatch.setattr(stream, "encode", encode)
    assert read_again() == TEXT + more


def test_no_room_for_the_cache_leaves_nothing(cached, monkeypatch):
    shutil.rmtree(cached)

    def full(documents, tokenizer, sink):
        sink.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stream, "encode", full)
    with pytest.raises(CorpusError, match="could not write .*No space left on device; make room"):
        load_corpus("file:large.txt")
    assert list(cached.parent.iterdir()) == []


def encoding():
    """A process that reads large.txt; when it comes to encoding, it says so and waits for "go"."""
    code = """
        import time
        from pathlib import Path
        from tinygpt import places
        from tinygpt.corpora import corpus, load_corpus, stream
        corpus.MEMMAP_BYTES, places.WORKSPACE, stream.WORKSPACE = 100, Path.cwd(), Path.cwd()
        encode = stream.encode
        def slowly(documents, tokenizer, sink):
            print("encoding", flush=True)
            while not Path("go").exists():
                time.sleep(0.05)
            return encode(documents, tokenizer, sink)
        stream.encode = slowly
        print(load_corpus("file:large.txt").val_size.tokens)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def test_of_two_processes_one_encodes_and_the_other_takes_its_tokens(cached):
    shutil.rmtree(cached)
    first = encoding()
    assert first.stdout.readline() == "encoding\n"
    second = encoding()
    assert second.stdout.readline().startswith("waiting for another process")
    Path("go").touch()
    expected = f"{len(TEXT) - int(0.9 * len(TEXT))}\n"
    assert first.communicate()[0] == second.communicate()[0] == expected
    assert read_again() == TEXT
    assert list(cached.parent.iterdir()) == [cached]


def test_of_two_threads_one_encodes_and_the_other_takes_its_tokens(cached, monkeypatch):
    shutil.rmtree(cached)
    encode, encoded, go = stream.encode, [], threading.Event()
    said = io.StringIO()

    def slowly(*args):
        encoded.append(args)
        go.wait(20)
        return encode(*args)

    monkeypatch.setattr(stream, "encode", slowly)
    monkeypatch.setattr(sys, "stdout", said)
    with ThreadPoolExecutor(4) as pool:
        done = [pool.submit(read_again) for _ in range(4)]
        while said.getvalue().count("waiting for another process") < 3 and not done[0].done():
            time.sleep(0.01)
        go.set()
        assert [future.result() for future in done] == [TEXT] * 4
    assert len(encoded) == 1
    assert said.getvalue().count("waiting for another process") == 3


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_what_a_killed_process_left_is_swept_but_not_what_another_is_at_work_on(cached):
    shutil.rmtree(cached)
    killed = encoding()
    assert killed.stdout.readline() == "encoding\n"
    killed.kill()
    killed.communicate()
    assert (cached / "tokens").exists()
    busy = cached.with_name("busy")
    busy.mkdir()
    Path("other.txt").write_text("another text " * 100, encoding="utf-8")
    with alone(busy):
        load_corpus("file:other.txt")
        assert busy.exists()
        assert not cached.exists()
    assert read_again() == TEXT
    assert {path.name for path in cached.parent.iterdir() if path.is_dir()} == {
        cached.name,
        sha256(Path("other.txt"))[:16],
    }
