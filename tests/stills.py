"""Leaves of each widget in executed notebooks its sentence and its still picture.

Without a kernel JupyterLab would show "model not found" for it, and GitHub nothing.
`python -m tests.stills notebooks/0*.ipynb`
"""

import sys

import nbformat

WIDGET = "application/vnd.jupyter.widget-view+json"


def still(notebook: nbformat.NotebookNode) -> int:
    """Take the widgets that have something beside them out of a notebook; how many there were."""
    taken = 0
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if WIDGET in data and "text/html" in data:
                del data[WIDGET]
                taken += 1
    notebook.metadata.pop("widgets", None)
    return taken


def main(paths: list[str]) -> None:
    for path in paths:
        notebook = nbformat.read(path, as_version=4)
        print(f"{path}: {still(notebook)} widgets")
        nbformat.write(notebook, path)


if __name__ == "__main__":
    main(sys.argv[1:])
