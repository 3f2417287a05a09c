"""What the tests of the exercises share: solutions and skeletons, read from the notebooks."""

import ast
import json
import re
from collections.abc import Callable
from pathlib import Path


def cells(path: Path, kind: str) -> list[str]:
    """The sources of a notebook's cells of one kind."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return ["".join(c["source"]) for c in content["cells"] if c["cell_type"] == kind]


def solutions(path: Path) -> dict[str, str]:
    """The code of the folded solutions, by the name of the function each one defines."""
    pattern = r"<summary>Solution</summary>\s+```python\n(.*?)```"
    blocks = [
        block for text in cells(path, "markdown") for block in re.findall(pattern, text, re.S)
    ]
    return {re.search(r"^def (\w+)", block, re.M)[1]: block for block in blocks}


def skeletons(path: Path) -> dict[str, str]:
    """The exercise cells (they end in `check(name)`), by the name of the function."""
    found = [(re.search(r"^check\((\w+)\)\s*\Z", text, re.M), text) for text in cells(path, "code")]
    return {match[1]: text for match, text in found if match}


def define(path: Path, name: str, code: str) -> Callable:
    """The function that `code` defines, given the imports of the notebook's first code cell."""
    tree = ast.parse(cells(path, "code")[0])
    imports = [n for n in tree.body if isinstance(n, (ast.Import, ast.ImportFrom))]
    names: dict = {}
    exec(compile(ast.Module(imports, []), str(path), "exec"), names)
    exec(code, names)
    return names[name]
