import builtins
import json
import os
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest

from tinygpt import cli, lab
from tinygpt.errors import TinyGPTError
from tinygpt.files import ROOT


@pytest.fixture(autouse=True)
def settings_of_this_test(monkeypatch):
    """What `open_lab` adds to the environment is gone after the test."""
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", "")


@pytest.fixture
def folders(tmp_path):
    notebooks, work = tmp_path / "notebooks", tmp_path / "my_work"
    notebooks.mkdir()
    (notebooks / "00_start_here.ipynb").write_text('"one"')
    (notebooks / "01_first.ipynb").write_text('"first"')
    (notebooks / "README.md").write_text("not a notebook")
    return notebooks, work


def test_first_copy(folders):
    notebooks, work = folders
    assert lab.make_working_copy(notebooks, work) == []
    assert sorted(p.name for p in work.glob("*.ipynb")) == ["00_start_here.ipynb", "01_first.ipynb"]


def test_answers_are_never_overwritten_and_updates_are_announced(folders):
    notebooks, work = folders
    lab.make_working_copy(notebooks, work)
    (work / "01_first.ipynb").write_text('"my answer"')
    assert lab.make_working_copy(notebooks, work) == []  # nothing new: nothing to say
    (notebooks / "01_first.ipynb").write_text('"second edition"')
    (message,) = lab.make_working_copy(notebooks, work)
    assert "01_first.ipynb has a newer version" in message
    assert (work / "01_first.ipynb").read_text() == '"my answer"'
    (work / "01_first.ipynb").rename(work / "mine.ipynb")  # the way out that the message names
    assert lab.make_working_copy(notebooks, work) == []
    assert (work / "01_first.ipynb").read_text() == '"second edition"'
    assert (work / "mine.ipynb").read_text() == '"my answer"'


def test_untouched_copies_follow_updates_and_deleted_ones_come_back(folders):
    notebooks, work = folders
    lab.make_working_copy(notebooks, work)
    (notebooks / "00_start_here.ipynb").write_text('"two"')
    (work / "01_first.ipynb").unlink()
    assert lab.make_working_copy(notebooks, work) == []
    assert (work / "00_start_here.ipynb").read_text() == '"two"'
    assert (work / "01_first.ipynb").read_text() == '"first"'


@pytest.mark.parametrize("record", [None, "{half", "[]", '{"01_first.ipynb": 1}', "[" * 10**5])
def test_a_lost_record_loses_no_answer(folders, record):
    notebooks, work = folders
    lab.make_working_copy(notebooks, work)
    (work / "01_first.ipynb").write_text('"my answer"')
    if record is None:
        (work / lab.RECORD).unlink()
    else:
        (work / lab.RECORD).write_text(record)
    (message,) = lab.make_working_copy(notebooks, work)
    assert "01_first" in message
    assert (work / "01_first.ipynb").read_text() == '"my answer"'
    assert set(json.loads((work / lab.RECORD).read_text())) == {"00_start_here.ipynb"}
    (notebooks / "00_start_here.ipynb").write_text('"two"')
    lab.make_working_copy(notebooks, work)
    assert (work / "00_start_here.ipynb").read_text() == '"two"'  # untouched ones still follow


