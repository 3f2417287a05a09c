"""Progress on one line: a bar on a console, a line of text in a notebook.

A widget would be nothing but "model not found" for whoever reads the notebook without a kernel.
"""

import io
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm import tqdm


def progress(**settings: Any) -> "tqdm":
    """A bar of tqdm with its settings; in a notebook a line that is written anew."""
    from tqdm import tqdm

    line = None if settings.get("disable") else _line()
    if line is None:
        return tqdm(**settings)

    class Line(tqdm):
        monitor_interval = 0  # no thread: its output would land in another cell

        def display(self, msg: str | None = None, pos: int | None = None) -> bool:
            line.update({"text/plain": str(self) if msg is None else msg}, raw=True)
            return True

    return Line(**settings | {"file": io.StringIO(), "ncols": 90})


def _line() -> Any:
    """A place in the cell's output whose text can be changed; None where there is no notebook."""
    shell = "IPython" in sys.modules and sys.modules["IPython"].get_ipython()
    if not hasattr(shell, "kernel"):
        return None
    from IPython.display import display

    return display({"text/plain": ""}, raw=True, display_id=True)
