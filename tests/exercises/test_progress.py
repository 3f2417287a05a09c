"""Which exercises of a copy are solved: what answers do, they stop neither it nor each other."""

import json
import shutil
import subprocess

import pytest

from tinygpt import cli
from tinygpt.errors import TinyGPTError
from tinygpt.exercises import progress, progress_table
from tinygpt.exercises.cells import is_skeleton
from tinygpt.exercises.words import COLUMNS
from tinygpt.files import ROOT

from .answers import skeletons, solutions
from .test_registry import EXERCISES

FIRST = ROOT / "notebooks" / "01_char_tokenizer.ipynb"
NAMES = EXERCISES["01_char_tokenizer"]


def copied(folder, answers, before=None):
    """Notebook 01 with these answers in its exercises' cells, by name.

    With `before`, it has this in the place of its first cell, which imports much.
    """
    notebook = json.loads(FIRST.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        for name, answer in answers.items():
            if cell["cell_type"] == "code" and f"check({name})" in text:
                cell["source"] = f"{answer}\n\n\ncheck({name})"
    first = next(i for i, cell in enumerate(notebook["cells"]) if cell["cell_type"] == "code")
    if before is not None:
        notebook["cells"][first]["source"] = [before]
    path = folder / FIRST.name
    path.write_text(json.dumps(notebook), encoding="utf-8")
    return path


def states(where, patience=60.0):
    return {it.exercise: it.state for it in progress(where, patience)}


def answer(name, line):
    """A skeleton with another line in the place of `return ...`."""
    return skeletons(FIRST)[name].split("\n\n\ncheck")[0].replace("return ...", line)


def test_an_untouched_copy_starts_no_process(tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", None)
    for path in (ROOT / "notebooks").glob("[0-9]*.ipynb"):
        shutil.copy(path, tmp_path)
    assert states(tmp_path) == {
        name: "not attempted" for names in EXERCISES.values() for name in names
    }
    *_, last = progress_table(tmp_path)
    assert last == f"0 of {sum(map(len, EXERCISES.values()))} exercises are solved"


def test_all_solutions_of_a_notebook(tmp_path):
    noise = "import sys\nprint('[false, \"\"]')\nsys.stdout.write('noise\\n')\n%time 1\n"
    found = solutions(FIRST)
    found["unknown_share"] = noise + found["unknown_share"]
    assert states(copied(tmp_path, found)) == dict.fromkeys(NAMES, "solved")


@pytest.mark.full
def test_answers_that_never_end_or_end_python_stop_no_other(tmp_path):
    answers = {
        "encode_with_unknown": answer("encode_with_unknown", "while True: pass"),
        "unigram_entropy": "import os\n" + answer("unigram_entropy", "os._exit(3)"),
        "make_windows": answer("make_windows", "return input()"),
        "unknown_share": solutions(FIRST)["unknown_share"],
    }
    found = {it.exercise: it for it in progress(copied(tmp_path, answers, ""), patience=6)}
    assert found["unknown_share"].state == "solved"
    endless, ended, asks = (found[name].said for name in list(answers)[:3])
    assert endless == "did not end in 6 s, and was then in its line «while True: pass»"
    assert ended == "ended Python itself (exit code 3)"
    assert asks.startswith("stopped with EOFError")
    assert asks.endswith("in its line «return input()». It was given a tensor of shape (10,), 3.")


def test_what_an_answer_needs_of_the_cells_before_it(tmp_path):
    helpers = (
        "import math as maths\nHALF = 0.5\nslow = undefined(HALF)\n"
        "def share(text, alphabet=HALF * 2):\n    return sum(c not in alphabet for c in text)"
    )
    share = "return share(text, alphabet) / len(text) if text else maths.floor(HALF)"
    answers = {
        "unknown_share": answer("unknown_share", share),
        "make_windows": answer("make_windows", "return slow"),
        "unigram_entropy": "def unigram_entropy(counts:\n    return 1",
    }
    found = {it.exercise: it for it in progress(copied(tmp_path, answers, helpers))}
    assert found["unknown_share"].state == "solved"
    assert found["encode_with_unknown"].state == "not attempted"
    assert "name 'slow' is not defined" in found["make_windows"].said
    said = found["unigram_entropy"].said
    assert said.startswith("its cell stops with SyntaxError")
    assert "«def unigram_entropy(counts:»" in said


def test_is_skeleton():
    assert is_skeleton("def f(x):\n    return ...\ncheck(f)", "f")
    assert not is_skeleton("def f(x):\n    return ...\ncheck(f)", "g")
    assert not is_skeleton("def f(x):\n    if x: return 1\n    return ...", "f")
    assert not is_skeleton("def f(x):\n    y = x", "f")
    assert not is_skeleton("def f(x:\n    return ...", "f")


@pytest.mark.parametrize("content", ["", "{half", "[]", '{"cells": [3]}', "[" * 10**5])
def test_a_damaged_notebook_is_named(tmp_path, content):
    path = tmp_path / "mine.ipynb"
    path.write_text(content)
    with pytest.raises(TinyGPTError, match="mine.ipynb is damaged"):
        list(progress(tmp_path))


def test_where_there_is_nothing(tmp_path, monkeypatch, capsys):
    with pytest.raises(TinyGPTError, match="there are no exercises in"):
        list(progress(tmp_path))
    assert cli.main(["progress", str(tmp_path / "missing")]) == 2
    assert "missing is not there" in capsys.readouterr().err
    monkeypatch.setattr("tinygpt.lab.WORK", tmp_path / "my_work")
    assert cli.main(["progress"]) == 2
    assert "`python -m tinygpt lab` makes it" in capsys.readouterr().err


def test_the_command(tmp_path, monkeypatch, capsys):
    """A row for each exercise, no longer than a screen is wide."""
    answers = {
        "make_windows": answer("make_windows", "return tokens, tokens"),
        "unknown_share": solutions(FIRST)["unknown_share"],
    }
    copied(tmp_path, answers, "")
    monkeypatch.setattr("tinygpt.lab.WORK", tmp_path)
    assert cli.main(["progress"]) == 0
    title, *rows, last = capsys.readouterr().out.splitlines()
    assert (title, last) == (FIRST.stem, f"1 of {len(NAMES)} exercises are solved")
    assert max(map(len, rows)) <= COLUMNS
    marks = {row.split()[0] for row in rows if not any(name in row for name in answers)}
    wrong, solved = (next(row for row in rows if name in row) for name in answers)
    assert (marks, wrong.split()[0], solved.split()[:2]) == ({"·"}, "✗", ["✓", "solved"])
    assert "make_windows" in wrong
    assert "x and y should be tables" in wrong
    assert wrong.endswith(" …")
