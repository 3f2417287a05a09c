"""`lab`: the course in JupyterLab."""

from collections.abc import Sequence


def lab(arguments: Sequence[str]) -> int:
    """Open the course in JupyterLab; further flags go to JupyterLab (--no-browser, --port)."""
    from ..lab import open_lab

    return open_lab(list(arguments))
