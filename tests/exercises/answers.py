"""What the notebooks ask and answer: solutions and skeletons, read from them, and other answers."""

import ast
import json
import re
import textwrap
from collections.abc import Callable
from pathlib import Path


def cells(path: Path, kind: str) -> list[str]:
    """The sources of a notebook's cells of one kind."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return ["".join(c["source"]) for c in content["cells"] if c["cell_type"] == kind]


def solutions(path: Path) -> dict[str, str]:
    """The code of the folded solutions, by the name of the function each one defines.

    A core function's stands in a code cell, below `if not solved(name):`.
    """
    shown = r"^if not solved\((\w+)\):\n(.*?)(?=^\S|\Z)"
    core = [re.search(shown, text, re.M | re.S) for text in cells(path, "code")]
    pattern = r"<summary>Solution</summary>\s+```python\n(.*?)```"
    blocks = [textwrap.dedent(match[2]).strip("\n") for match in core if match] + [
        block for text in cells(path, "markdown") for block in re.findall(pattern, text, re.S)
    ]
    return {re.search(r"^def (\w+)", block, re.M)[1]: block for block in blocks}


def skeletons(path: Path) -> dict[str, str]:
    """The exercise cells (they end in `check(name)`), by the name of the function."""
    found = [(re.search(r"^check\((\w+)\)\s*\Z", text, re.M), text) for text in cells(path, "code")]
    return {match[1]: text for match, text in found if match}


def define(path: Path, name: str, code: str) -> Callable:
    """The function that `code` defines, given what the notebook imports at its start."""
    start = [node for text in cells(path, "code")[:3] for node in ast.parse(text).body]
    imports = [node for node in start if isinstance(node, (ast.Import, ast.ImportFrom))]
    names: dict = {}
    exec(compile(ast.Module(imports, []), str(path), "exec"), names)
    exec(code, names)
    return names[name]


def with_body(path: Path, name: str, body: str) -> Callable:
    """The function of an exercise, with the solution's arguments and another body."""
    arguments = re.search(r"def \w+\(.*?\)", solutions(path)[name])[0]
    return define(path, name, f"{arguments}:\n{textwrap.indent(body, '    ')}\n")
