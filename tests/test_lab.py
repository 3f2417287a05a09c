import json
import sys
from types import SimpleNamespace

import pytest

from tinygpt import lab


@pytest.fixture
def folders(tmp_path):
    notebooks, work = tmp_path / "notebooks", tmp_path / "my_work"
    notebooks.mkdir()
    (notebooks / "00_start_here.ipynb").write_text("one")
    (notebooks / "01_first.ipynb").write_text("first")
    (notebooks / "README.md").write_text("not a notebook")
    return notebooks, work


def test_first_copy(folders):
    notebooks, work = folders
    assert lab.make_working_copy(notebooks, work) == []
    assert sorted(p.name for p in work.glob("*.ipynb")) == ["00_start_here.ipynb", "01_first.ipynb"]


def test_answers_are_never_overwritten_and_updates_are_announced(folders):
    notebooks, work = folders
    lab.make_working_copy(notebooks, work)
    (work / "01_first.ipynb").write_text("my answer")
    assert lab.make_working_copy(notebooks, work) == []  # nothing new: nothing to say
    (notebooks / "01_first.ipynb").write_text("second edition")
    (message,) = lab.make_working_copy(notebooks, work)
    assert "01_first.ipynb has a newer version" in message
    assert (work / "01_first.ipynb").read_text() == "my answer"
    (work / "01_first.ipynb").rename(work / "mine.ipynb")  # the way out that the message names
    assert lab.make_working_copy(notebooks, work) == []
    assert (work / "01_first.ipynb").read_text() == "second edition"
    assert (work / "mine.ipynb").read_text() == "my answer"


def test_untouched_copies_follow_updates_and_deleted_ones_come_back(folders):
    notebooks, work = folders
    lab.make_working_copy(notebooks, work)
    (notebooks / "00_start_here.ipynb").write_text("two")
    (work / "01_first.ipynb").unlink()
    assert lab.make_working_copy(notebooks, work) == []
    assert (work / "00_start_here.ipynb").read_text() == "two"
    assert (work / "01_first.ipynb").read_text() == "first"


@pytest.mark.parametrize("record", [None, "{half"])
def test_a_lost_record_loses_no_answer(folders, record):
    notebooks, work = folders
    lab.make_working_copy(notebooks, work)
    (work / "01_first.ipynb").write_text("my answer")
    if record is None:
        (work / lab.RECORD).unlink()
    else:
        (work / lab.RECORD).write_text(record)
    (message,) = lab.make_working_copy(notebooks, work)
    assert "01_first" in message
    assert (work / "01_first.ipynb").read_text() == "my answer"
    assert set(json.loads((work / lab.RECORD).read_text())) == {"00_start_here.ipynb"}
    (notebooks / "00_start_here.ipynb").write_text("two")
    lab.make_working_copy(notebooks, work)
    assert (work / "00_start_here.ipynb").read_text() == "two"  # untouched ones still follow


@pytest.mark.parametrize("user", [0, 1000])
def test_jupyterlab_gets_the_notebook_the_root_and_the_users_flags(monkeypatch, user, capsys):
    seen = []
    fake = SimpleNamespace(main=lambda arguments: seen.extend(arguments))
    monkeypatch.setitem(sys.modules, "jupyterlab.labapp", fake)
    monkeypatch.setattr(lab, "make_working_copy", lambda: [])
    monkeypatch.setattr(lab, "load_corpus", lambda name, fallback: "a corpus")
    monkeypatch.setattr(lab.os, "geteuid", lambda: user, raising=False)
    assert lab.open_lab(["--no-browser", "--port", "9999"]) == 0
    assert seen[0].endswith("00_start_here.ipynb")
    assert f"--ServerApp.root_dir={lab.ROOT}" in seen
    assert ("--allow-root" in seen) == (user == 0)
    assert seen[-3:] == ["--no-browser", "--port", "9999"]
    assert "a corpus" in capsys.readouterr().out
