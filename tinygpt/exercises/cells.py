"""A learner's copy of a notebook: where the answers are, and what they need of the rest."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

from ..errors import TinyGPTError

DEFINING = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)


def code_cells(notebook: Path) -> list[str]:
    """The sources of the code cells; `TinyGPTError` for what is no notebook."""
    try:
        cells = json.loads(notebook.read_bytes())["cells"]
        return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise TinyGPTError(
            f"{notebook} is damaged, or no notebook; rename it, and `python -m tinygpt lab` "
            f"copies a new one"
        ) from None


def checked(cells: list[str]) -> set[str]:
    """The functions that are checked: by a line `check(name)` of their own."""
    return {name for cell in cells for name in re.findall(r"^check\((\w+)\)", cell, re.M)}


def place_of(name: str, cells: list[str]) -> int | None:
    """Which cell defines the function, the last one if it is done twice; else which checks it."""
    for pattern in (rf"^def {name}\b", rf"^check\({name}\)"):
        found = [i for i, cell in enumerate(cells) if re.search(pattern, cell, re.M)]
        if found:
            return found[-1]
    return None


def is_skeleton(cell: str, name: str) -> bool:
    """Whether all that the function of this name can return is the `...` it came with."""
    found = [n for n in _parsed(cell) if isinstance(n, ast.FunctionDef) and n.name == name]
    returns = [n for function in found for n in ast.walk(function) if isinstance(n, ast.Return)]
    dots = [n for n in returns if isinstance(n.value, ast.Constant) and n.value.value is ...]
    return bool(dots) and len(dots) == len(returns)


def definitions(cells: list[str]) -> Iterator[tuple[int, ast.stmt]]:
    """What costs nothing to run: imports, functions, classes, plain values; with their cells."""
    for number, cell in enumerate(cells):
        for node in _parsed(cell):
            calls = any(isinstance(part, ast.Call) for part in ast.walk(node))
            if isinstance(node, DEFINING) or (isinstance(node, ast.Assign) and not calls):
                yield number, node


def _parsed(cell: str) -> list[ast.stmt]:
    try:
        return ast.parse(cell).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # not finished yet
        return []
