"""Atomic writes, and downloads from a local server that misbehaves on purpose."""

import errno
import hashlib
import os
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tinygpt import files
from tinygpt.errors import CorpusError
from tinygpt.files import (
    ROOT,
    atomic_path,
    download,
    locked,
    resolve,
    sha256,
    sweep_temporaries,
    write_text,
)

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


def test_a_bare_name_is_in_its_home_a_path_where_one_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "home"
    assert resolve("mine", home) == home / "mine"
    assert resolve(Path("mine"), home) == home / "mine"
    for path in ("./mine", "a/mine"):
        assert resolve(path, home) == tmp_path / path
    assert resolve("mine") == tmp_path / "mine"
    assert resolve(home / "mine", home) == home / "mine"
    assert resolve("~", home) == Path.home()


def test_what_is_of_others_is_not_swept(tmp_path):
    for name in (".tmp-step_0000001-ab", ".tmp-notes-ab", ".tmp-x.csv-ab"):
        (tmp_path / name).mkdir()
    sweep_temporaries(tmp_path, "step_*")
    sweep_temporaries(tmp_path, "x.csv")
    assert [p.name for p in tmp_path.iterdir()] == [".tmp-notes-ab"]


def test_folders_made_for_what_failed_go_too(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "a" / "b" / "c" / "file"):
        raise RuntimeError
    assert list((tmp_path / "a").iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
@pytest.mark.parametrize("umask", [0o022, 0o027, 0o002])
def test_everything_may_be_read_by_whom_the_umask_lets(tmp_path, umask):
    """Also what other programs write readable by their owner alone, as safetensors does."""
    before = os.umask(umask)
    try:
        with atomic_path(tmp_path / "folder") as new:
            new.mkdir()
            (new / "private").write_text("")
            (new / "private").chmod(0o600)
        write_text(tmp_path / "file", "")
    finally:
        os.umask(before)
    mode = {p: p.stat().st_mode & 0o777 for p in [tmp_path / "file", *tmp_path.rglob("folder*/**")]}
    assert mode[tmp_path / "file"] == (tmp_path / "folder/private").stat().st_mode & 0o777
    assert mode[tmp_path / "file"] == 0o666 & ~umask
    assert mode[tmp_path / "folder"] == 0o777 & ~umask


@pytest.mark.skipif(os.name == "nt", reason="Windows flushes no folders")
def test_a_file_system_that_cannot_flush_a_folder(tmp_path, monkeypatch):
    fsync = os.fsync

    def of_files_only(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(descriptor)

    monkeypatch.setattr("os.fsync", of_files_only)
    write_text(tmp_path / "file", "content")
    assert (tmp_path / "file").read_text() == "content"


HOLDER = """
    import sys
    from pathlib import Path
    from tinygpt.files import locked
    with locked(Path(sys.argv[1])):
        print("held", flush=True)
        sys.stdin.read()
"""


def holder(path):
    """Another process that holds a lock until its input ends."""
    code = [sys.executable, "-c", textwrap.dedent(HOLDER), str(path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen(code, cwd=ROOT, **pipes)
    assert process.stdout.readline() == b"held\n"
    return process


def test_a_lock_has_one_holder_and_dies_with_its_process(tmp_path):
    path = tmp_path / "lock"
    with holder(path) as process:
        wanted = f"in use by process {process.pid} on {socket.gethostname()}"
        with pytest.raises(BlockingIOError, match=wanted), locked(path):
            pass
        process.kill()
        process.wait()
    with locked(path):
        pass


def test_a_lock_holds_between_threads_and_within_one(tmp_path):
    def try_it():
        try:
            with locked(tmp_path / "lock"):
                return "got it"
        except BlockingIOError as error:
            return error.strerror

    with locked(tmp_path / "lock"), ThreadPoolExecutor(1) as pool:
        said = f"in use by process {os.getpid()}"
        assert pool.submit(try_it).result().startswith(said)
        assert try_it().startswith(said)
    assert try_it() == "got it"
    assert try_it() == "got it"


@pytest.mark.parametrize("error", [OSError(errno.ENOLCK, "No locks"), NotImplementedError("none")])
def test_where_there_can_be_no_lock(tmp_path, monkeypatch, error):
    def acquire(lock, timeout):
        raise error

    monkeypatch.setattr("tinygpt.files.FileLock.acquire", acquire)
    with pytest.raises(OSError, match="(?i)no locks"), locked(tmp_path / "lock"):
        pass


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
