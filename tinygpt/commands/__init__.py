"""The commands of `python -m tinygpt`, a file for each.

A file holds a frozen dataclass, whose fields are the command's flags and whose docstrings are
their help, and a function of the command's name, which takes the words after the name and returns
an exit code or None for 0. The first line of its docstring is its line in the usage. `table` lists
it. A function reads its words with `read_arguments`, finds presets and runs with `preset_named`
and `run_named`, imports what is slow to import inside, and prints its result; what the user can
mend it raises as `TinyGPTError`, of which `tinygpt.cli` makes one line and exit code 2, before
anything is written.
"""

from .names import did_you_mean
from .table import COMMANDS

__all__ = ["COMMANDS", "did_you_mean"]
