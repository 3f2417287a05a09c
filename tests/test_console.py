"""The command line as a process of its own: its signals, and output that nobody takes."""

import io
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

import pytest

from tinygpt import console
from tinygpt.files import ROOT
from tinygpt.training import checkpoints

COMMAND = [sys.executable, "-m", "tinygpt"]
SMALL = "--n-embd 16 --n-head 2 --n-layer 1 --batch-size 4 --eval-interval 10 --warmup-steps 2"
MORE = "--max-eval-tokens 200 --max-steps 20 --sample-tokens 5 --corpus file:README.md"
TRAIN = ["train", *SMALL.split(), *MORE.split()]
posix = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals and devices")


def start(arguments, python=(), **options):
    # buffered, as programs usually run: what cannot be written shows at the end only
    usual = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": usual} | options
    if os.name == "posix":  # also where Ctrl-C is ignored around us, as in a shell's background
        options.setdefault("preexec_fn", lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    command = [sys.executable, *python, "-m", "tinygpt", *arguments]
    return subprocess.Popen(command, cwd=ROOT, text=True, encoding="utf-8", **options)


def finish(process):
    out, err = process.communicate(timeout=120)
    assert "Traceback" not in err
    assert "Exception ignored" not in err
    return process.returncode, out, err


def interrupted(arguments, signum, delay):
    """Send a signal so many seconds after our first line of code has run."""
    process = start(arguments, python=["-X", "importtime"])
    while "tinygpt.console" not in process.stderr.readline():
        assert process.poll() is None
    time.sleep(delay)
    process.send_signal(signum)
    code, out, err = finish(process)
    lines = [line for line in err.splitlines() if not line.startswith("import time:")]
    assert lines == []
    return code, out


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_who_waits_is_told_for_what(monkeypatch):
    """After a second and on a terminal only, by the first of several processes."""
    monkeypatch.setattr(console, "SOON", 0.01)
    for rank, kind, said in (
        ("0", Terminal, "a and b …\n"),
        ("1", Terminal, ""),
        ("0", io.StringIO, ""),
    ):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setattr(sys, "stderr", kind())
        with console.waiting("a\nand b"):
            time.sleep(0.5)
        assert sys.stderr.getvalue() == said
    monkeypatch.setattr(console, "SOON", 60)
    monkeypatch.setattr(sys, "stderr", Terminal())
    before = threading.active_count()
    with console.waiting("nothing"):
        assert threading.active_count() == before + 1
    assert sys.stderr.getvalue() == ""


@posix
def test_it_is_said_that_torch_is_loaded(tmp_path):
    """On a terminal: here the import takes its time, and then fails."""
    (tmp_path / "torch.py").write_text("import time; time.sleep(2); raise SystemExit(3)")
    main, terminal = os.openpty()
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    command = [*COMMAND, "info"]
    with (
        open(main, "rb", buffering=0) as screen,  # a line may come in two pieces
        subprocess.Popen(command, env=env, stderr=terminal) as process,
    ):
        os.close(terminal)
        assert screen.readline() == "loading torch …\r\n".encode()
    assert process.returncode == 3


@posix
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_the_imports_run(signum, code):
    assert interrupted(["info"], signum, 0.2) == (code, "")


@posix
@pytest.mark.full
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_at_any_moment(signum, code):
    start = time.perf_counter()
    assert interrupted(["info"], 0, 0)[0] == 0  # 0: no signal
    whole = time.perf_counter() - start
    ends = {interrupted(["info"], signum, random.uniform(0, whole))[0] for _ in range(25)}
    assert code in ends
    assert ends <= {0, code}  # 0: it was done already


@posix
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_to_a_training_saves_it(signum, code, tmp_path):
    process = start([*TRAIN, "--max-steps", "1000000", "--out", str(tmp_path / "run")])
    assert process.stdout.readline() == f"the run is in {tmp_path / 'run'}\n"
    while not checkpoints(tmp_path / "run"):
        time.sleep(0.05)
    process.send_signal(signum)
    ended, out, _ = finish(process)
    assert ended == code
    assert "stopped after step" in out


@posix
def test_signals_that_are_ignored_stay_so():
    """As under nohup, or behind an & in a script."""

    def ignore():
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    process = start(["info"], preexec_fn=ignore)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    assert finish(process)[0] == 0


def test_other_programs_keep_their_signals():
    code = "import signal as s; old = s.getsignal(2), s.getsignal(15); import tinygpt; "
    code += "assert old == (s.getsignal(2), s.getsignal(15))"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@posix
@pytest.mark.parametrize("where", ["a closed pipe", "a full disk"])
@pytest.mark.parametrize("command", ["data --help", "info tiny"])
def test_output_that_cannot_be_written(command, where):
    with output_to(where) as stdout:
        code, _, err = finish(start(command.split(), stdout=stdout))
    assert code == 2
    assert err.startswith("error: cannot read or write the output: ")
    assert err.count("\n") == 1


class output_to:
    """A file that takes no output."""

    def __init__(self, where):
        if where == "a full disk":
            if not os.path.exists("/dev/full"):
                pytest.skip("no /dev/full here")
            self.end = os.open("/dev/full", os.O_WRONLY)
        else:
            reader, self.end = os.pipe()
            os.close(reader)

    def __enter__(self):
        return self.end

    def __exit__(self, *error):
        os.close(self.end)


@posix
@pytest.mark.parametrize("where", ["a closed pipe", "a full disk"])
@pytest.mark.parametrize("streams", [["stdout"], ["stderr"], ["stdout", "stderr"]])
@pytest.mark.full
def test_a_training_outlasts_its_output(where, streams, tmp_path):
    """What is shown never decides what is saved; in the end it is said."""
    with output_to(where) as end:
        process = start([*TRAIN, "--out", str(tmp_path)], **dict.fromkeys(streams, end))
        out, err = process.communicate(timeout=120)
    assert [folder.name for folder in checkpoints(tmp_path)][-1] == "step_0000020"
    assert process.returncode == 2
    if err is not None:
        assert err.splitlines()[-1].startswith("error: cannot read or write the output")
    if out is not None:
        assert "step 20: validation loss" in out


@posix
@pytest.mark.parametrize("redirect", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
@pytest.mark.full
def test_streams_that_are_closed(redirect, tmp_path):
    for command in (["info", "tiny"], [*TRAIN, "--out", str(tmp_path / "run")]):
        line = f'exec "$0" "$@" {redirect}'
        done = subprocess.run(["sh", "-c", line, *COMMAND, *command], cwd=ROOT, check=False)
        assert done.returncode == 0
    assert [folder.name for folder in checkpoints(tmp_path / "run")][-1] == "step_0000020"
    done = subprocess.run(["sh", "-c", line, *COMMAND, "inof"], cwd=ROOT, check=False)
    assert done.returncode == 2


@posix
@pytest.mark.full
def test_folders_that_may_not_be_read(tmp_path):
    run = tmp_path / "run"
    assert finish(start([*TRAIN, "--out", str(run)]))[0] == 0
    powers = []
    if os.geteuid() == 0:  # root reads everything, unless it gives up that power
        if not shutil.which("setpriv"):
            pytest.skip("cannot stop being root here")
        powers = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    newest = checkpoints(run)[-1]
    closed = [(run, 0), (run, 0o555), (newest, 0), (newest / "manifest.json", 0)]
    for path, mode in [*closed, (newest / "model.safetensors", 0)]:
        before = path.stat().st_mode
        path.chmod(mode)
        try:
            command = [*powers, *COMMAND, "train", "--resume", str(run), "--max-steps", "30"]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        finally:
            path.chmod(before)
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1
        assert "Permission denied" in done.stderr
    assert checkpoints(run)[-1] == newest


def test_a_stream_keeps_its_first_error_for_the_end(monkeypatch, capsys):
    class Full:
        written = 0

        def write(self, text):
            self.written += 1
            raise OSError(28, "No space left on device")

        flush = write
        encoding = "utf-8"

    full = Full()
    monkeypatch.setattr(sys, "stderr", full)
    with pytest.raises(OSError, match="No space left"), console.patient_output():
        assert sys.stderr.write("lost") == 4
        sys.stderr.flush()
        assert sys.stderr.encoding == "utf-8"
        print("shown")
    assert full.written == 1
    assert sys.stderr is full
    assert capsys.readouterr().out == "shown\n"
    with pytest.raises(KeyError), console.patient_output():  # another error is the greater one
        sys.stderr.write("lost")
        raise KeyError


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_program_without_a_console(monkeypatch, name):
    monkeypatch.setattr(sys, name, None)
    console.prepare_streams()
    getattr(sys, name).write("é")
    with suppress(OSError):
        getattr(sys, name).close()
