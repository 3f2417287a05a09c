"""The project's own files: dependency lists that agree, a README that says what CI runs."""

import re
import tomllib

from tinygpt.files import ROOT

READING_ORDER = [
    *("errors", "files", "runtime", "config", "tokenizer", "tinyplays", "data", "layers"),
    *("moe", "model", "filters", "decoding", "plots", "metrics", "checkpoint", "optim", "trainer"),
    *("widgets", "exercises", "benchmark", "lab", "cli"),
]

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


def test_no_module_imports_a_later_one():
    """The reading order of the package is its order of imports, so there are no circles."""
    modules = {p.stem: p for p in (ROOT / "tinygpt").glob("*.py") if not p.stem.startswith("__")}
    modules |= {p.name: p / "__init__.py" for p in (ROOT / "tinygpt").glob("[a-z]*/")}
    assert set(modules) == set(READING_ORDER)
    for name, path in modules.items():
        source = path.read_text(encoding="utf-8")
        imported = re.findall(r"from \.+(\w+) import", source)
        imported += re.findall(r"^\s*from \. import (\w+)", source, flags=re.M)
        for other in set(imported) & set(READING_ORDER) - {name}:
            earlier = READING_ORDER.index(other) < READING_ORDER.index(name)
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
