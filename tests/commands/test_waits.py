"""What takes longer than a second says so: on a terminal, in every command."""

import sys
import threading

import pytest

from tinygpt import cli
from tinygpt.training import export_run

from ..test_console import Terminal
from .conftest import train


class AtOnce(threading.Timer):
    """A timer whose second is over at once."""

    def start(self):
        self.function(*self.args)


WAITS = {
    "data TEXT": "reading TEXT",
    "train --corpus TEXT --preset tiny --max-steps 1": "making the model",
    "generate mine --max-tokens 3": "loading mine … writing up to 3 tokens",
    "upcycle mine --out more": "loading mine … making the experts, writing more",
    "export mine --out folder": "loading mine … writing folder",
    "compare mine": "reading the runs",
    "verify shipped": "shipped: computing the loss of the whole validation split",
    "benchmark --preset tiny --rounds 1": "measuring, in turns",
    "routing moe --max-tokens 64 --batches 1": "moe reads its validation split",
    "info": "counting the parameters of the presets",
    "info mine": "loading mine",
}


@pytest.fixture
def place(text, runs, monkeypatch):
    monkeypatch.chdir(runs.parent)
    assert train(text, "mine", "--max-steps=1") == 0
    assert train(text, "moe", "--max-steps=1", "--moe.n-experts=2") == 0
    export_run("mine", "shipped")
    return text


def test_each_command_says_what_it_waits_for(place, monkeypatch):
    monkeypatch.setattr(threading, "Timer", AtOnce)
    for command, said in WAITS.items():
        monkeypatch.setattr(sys, "stderr", Terminal())
        cli.main(command.replace("TEXT", place).split())
        assert said.replace("TEXT", place) in " ".join(sys.stderr.getvalue().split()), command
