import io
import os
import sys

import pytest

from tinygpt.training.show import Shown, progress_bar, say


class Broken(io.StringIO):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def write(self, text=""):
        raise self.error

    flush = write


def console(encoding):
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding)


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1"])
def test_what_a_console_lacks_is_replaced(monkeypatch, encoding):
    stream = console(encoding)
    monkeypatch.setattr("sys.stdout", stream)
    say("a\N{GRINNING FACE}b\N{GREEK SMALL LETTER ALPHA}c")
    stream.flush()
    assert stream.buffer.getvalue() == b"a?b?c\n"


def broken_streams():
    closed = console("utf-8")
    closed.close()
    reader, writer = os.pipe()
    os.close(reader)
    yield from (closed, None, os.fdopen(writer, "w", buffering=1))
    yield from (Broken(e) for e in (OSError(5, "x"), OSError(28, "x"), ValueError("closed")))


@pytest.mark.parametrize("number", range(6))
def test_what_cannot_be_shown_stops_nothing(monkeypatch, number):
    stream = list(broken_streams())[number]
    monkeypatch.setattr("sys.stdout", stream)
    monkeypatch.setattr("sys.stderr", stream)
    bar = progress_bar(total=3, done=0, shown=True)
    with bar:
        for _ in range(3):
            say("text")
            bar.update()
            bar.set_postfix_str("loss 1.0", refresh=True)
    if isinstance(stream, io.TextIOWrapper) and not stream.closed:
        with pytest.raises(BrokenPipeError):
            stream.close()


def test_elsewhere_it_is_the_stream_itself(capsys):
    say("all of it \N{GRINNING FACE}")
    bar = progress_bar(total=2, done=0, shown=True)
    with bar:
        bar.update()
        say("above the bar")
    said = capsys.readouterr()
    assert said.out == "all of it \N{GRINNING FACE}\nabove the bar\n"
    assert "1/2" in said.err
    assert Shown(sys.stderr) == sys.stderr
    assert Shown(sys.stderr) in (sys.stdout, sys.stderr)  # as tqdm asks
    assert Shown(sys.stderr) != sys.stdout
