"""Atomic writes, and downloads from a local server that misbehaves on purpose."""

import hashlib
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tinygpt import files
from tinygpt.errors import CorpusError
from tinygpt.files import ROOT, atomic_path, download, sha256, sweep_temporaries, write_text

CONTENT = os.urandom(300_000)
SHA = hashlib.sha256(CONTENT).hexdigest()


def test_an_error_while_writing_keeps_the_old_file_and_leaves_nothing(tmp_path):
    path = tmp_path / "file.txt"
    write_text(path, "old\n")
    with pytest.raises(RuntimeError, match="half-way"), atomic_path(path) as new:
        new.write_text("half")
        raise RuntimeError("half-way")
    assert path.read_bytes() == b"old\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_appears_whole(tmp_path):
    with atomic_path(tmp_path / "a" / "folder") as new:
        new.mkdir()
        (new / "x").write_text("1")
        assert not (tmp_path / "a" / "folder").exists()
    assert (tmp_path / "a" / "folder" / "x").read_text() == "1"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_killed_writer_leaves_the_old_file_and_a_leftover_that_is_swept(tmp_path):
    path = tmp_path / "file.txt"
    write_text(path, "old\n")
    code = f"""
        import os, signal
        from pathlib import Path
        from tinygpt.files import atomic_path
        with atomic_path(Path({str(path)!r})) as new:
            new.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "old\n"
    assert len(list(tmp_path.iterdir())) == 2
    sweep_temporaries(tmp_path)
    assert list(tmp_path.iterdir()) == [path]


class Server:
    """Serves CONTENT; `cut` ends the first answer after so many bytes, `busy` refuses at first."""

    def __init__(self, cut=None, status=None, content=CONTENT, busy=0):
        outer = self
        self.requests = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.requests.append(self.headers.get("Range"))
                if status:
                    return self.send_error(status)
                start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
                if len(outer.requests) <= busy:
                    return self.send_error(503)
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(content) - start))
                self.end_headers()
                body = content[start:]
                first = len(outer.requests) == 1
                self.wfile.write(body[:cut] if cut and first else body)

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/input.txt"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr("time.sleep", lambda seconds: None)


def test_download(tmp_path):
    with Server() as server:
        download(server.url, tmp_path / "d" / "input.txt", SHA)
    assert sha256(tmp_path / "d" / "input.txt") == SHA
    assert [p.name for p in (tmp_path / "d").iterdir()] == ["input.txt"]


def test_a_broken_transfer_goes_on_where_it_stopped(tmp_path):
    with Server(cut=100_000) as server:
        download(server.url, tmp_path / "input.txt", SHA)
    assert server.requests == [None, "bytes=100000-"]
    assert sha256(tmp_path / "input.txt") == SHA


def test_a_busy_server_is_asked_again(tmp_path):
    (tmp_path / "input.txt.part").write_bytes(CONTENT[:1000])
    with Server(busy=2) as server:
        download(server.url, tmp_path / "input.txt", SHA)
    assert sha256(tmp_path / "input.txt") == SHA


def test_two_processes_that_fetch_the_same_at_once(tmp_path, monkeypatch):
    under_way, copy = threading.Barrier(2, timeout=10), files._copy

    def copy_together(read, write, progress):
        write(read(1000))
        under_way.wait()
        copy(read, write, progress)

    monkeypatch.setattr(files, "_copy", copy_together)
    monkeypatch.setattr("os.getpid", threading.get_ident)  # a thread stands for a process
    with Server() as server, ThreadPoolExecutor(2) as pool:
        for _ in range(2):
            done = [pool.submit(download, server.url, tmp_path / "x", SHA) for _ in range(2)]
            assert [future.result() for future in done] == [None, None]
            assert sha256(tmp_path / "x") == SHA
            assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_an_old_part_of_another_version_is_thrown_away(tmp_path):
    (tmp_path / "input.txt.part").write_bytes(b"x" * 1000)
    with Server() as server:
        download(server.url, tmp_path / "input.txt", SHA)
    assert server.requests == ["bytes=1000-", None]
    assert sha256(tmp_path / "input.txt") == SHA


def test_an_answer_that_is_no_http_is_one_clear_error(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            connection, _ = server.accept()
            connection.recv(1000)
            connection.sendall(b"garbage\r\n\r\n")
            connection.close()

        threading.Thread(target=answer, daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/x"
        with pytest.raises(CorpusError, match="could not download"):
            download(url, tmp_path / "input.txt", SHA, tries=1)


def test_wrong_content_is_not_kept(tmp_path):
    wanted = pytest.raises(CorpusError, match="expected.*nothing was kept")
    with Server(content=b"<html>log in first</html>") as server, wanted:
        download(server.url, tmp_path / "input.txt", SHA)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_page_and_a_dead_server_are_named(tmp_path):
    with Server(status=404) as server, pytest.raises(CorpusError, match="404"):
        download(server.url, tmp_path / "new" / "input.txt", SHA)
    with pytest.raises(CorpusError, match="could not download http://127.0.0.1:9/"):
        download("http://127.0.0.1:9/x", tmp_path / "new" / "input.txt", SHA, timeout=2)
    assert list(tmp_path.iterdir()) == []  # no empty folder either
