"""Downloads from a local server that misbehaves on purpose."""

import hashlib
import io
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace
from urllib.error import URLError

import pytest

from tinygpt import download as module
from tinygpt.download import download
from tinygpt.errors import CorpusError
from tinygpt.files import ROOT, alone

from .server import CONTENT, Server, drip, head, serve, status

SIZE, SHA = len(CONTENT), hashlib.sha256(CONTENT).hexdigest()


def mute(to, start):
    to.stopped.wait()


def dripping(to, start):
    head(to, Content_Length=SIZE)
    drip(to, CONTENT)


def dripping_head(to, start):
    drip(to, b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 50_000)


def dripping_chunk_sizes(to, start):
    to.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    drip(to, b"1;" + b"x" * 50_000)


def waiting_head(to, start):
    while not to.stopped.is_set():
        to.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)


def endless(to, start):
    head(to)
    while not to.stopped.is_set():
        to.wfile.write(CONTENT)


def endless_page(to, start):
    head(to, 302, Location="/again")
    while not to.stopped.is_set():
        to.wfile.write(CONTENT)


def compressed(to, start):
    head(to, Content_Encoding="gzip", Content_Length=SIZE)
    to.wfile.write(CONTENT)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Time limits that no busy machine reaches, and no pauses; what hangs all the same fails."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(module, "STALL", 2.0)
    monkeypatch.setattr(module, "GRACE", 20.0)
    monkeypatch.setattr(module, "PACE", 200_000)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=time.monotonic, sleep=id))
    if not hasattr(signal, "setitimer"):
        return (yield)
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it hangs"))
    signal.setitimer(signal.ITIMER_REAL, 60)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)


@pytest.fixture
def hurried(monkeypatch):
    """Where a server is silent or slow for ever, and how often it is asked does not matter."""
    monkeypatch.setattr(module, "STALL", 0.3)
    monkeypatch.setattr(module, "GRACE", 0.8)


def fetch(server, path):
    download(server.url, path, SHA, SIZE)
    assert path.read_bytes() == CONTENT
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # and nothing beside it
    return server.asked


@contextmanager
def refused(path, words, kept=0):
    """A download that is refused: `path` does not exist; of its part so many bytes are kept."""
    start = time.monotonic()
    with pytest.raises(CorpusError, match=words):
        yield
    assert time.monotonic() - start < 60  # not for ever
    assert not path.exists()
    part = path.with_name(path.name + ".part")
    assert (part.stat().st_size if part.exists() else 0) == kept
    assert part.exists() == (kept > 0)
    assert not list(path.parent.parent.glob(".*.lock"))


