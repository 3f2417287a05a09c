"""The command line itself, in this process where nothing hangs on its own (see test_console.py)."""

import re
import signal
import subprocess
import sys
import warnings

import pytest

from tinygpt import cli
from tinygpt.commands.completion import FLAGS
from tinygpt.files import ROOT

from .commands.conftest import one_line


def test_the_usage_names_the_program_as_it_was_called(monkeypatch, capsys):
    for name, program in [
        ("/usr/bin/tinygpt", "tinygpt"),
        ("tinygpt.exe", "tinygpt"),
        ("/x/tinygpt/__main__.py", "python -m tinygpt"),
        ("/usr/bin/pytest", "python -m tinygpt"),
    ]:
        monkeypatch.setattr(sys, "argv", [name, "--help"])
        assert cli.main() == 0
        said = capsys.readouterr().out
        assert said.startswith(f"usage: {program} COMMAND")
        assert f"\n{program} COMMAND --help" in said
        with pytest.raises(SystemExit) as stop:
            cli.main(["train", "--help"])
        assert stop.value.code == 0
        said = capsys.readouterr()
        assert f"usage: {program} train [-h]" in said.out
        assert said.err == ""
        assert f"({program} train --help)" in one_line(["train", "--no-such"], capsys)


def run_command(monkeypatch, act):
    monkeypatch.setitem(cli.COMMANDS, "info", lambda arguments: act())
    return cli.main(["info"])


def raises(error):
    def act():
        raise error

    return act


def test_what_is_no_fault_of_the_user_keeps_its_traceback(monkeypatch, capsys):
    for error in (RuntimeError("a bug"), TypeError("a bug"), ValueError("a bug")):
        with pytest.raises(type(error), match="a bug"):
            run_command(monkeypatch, raises(error))
    assert run_command(monkeypatch, raises(MemoryError())) == 2
    assert run_command(monkeypatch, raises(RuntimeError("CUDA out of memory.\nTried"))) == 2
    assert "hold what was asked for: CUDA out of memory.\n" in capsys.readouterr().err


@pytest.fixture
def heeded():
    """Ctrl-C is heeded, also where a shell in the background has Python ignore it."""
    was = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, was)


def test_signals_end_a_command_and_are_as_before_afterwards(monkeypatch, heeded):
    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    assert run_command(monkeypatch, lambda: signal.raise_signal(signal.SIGINT)) == 130
    with pytest.raises(SystemExit) as stop:
        run_command(monkeypatch, lambda: signal.raise_signal(signal.SIGTERM))
    assert stop.value.code == 143
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_warning_is_one_line_and_said_once(monkeypatch, capsys):
    def warn():
        for _ in range(2):
            warnings.warn("first\nand second", stacklevel=1)
        warnings.warn("third", stacklevel=1)

    assert not run_command(monkeypatch, warn)
    assert capsys.readouterr().err == "warning: first and second\nwarning: third\n"


def heavy_modules(code):
    """The plotting, table, widget, command-line and compiler libraries that come with some code."""
    heavy = "matplotlib seaborn pandas ipywidgets IPython tyro transformers torch._dynamo sympy"
    code = (
        f"import sys, torch; before = set(sys.modules); {code}; "
        f"print(*(m for m in {heavy.split()} if m in sys.modules.keys() - before))"
    )
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1].split()


def test_importing_is_light():
    assert heavy_modules("import tinygpt") == []
    assert heavy_modules("import tinygpt; tinygpt.load_run('laptop')") == []


@pytest.mark.parametrize("command", ["info", "info tiny-moe", "generate laptop --max-new-tokens 1"])
def test_commands_start_light(command):
    code = f"from tinygpt import cli; assert cli.main({command.split()}) == 0"
    assert heavy_modules(code) == ["tyro"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_can_complete_commands_and_flags(shell, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--tyro-print-completion", shell])
    assert not stop.value.code
    said = capsys.readouterr().out
    for word in ("generate", "upcycle", "n-embd", "moe.top-k", "repetition-penalty"):
        assert word in said


def test_all_commands_with_flags_are_completed():
    assert {*FLAGS, "lab"} == set(cli.COMMANDS)


@pytest.mark.parametrize("command", sorted(FLAGS))
def test_help_says_of_every_flag_what_it_is(command, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    lines = [line.strip("│ ") for line in capsys.readouterr().out.splitlines()]
    entries = re.split(r"\n(?=-)", "\n".join(lines))[1:]
    helps = {entry.split()[0]: re.split(r" {2,}|\n", entry, maxsplit=1)[1] for entry in entries}
    assert [flag for flag, words in helps.items() if words.startswith(("(", "╰"))] == []
