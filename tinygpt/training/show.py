"""What a training shows, on any console: what cannot be shown never stops it."""

import sys
from contextlib import suppress
from typing import Any, TextIO

from ..progress import progress


class Shown:
    """A text stream that takes everything: what it cannot write becomes `?`, or is lost."""

    def __init__(self, stream: TextIO | None):
        self.stream = stream  # None: a program without a console

    def write(self, text: str) -> int:
        try:
            self.stream.write(text)
        except UnicodeEncodeError:
            known = self.stream.encoding or "ascii"
            self.write(text.encode(known, "replace").decode(known))
        except (OSError, ValueError, AttributeError):  # a closed pipe, a closed or no stream
            pass
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError, AttributeError):
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    # tqdm asks whether it writes to a console
    def __eq__(self, other: object) -> bool:
        return self.stream is getattr(other, "stream", other)

    def __hash__(self) -> int:
        return hash(self.stream)


def progress_bar(total: int, done: int, shown: bool) -> Any:
    """A bar of updates that are counted."""
    settings = {"total": total, "initial": done, "unit": "step", "file": Shown(sys.stderr)}
    try:
        return progress(**settings, disable=not shown)
    except (OSError, ValueError):  # it asks sys.stderr itself once
        return progress(**settings, disable=True)


def say(text: str) -> None:
    """Print a text, above the progress bar if there is one."""
    from tqdm import tqdm

    tqdm.write(text, file=Shown(sys.stdout))
