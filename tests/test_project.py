"""The project's own files: dependency lists that agree, a README that says what CI runs."""

import ast
import json
import re
import tomllib

import pandas as pd
import pytest

from tests import architecture, study_table
from tinygpt.files import ROOT

MODULES, ROOMS = architecture.modules(), sorted((ROOT / "tinygpt").glob("*/__init__.py"))
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def requirements() -> list[str]:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def test_requirements_cover_the_package_with_the_same_ranges():
    listed = requirements()
    assert "-e ." in listed
    assert set(PYPROJECT["project"]["dependencies"]) <= set(listed)


def test_every_module_is_in_the_package():
    packages = {p.parent.relative_to(ROOT) for p in (ROOT / "tinygpt").rglob("__init__.py")}
    named = PYPROJECT["tool"]["setuptools"]["packages"]
    assert {".".join(p.parts) for p in packages} == set(named)


def test_the_readmes_table_lists_every_file_once():
    assert sorted(architecture.reading_order()) == sorted(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_a_file_imports_earlier_rooms_and_earlier_files_of_its_room(name):
    """The reading order of the package is its order of imports, so there are no circles.

    Another room is imported by its public names, never one of its files.
    """
    order, room = architecture.reading_order(), name.split(".")[0]
    earlier = order[: order.index(name)]
    files = {other for other in earlier if other.startswith(f"{room}.")}
    rooms = {other.split(".")[0] for other in earlier} - {room}
    assert architecture.imports(MODULES[name]) <= files | rooms


@pytest.mark.parametrize("path", ROOMS, ids=lambda path: path.parent.name)
def test_a_room_says_what_lives_there_and_exports_each_name_once(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), "a sentence says what lives there"
    imported = [
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module  # not the mere `from . import x`
        for alias in node.names
    ]
    exported = ast.literal_eval(tree.body[-1].value)  # `__all__ = [...]`, which ruff sorts
    assert sorted(exported) == sorted(imported)
    assert len(exported) == len(set(exported))


def test_the_picture_of_the_package_is_drawn_from_its_table_and_its_imports():
    drawn = architecture.PICTURE.read_text(encoding="utf-8")
    assert drawn == architecture.picture(), "draw it anew: python -m tests.architecture"


def test_the_study_in_the_readme_is_that_of_the_tables():
    readme = study_table.README.read_text(encoding="utf-8")
    assert "<!-- study notebook -->" in readme
    assert readme == study_table.written(), "write it anew: python -m tests.study_table"


def test_the_loss_of_tiny_in_the_readme_is_that_of_its_stored_runs():
    runs = pd.read_csv(ROOT / "checkpoints" / "moe_arms.csv")
    losses = runs[runs["arm"] == "dense"]["val_loss"]
    said = f"| {losses.mean():.3f} ± {losses.std():.3f} ({len(losses)} seeds) |"
    lines = study_table.README.read_text(encoding="utf-8").splitlines()
    (line,) = [
        line for line in lines if line.startswith("| `python -m tinygpt train --preset tiny`")
    ]
    assert line.endswith(said)


def test_the_figures_of_sparse_158m_in_the_readme_are_those_of_its_stored_measure():
    folder = ROOT / "checkpoints" / "whole_size"
    rows = pd.DataFrame(json.loads((folder / "benchmark.json").read_text())["rows"])
    times = rows[rows["what"] == "forward, batch 1"].set_index("model")["times"]
    made = json.loads((folder / "summary.json").read_text())
    assert (made["updates"], made["tokens"], made["parameters"]) == (4, 4096, 158_623_744)
    readme = " ".join(study_table.README.read_text(encoding="utf-8").split())
    assert f"took {made['seconds'] / 4:.1f} s of both cores for an update of 1,024 token" in readme
    assert f"reads a window {times['dense, equal total']:.1f} times as fast" in readme
    assert f"at {times['dense, equal active']:.2f} of the speed of that of its active" in readme


def test_a_room_imports_only_from_floors_above_its_own():
    plan, needed = architecture.floors(), architecture.room_imports()
    assert [room for floor in plan for room in floor] == architecture.rooms()
    above: set[str] = set()
    for floor in plan:
        assert all(needed[room.name] <= above for room in floor)
        above |= {room.name for room in floor}


def test_the_readmes_test_command_is_what_ci_runs():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    command = re.search(r"<!-- test command -->\n```sh\n(.+)\n```", readme)
    assert command
    assert "pip install -r requirements.txt -e" in command[1]
    assert command[1].endswith("pytest")
    run = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "test command" in run
    (slow,) = re.findall(r"the slow tier \(`pytest (.+?)`\)", readme)
    assert f'"$bin/pytest" {slow}\n' in run


def test_every_picture_that_is_shown_exists():
    for path in [ROOT / "README.md", *(ROOT / "notebooks").glob("*.ipynb")]:
        text = path.read_text(encoding="utf-8")
        for name in re.findall(r"imgs/([\w.-]+)", text):
            assert (ROOT / "imgs" / name).is_file(), f"{path.name} shows imgs/{name}"
