"""Atomic writes, locks, and where relative paths lead."""

import errno
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import distributions
from importlib.util import find_spec

import pytest

from tinygpt import files
from tinygpt.files import ROOT, alone, atomic_path, locked, resolve, sweep_temporaries, write_text


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


# --- one at a time -------------------------------------------------------------------------------


def test_one_at_a_time_is_at_work_on_a_folder(tmp_path, capsys):
    inside, most, folder = 0, 0, tmp_path / "x"

    def work():
        nonlocal inside, most
        for _ in range(20):
            with alone(folder):
                inside += 1
                most = max(most, inside)
                threading.Event().wait(0.001)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    with alone(tmp_path / "y"):  # another folder is no obstacle
        for thread in threads:
            thread.join()
    assert most == 1
    assert "waiting for another process that is at work on" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_who_does_not_wait_is_told(tmp_path):
    with alone(tmp_path / "x"):
        with pytest.raises(TimeoutError), alone(tmp_path / "x", wait=False):
            pass
        with pytest.raises(TimeoutError), alone(tmp_path / "x", wait=False):  # the lock still holds
            pass
    with alone(tmp_path / "x", wait=False):
        pass


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_lock_dies_with_its_process(tmp_path):
    code = f"""
        import os, signal
        from pathlib import Path
        from tinygpt.files import alone
        with alone(Path({str(tmp_path / "x")!r})):
            os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    with alone(tmp_path / "x", wait=False):
        pass
    assert list(tmp_path.iterdir()) == []


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


# --- where paths lead ----------------------------------------------------------------------------


def test_a_bare_name_is_at_home_and_another_path_starts_at_the_current_folder(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "me"))
    runs = tmp_path / "runs"
    assert resolve("mine", runs) == runs / "mine"
    assert resolve("mine") == tmp_path / "mine"
    for given in ("./mine", "mine/", "a/mine", "../mine", ".", "..", "", tmp_path / "mine"):
        assert resolve(given, runs) == resolve(given) == tmp_path / given
    assert resolve("~/mine", runs) == tmp_path / "me" / "mine"
    assert resolve("~no user/mine", runs) == tmp_path / "~no user" / "mine"


def test_the_workspace_of_a_repository_is_the_repository():
    assert ROOT == files.WORKSPACE
    assert not files.INSTALLED


INSTALLED = """
    import hashlib, os
    from pathlib import Path
    import tinygpt
    from tinygpt import ModelConfig, TinyGPT, TrainConfig, Trainer, load_corpus, load_run
    from tinygpt.errors import TinyGPTError
    from tinygpt.lab import open_lab
    from tinygpt.corpora import plain
    from tinygpt.places import Remote

    assert "site-packages" in tinygpt.__file__
    for call in (lambda: load_run("laptop"), lambda: open_lab([])):
        try:
            call()
        except TinyGPTError as error:
            print(error)

    Path("data", "hamlet").mkdir(parents=True)
    text = b"to be or not to be\\n" * 20
    Path("data", "hamlet", "hamlet.txt").write_bytes(text)
    digest = hashlib.sha256(text).hexdigest()
    plain.FILES["hamlet"] = Remote("hamlet.txt", "", digest, len(text))
    corpus = load_corpus("hamlet")
    print(corpus.source)

    shape = ModelConfig(
        vocab_size=corpus.tokenizer.vocab_size, block_size=8, n_layer=1, n_head=1, n_embd=8
    )
    config = TrainConfig(max_steps=1, eval_interval=1, sample_tokens=0)
    Trainer(TinyGPT(shape), corpus, config, out_dir="mine").fit(progress=False)
    load_run("mine")
    os.chdir("data")
    load_run("mine")  # the workspace is where Python began
    load_run("../checkpoints/mine")
"""


def check_installed(site_packages, workspace):
    """The package, and nothing around it, used in an empty folder."""
    environment = os.environ | {"PYTHONPATH": str(site_packages), "TINYGPT_DATA": ""}
    workspace.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(INSTALLED)],
        cwd=workspace,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    no_run, no_lab, source = done.stdout.splitlines()
    assert f"no run 'laptop', which would be {workspace / 'checkpoints' / 'laptop'}" in no_run
    assert "the course's runs are in its repository, not in what pip installs" in no_run
    assert "the notebooks are in the course's repository" in no_lab
    assert source == "data/hamlet/hamlet.txt"
    assert sorted(p.name for p in workspace.iterdir()) == ["checkpoints", "data"]
    assert [p.name for p in (workspace / "checkpoints").iterdir()] == ["mine"]
    left = {p.name for p in site_packages.iterdir() if not p.name.endswith(".dist-info")}
    assert left == {"tinygpt"}


def test_an_installed_package_works_in_the_current_folder(tmp_path):
    site_packages = tmp_path / "site-packages"
    shutil.copytree(
        ROOT / "tinygpt", site_packages / "tinygpt", ignore=shutil.ignore_patterns("__pycache__")
    )
    check_installed(site_packages, tmp_path / "work")


@pytest.mark.full
def test_a_package_that_pip_installed_works_in_the_current_folder(tmp_path):
    there = {d.name: d.version for d in distributions(name="setuptools")}
    if find_spec("pip") is None or int(there.get("setuptools", "0").split(".")[0]) < 77:
        pytest.skip("needs pip, and setuptools 77 or later, which pip would have to fetch")
    source, site_packages = tmp_path / "source", tmp_path / "site-packages"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(
        ROOT / "tinygpt", source / "tinygpt", ignore=shutil.ignore_patterns("__pycache__")
    )
    options = ["--no-deps", "--no-build-isolation", "--quiet", "--target", str(site_packages)]
    install = [sys.executable, "-m", "pip", "install", *options, str(source)]
    subprocess.run(install, check=True)
    shutil.rmtree(site_packages / "bin", ignore_errors=True)  # the command tinygpt
    check_installed(site_packages, tmp_path / "work")