def changes(folder):
    """The files of a folder, with their content."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def test_a_working_copy_that_is_no_folder(folders):
    notebooks, work = folders
    work.write_text("my notes")
    with pytest.raises(TinyGPTError, match="my_work is not a folder.*rename it"):
        lab.make_working_copy(notebooks, work)
    assert work.read_text() == "my notes"


@pytest.mark.parametrize("cut", [0, 5])
def test_a_half_copied_notebook(folders, cut):
    """An empty one is copied anew; half a one may hold an answer, so it is kept and named."""
    notebooks, work = folders
    lab.make_working_copy(notebooks, work)
    half = '"my answer"'[:cut]
    (work / "01_first.ipynb").write_text(half)
    messages = lab.make_working_copy(notebooks, work)
    if half:
        assert messages == [
            "01_first.ipynb is damaged and will not open; it is kept. To get a new one, rename "
            "it and start again."
        ]
        assert (work / "01_first.ipynb").read_text() == half
        (work / "01_first.ipynb").rename(work / "half.ipynb")
        assert lab.make_working_copy(notebooks, work) == []
    assert messages == [] or half
    assert (work / "01_first.ipynb").read_text() == '"first"'


def test_a_notebook_that_is_a_folder_stops_no_other(folders):
    notebooks, work = folders
    (work / "00_start_here.ipynb").mkdir(parents=True)
    (work / "00_start_here.ipynb" / "mine").write_text("mine")
    (message,) = lab.make_working_copy(notebooks, work)
    assert "00_start_here.ipynb is a folder; rename it" in message
    assert (work / "00_start_here.ipynb" / "mine").read_text() == "mine"
    assert (work / "01_first.ipynb").read_text() == '"first"'


def test_a_record_that_is_a_folder(folders):
    notebooks, work = folders
    (work / lab.RECORD).mkdir(parents=True)
    with pytest.raises(TinyGPTError, match="copied.json.*Nothing in it was lost"):
        lab.make_working_copy(notebooks, work)


def test_a_read_only_working_copy(folders, monkeypatch):
    """It opens as it is, and says so when something would have to be written."""
    notebooks, work = folders
    lab.make_working_copy(notebooks, work)
    before = changes(work)

    def refuse(path, *args, **options):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(lab, "atomic_path", refuse)
    monkeypatch.setattr(lab, "write_text", refuse)
    assert lab.make_working_copy(notebooks, work) == []  # up to date: nothing is written
    (notebooks / "00_start_here.ipynb").write_text('"two"')
    with pytest.raises(TinyGPTError, match="ipynb: Permission denied; .*that you can write to"):
        lab.make_working_copy(notebooks, work)
    assert changes(work) == before
    monkeypatch.undo()
    monkeypatch.setattr(builtins, "open", refuse)
    with pytest.raises(TinyGPTError, match="ipynb: Permission denied"):
        lab.make_working_copy(notebooks, work)


def test_without_notebooks_or_jupyterlab(tmp_path, monkeypatch, capsys):
    with pytest.raises(TinyGPTError, match="no notebooks in .*start from a clone"):
        lab.make_working_copy(tmp_path, tmp_path / "my_work")
    assert os.listdir(tmp_path) == []
    monkeypatch.setitem(sys.modules, "jupyterlab.labapp", None)
    assert cli.main(["lab"]) == 2
    error = capsys.readouterr().err
    assert "JupyterLab cannot be started" in error
    assert "pip install" in error
    assert error.count("\n") == 1


def test_help_of_jupyterlab_copies_nothing(monkeypatch):
    monkeypatch.setitem(sys.modules, "jupyterlab.labapp", SimpleNamespace(main=lambda flags: None))
    for name in ("make_working_copy", "load_corpus"):
        monkeypatch.setattr(lab, name, None)
    assert cli.main(["lab", "--help"]) == 0


def test_jupyterlab_asks_about_no_news_and_for_no_updates(monkeypatch, tmp_path):
    """By its defaults, in a folder of settings beside the user's own; a user's choice wins."""
    from jupyterlab.labapp import LabApp
    from jupyterlab_server.settings_utils import get_settings

    main = SimpleNamespace(main=lambda flags: 0)
    monkeypatch.setitem(sys.modules, "jupyterlab.labapp", main)
    monkeypatch.setattr(lab, "make_working_copy", list)
    monkeypatch.setattr(lab, "load_corpus", lambda name, fallback: "a corpus")
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", str(tmp_path))
    assert lab.open_lab([]) == 0
    assert os.environ["JUPYTER_CONFIG_PATH"] == f"{lab.QUIET}{os.pathsep}{tmp_path}"
    name = "@jupyterlab/apputils-extension:notification"
    schemas, own = LabApp().schemas_dir, str(tmp_path / "settings")
    found, _ = get_settings(LabApp().app_settings_dir, schemas, own, name)
    wanted = {"fetchNews": "false", "checkForUpdates": False}
    properties = found["schema"]["properties"]
    assert {key: properties[key]["default"] for key in wanted} == wanted


@pytest.mark.full
def test_a_port_that_is_taken_is_said_by_jupyterlab(tmp_path):
    """It says so and takes the next one; told to take no other, it ends with one line."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code = (
            "import sys; from tinygpt import lab; "
            "lab.make_working_copy, lab.WORK = list, lab.NOTEBOOKS; lab.open_lab(sys.argv[1:])"
        )
        flags = ["--no-browser", "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0"]
        command = [sys.executable, "-c", code, *flags]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode
    assert f"port {port} is not available" in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr


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
