"""The project's own files: dependency lists that agree, a README that says what CI runs."""

import ast
import re
import tomllib
from pathlib import Path

from tinygpt.files import ROOT

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


def reading_order() -> list[str]:
    """All modules in the order of the README's table, files of a room as `room.file`."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = readme[readme.index("| room | what lives there") :].split("\n\n")[0]
    order = []
    for row in table.splitlines()[2:]:
        _, rooms, _, files, _ = row.split("|")
        (*single, last), files = re.findall(r"`(\w+)`", rooms), re.findall(r"`(\w+)`", files)
        order += single + ([f"{last}.{file}" for file in files] if files else [last])
    return order


def imports(path: Path, room: str) -> set[str]:
    """The modules of the package that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            start = [room] if room and node.level == 1 else []
            start += node.module.split(".") if node.module else []
            names = [[]] if node.module else [[alias.name] for alias in node.names]
            found |= {".".join(start + name) for name in names}
    return found


def test_no_module_imports_a_later_one():
    """The reading order of the package is its order of imports, so there are no circles."""
    order, package = reading_order(), ROOT / "tinygpt"
    paths = [p for p in package.rglob("*.py") if not p.stem.startswith("__")]
    modules = {".".join(p.relative_to(package).with_suffix("").parts): p for p in paths}
    assert set(order) == set(modules), "the README's table lists every file once"
    assert len(order) == len(modules)
    rooms = list(dict.fromkeys(name.split(".")[0] for name in order))
    for name, path in modules.items():
        room = name.split(".")[0] if "." in name else ""
        for other in imports(path, room):
            if other.split(".")[0] == room:
                assert order.index(other) < order.index(name), f"{name} imports {other}"
            else:
                earlier = rooms.index(other.split(".")[0]) < rooms.index(name.split(".")[0])
                assert earlier, f"{name} imports {other}"


def test_the_readmes_test_command_is_what_ci_runs():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    command = re.search(r"<!-- test command -->\n```sh\n(.+)\n```", readme)
    assert command
    assert "pip install -r requirements.txt -e" in command[1]
    assert command[1].endswith("pytest")
    assert "test command" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_every_picture_that_is_shown_exists():
    for path in [ROOT / "README.md", *(ROOT / "notebooks").glob("*.ipynb")]:
        text = path.read_text(encoding="utf-8")
        for name in re.findall(r"imgs/([\w.-]+)", text):
            assert (ROOT / "imgs" / name).is_file(), f"{path.name} shows imgs/{name}"
