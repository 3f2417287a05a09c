"""Checks of the notebooks' exercises. Hints and solutions are folded into the notebooks.

>>> from tinygpt.exercises import check
>>> def one_hot(ids, vocab_size):
...     ...  # your code
...     return ...
>>> check(one_hot)
one_hot: not attempted yet (it returns ...)
"""

from . import nb01, nb02, nb02_model, nb03, nb04, nb05  # noqa: F401 (the checks register themselves)
from .guess import reveal
from .registry import NotYet, check, examine
from .tools import expect

__all__ = [
    "NotYet",
    "check",
    "examine",
    "expect",
    "reveal",
]