def test_download(tmp_path):
    with Server(serve()) as server:
        assert fetch(server, tmp_path / "new" / "input.txt") == [None]
    assert [p.name for p in tmp_path.iterdir()] == ["new"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask to speak of")
@pytest.mark.parametrize("mask", [0o022, 0o027])
def test_what_is_downloaded_may_be_read_by_whom_the_umask_lets(tmp_path, mask):
    before = os.umask(mask)
    try:
        with Server(serve()) as server:
            fetch(server, tmp_path / "new" / "input.txt")
    finally:
        os.umask(before)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o777 & ~mask
    assert (tmp_path / "new" / "input.txt").stat().st_mode & 0o777 == 0o666 & ~mask


# --- transfers that break ------------------------------------------------------------------------


def test_a_broken_transfer_goes_on_where_it_stopped(tmp_path):
    with Server(serve(sent=100_000), serve()) as server:
        assert fetch(server, tmp_path / "input.txt") == [None, "bytes=100000-"]


@pytest.mark.parametrize("stalls", [False, True])
def test_tries_that_get_further_do_not_count(tmp_path, stalls, monkeypatch):
    monkeypatch.setattr(module, "STALL", 0.6)
    with Server(serve(sent=60_000, stalls=stalls)) as server:
        assert len(fetch(server, tmp_path / "input.txt")) == 5  # after more than TRIES that broke


@pytest.mark.parametrize("first", [mute, serve(sent=0, stalls=True), serve(sent=0), status(503)])
def test_a_server_that_is_slow_to_begin_is_asked_again(tmp_path, first, monkeypatch):
    ask, stalls = module._ask, iter([0.3, 0.3])

    def asked(*args):  # the third try, which succeeds, has time
        monkeypatch.setattr(module, "STALL", next(stalls, 20.0))
        return ask(*args)

    monkeypatch.setattr(module, "_ask", asked)
    with Server(first, first, serve()) as server:
        assert fetch(server, tmp_path / "input.txt") == [None] * 3


def test_a_connection_that_is_lost_for_a_moment(tmp_path, monkeypatch):
    ask, tries = module._ask, iter(range(10))

    def lost(*args):
        if next(tries) in (1, 2):
            raise URLError(OSError("no route to host"))
        return ask(*args)

    monkeypatch.setattr(module, "_ask", lost)
    with Server(serve(sent=100_000), serve()) as server:
        assert fetch(server, tmp_path / "input.txt") == [None, "bytes=100000-"]


def test_what_a_killed_process_left_is_gone_on_with(tmp_path):
    (tmp_path / "input.txt.part").write_bytes(CONTENT[:1000])
    with Server(status(503), status(429), serve()) as server:
        assert fetch(server, tmp_path / "input.txt") == ["bytes=1000-"] * 3


@pytest.mark.parametrize(("left", "asked"), [(CONTENT, 0), (CONTENT + b"x", 1), (b"x" * SIZE, 1)])
def test_a_part_that_is_whole_too_long_or_another(tmp_path, left, asked):
    (tmp_path / "input.txt.part").write_bytes(left)
    with Server(serve()) as server:
        assert fetch(server, tmp_path / "input.txt") == [None] * asked


def test_an_old_part_of_another_version_is_thrown_away(tmp_path):
    (tmp_path / "input.txt.part").write_bytes(b"x" * 1000)
    with Server(serve()) as server:
        assert fetch(server, tmp_path / "input.txt") == ["bytes=1000-", None]


def test_a_server_without_ranges_begins_again(tmp_path):
    with Server(serve(sent=1000, ranges=False), serve(ranges=False)) as server:
        assert fetch(server, tmp_path / "input.txt") == [None, "bytes=1000-"]
    path = tmp_path / "never" / "input.txt"
    with Server(serve(sent=1000, ranges=False)) as server:
        with refused(path, "ended after 1000 of 300000", kept=1000):
            download(server.url, path, SHA, SIZE)
        assert len(server.asked) == 4  # the first got further than nothing


@pytest.mark.parametrize(
    "odd",
    [
        status(416),
        serve(Content_Range="bytes 5-299999/300000"),
        serve(Content_Range="bytes garbage"),
        serve(Content_Range="bytes 99999999999999999999-1/*"),
        lambda to, start: serve()(to, 7),  # also where no range was asked for
    ],
)
def test_another_range_than_the_one_asked_for(tmp_path, odd):
    (tmp_path / "input.txt.part").write_bytes(CONTENT[:1000])
    with Server(odd, serve()) as server:
        assert fetch(server, tmp_path / "input.txt") == ["bytes=1000-", None]
    with Server(odd), refused(tmp_path / "x" / "input.txt", "could not download"):
        download(server.url, tmp_path / "x" / "input.txt", SHA, SIZE)


def test_an_unknown_total_is_no_other_total(tmp_path):
    (tmp_path / "input.txt.part").write_bytes(CONTENT[:1000])
    with Server(serve(Content_Range="bytes 1000-299999/*")) as server:
        assert fetch(server, tmp_path / "input.txt") == ["bytes=1000-"]


# --- servers that would be followed for ever -----------------------------------------------------


@pytest.mark.parametrize(
    "answer", [mute, dripping, dripping_head, dripping_chunk_sizes, waiting_head]
)
def test_a_server_that_never_comes_to_an_end(tmp_path, answer, hurried):
    path = tmp_path / "input.txt"
    with Server(answer) as server, pytest.raises(CorpusError, match="could not download"):
        start = time.monotonic()
        download(server.url, path, SHA, SIZE)
    assert time.monotonic() - start < 60  # not for ever
    assert not path.exists()


def test_a_server_that_drips_after_a_fast_start(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "GRACE", 1.5)

    def answer(to, start):
        head(to, Content_Length=SIZE)
        to.wfile.write(CONTENT[:-5000])
        drip(to, CONTENT[-5000:])

    with Server(answer) as server, pytest.raises(CorpusError, match="200000 bytes per second"):
        download(server.url, tmp_path / "input.txt", SHA, SIZE)
    assert (tmp_path / "input.txt.part").stat().st_size >= SIZE - 5000  # for another time


def test_a_slow_server_is_followed_as_long_as_it_keeps_pace(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PACE", 50_000)
    monkeypatch.setattr(module, "GRACE", 1.0)

    def answer(to, start):  # 300,000 bytes in more than a second, which is longer than GRACE
        head(to, Content_Length=SIZE)
        for i in range(0, SIZE, 10_000):
            to.wfile.write(CONTENT[i : i + 10_000])
            to.stopped.wait(0.04)

    with Server(answer) as server:
        fetch(server, tmp_path / "input.txt")


def test_no_more_is_taken_than_the_file_is_long(tmp_path):
    path = tmp_path / "x" / "input.txt"
    with Server(endless) as server:
        assert fetch(server, path) == [None]  # it begins with what is wanted
        path.unlink()
        with refused(path, "has sha256 .*, expected .*nothing was kept"):
            download(server.url, path, SHA, SIZE - 1)


@pytest.mark.parametrize("answer", [serve(Content_Length=SIZE + 1), serve(Content_Length=24)])
def test_another_length_than_expected(tmp_path, answer):
    """A later version, or a page that wants a log-in: nothing of it replaces what there is."""
    path = tmp_path / "x" / "input.txt"
    path.parent.mkdir()
    path.with_name("input.txt.part").write_bytes(CONTENT[:1000])
    with Server(lambda to, start: answer(to, None)) as server:
        with refused(path, "bytes long, expected 300,000", kept=1000):
            download(server.url, path, SHA, SIZE)
        assert len(server.asked) == 1


def test_another_total_than_expected(tmp_path):
    path = tmp_path / "x" / "input.txt"
    path.parent.mkdir()
    path.with_name("input.txt.part").write_bytes(CONTENT[:1000])
    with Server(serve(CONTENT * 2)) as server, refused(path, "is 600,000 bytes long", kept=1000):
        download(server.url, path, SHA, SIZE)


def test_a_length_that_is_none_is_no_length(tmp_path):
    with Server(serve(Content_Length="many")) as server:
        fetch(server, tmp_path / "input.txt")


def test_compressed_content_is_refused(tmp_path):
    path = tmp_path / "x" / "input.txt"
    with Server(compressed) as server, refused(path, "sent as gzip"):
        download(server.url, path, SHA, SIZE)


def test_redirections_are_followed_but_not_round_and_round(tmp_path):
    away = status(302, Location="/elsewhere")
    with Server(serve(sent=1000), away, serve()) as server:
        asked = [None, "bytes=1000-", "bytes=1000-"]
        assert fetch(server, tmp_path / "input.txt") == asked
    with Server(endless_page, serve()) as server:
        assert fetch(server, tmp_path / "new" / "input.txt") == [None] * 2
    path = tmp_path / "x" / "input.txt"
    with Server(away) as server:
        with refused(path, "infinite loop"):
            download(server.url, path, SHA, SIZE)
        assert len(server.asked) < 10
    count = iter(range(1000))
    with Server(lambda to, start: status(302, Location=f"/{next(count)}")(to, 0)) as server:
        with refused(path, "infinite loop"):
            download(server.url, path, SHA, SIZE)
        assert len(server.asked) < 10


@pytest.mark.parametrize("place", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://[bad", "\0"])
def test_a_redirection_to_nowhere(tmp_path, place):
    path = tmp_path / "x" / "input.txt"
    with Server(status(302, Location=place)) as server, refused(path, "could not download"):
        download(server.url, path, SHA, SIZE)


def test_an_answer_that_is_no_http_is_one_clear_error(tmp_path):
    path = tmp_path / "x" / "input.txt"
    answer = lambda to, start: to.wfile.write(b"garbage\r\n\r\n")  # noqa: E731
    with Server(answer) as server, refused(path, "could not download"):
        download(server.url, path, SHA, SIZE)


def test_wrong_content_is_not_kept(tmp_path):
    path = tmp_path / "x" / "input.txt"
    with Server(serve(b"x" * SIZE)) as server:
        with refused(path, "expected.*nothing was kept"):
            download(server.url, path, SHA, SIZE)
        assert len(server.asked) == 1


def test_a_missing_page_and_a_dead_server_are_named(tmp_path):
    path = tmp_path / "new" / "input.txt"
    with Server(status(404)) as server, refused(path, "404"):
        download(server.url, path, SHA, SIZE)
    assert len(server.asked) == 1
    with refused(path, "could not download http://127.0.0.1:9/"):
        download("http://127.0.0.1:9/x", path, SHA, SIZE)
    assert list(tmp_path.iterdir()) == []  # no empty folder either


def test_a_folder_that_cannot_be_written_to_is_named_before_anything_is_asked(tmp_path):
    (tmp_path / "file").write_text("")
    with Server(serve()) as server:
        for path in (tmp_path / "file" / "input.txt", tmp_path / "file" / "x" / "input.txt"):
            with pytest.raises(CorpusError, match=r"could not download.*(Not a dir|File exists)"):
                download(server.url, path, SHA, SIZE)
        assert server.asked == []


# --- several at once -----------------------------------------------------------------------------


def fetching(url, path, patience=15):
    """A process that fetches."""
    code = f"""
        from pathlib import Path
        from tinygpt import download as module
        module.STALL = {patience}
        module.download({url!r}, Path({str(path)!r}), {SHA!r}, {SIZE})
        print("done")
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_of_several_threads_one_fetches_and_the_others_take_its_file(tmp_path, monkeypatch):
    path, go = tmp_path / "x" / "y", threading.Event()
    monkeypatch.setattr(module, "STALL", 20.0)
    monkeypatch.setattr(sys, "stdout", said := io.StringIO())
    with (
        Server(lambda to, start: go.wait() and serve()(to, start)) as server,
        ThreadPoolExecutor(4) as pool,
    ):
        done = [pool.submit(download, server.url, path, SHA, SIZE) for _ in range(4)]
        while said.getvalue().count("waiting for another process") < 3 and not done[0].done():
            time.sleep(0.01)
        go.set()
        assert [future.result() for future in done] == [None] * 4
        assert server.asked == [None]
    assert path.read_bytes() == CONTENT
    assert said.getvalue().count("waiting for another process") == 3


def test_of_two_processes_one_fetches_and_the_other_takes_its_file(tmp_path):
    path, go = tmp_path / "x" / "y", threading.Event()
    with Server(lambda to, start: go.wait() and serve()(to, start)) as server:
        first = fetching(server.url, path)
        while not server.asked:
            time.sleep(0.01)
        second = fetching(server.url, path)
        assert second.stdout.readline().startswith("waiting for another process")
        go.set()
        assert first.communicate()[0] == second.communicate()[0] == "done\n"
        assert server.asked == [None]
    assert path.read_bytes() == CONTENT
    assert [p.name for p in tmp_path.rglob("*")] == ["x", "y"]


def test_the_one_that_waited_goes_on_where_a_killed_one_stopped(tmp_path):
    path, part = tmp_path / "x" / "y", tmp_path / "x" / "y.part"
    with Server(serve(sent=100_000, stalls=True), serve()) as server:
        first = fetching(server.url, path)
        while not part.exists() or part.stat().st_size < 50_000:
            time.sleep(0.01)
        with ThreadPoolExecutor(1) as pool:
            second = pool.submit(fetch, server, path)
            assert server.asked == [None]
            first.kill()
            first.communicate()
            _, place = second.result()
        assert int(place.removeprefix("bytes=").removesuffix("-")) >= 50_000


def test_when_the_first_fails_the_second_tries_itself(tmp_path):
    path, entered = tmp_path / "x" / "y", threading.Event()
    with Server(serve()) as server, ThreadPoolExecutor(1) as pool:
        with alone(path.parent):
            second = pool.submit(download, server.url, path, SHA, SIZE)
            entered.wait(0.2)
            assert server.asked == []
        second.result()
    assert path.read_bytes() == CONTENT


# --- pages whose checksum nobody knows -----------------------------------------------------------


def get(server, limit=SIZE):
    return module.fetch_page(server.url, limit, "tests (+me@example.org)")


@pytest.mark.parametrize(
    "first", [serve(), serve(sent=1000), serve(sent=0, stalls=True), status(503), status(429)]
)
def test_a_page_is_fetched_whole_or_again(first, monkeypatch):
    monkeypatch.setattr(module, "STALL", 0.6)
    with Server(first, serve()) as server:
        assert get(server) == CONTENT
        assert set(server.visits) == {("/input.txt", "tests (+me@example.org)")}
        assert set(server.asked) == {None}  # each time from its beginning


def test_a_page_without_a_length_that_comes_in_chunks():
    def answer(to, start):
        head(to, Transfer_Encoding="chunked")
        to.protocol_version = "HTTP/1.1"
        to.wfile.write(b"5\r\nhello\r\n0\r\n\r\n")

    with Server(answer) as server:
        assert get(server) == b"hello"


def test_a_busy_server_is_asked_again_after_the_time_that_it_wants(monkeypatch, capsys):
    slept = []
    monkeypatch.setattr(
        module, "time", SimpleNamespace(monotonic=time.monotonic, sleep=slept.append)
    )
    with Server(status(429, Retry_After="7"), status(503), serve()) as server:
        assert get(server) == CONTENT
    assert slept == [7.0, 2.0]
    assert "asks to wait 7 s" in capsys.readouterr().out
    with Server(status(429, Retry_After="Wed, 21 Oct 2026 07:28:00 GMT"), serve()) as server:
        assert get(server) == CONTENT
    assert capsys.readouterr().out == ""
    with Server(status(429, Retry_After="86400")) as server:
        with pytest.raises(CorpusError, match="come back in 86,400 s; try again then"):
            get(server)
        assert len(server.asked) == 1


def test_a_page_that_is_not_there_is_told_from_one_that_cannot_be_had(request):
    with Server(status(404)) as server:
        with pytest.raises(FileNotFoundError, match="there is no http"):
            get(server)
        assert len(server.asked) == 1
    request.getfixturevalue("hurried")
    for answer in (status(403), status(500), serve(sent=1000), mute, dripping, compressed):
        with Server(answer) as server, pytest.raises(CorpusError):
            get(server)
    with pytest.raises(CorpusError, match="could not download http://127.0.0.1:9/"):
        module.fetch_page("http://127.0.0.1:9/x", 10, "me")
    with pytest.raises(CorpusError, match="could not download"):
        module.fetch_page("no address", 10, "me")


@pytest.mark.parametrize("answer", [serve(), endless])
def test_no_more_of_a_page_is_taken_than_was_expected(answer):
    with (
        Server(answer) as server,
        pytest.raises(CorpusError, match="longer than the 100,000 bytes"),
    ):
        get(server, 100_000)
