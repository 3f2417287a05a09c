"""Checks of the notebooks' exercises. Hints and solutions are folded into the notebooks.

>>> from tinygpt.exercises import check
>>> def one_hot(ids, vocab_size):
...     ...  # your code
...     return ...
>>> check(one_hot)
one_hot: not attempted yet (it returns ...)
"""

# the checks register themselves
from . import nb01, nb02, nb02_model, nb03, nb04, nb05, nb06, nb07, nb08  # noqa: F401
from .guess import reveal
from .lesson import solved
from .progress import Verdict, progress, progress_table
from .registry import NotYet, check, examine, exercises
from .tools import expect

__all__ = [
    "NotYet",
    "Verdict",
    "check",
    "examine",
    "exercises",
    "expect",
    "progress",
    "progress_table",
    "reveal",
    "solved",
]
