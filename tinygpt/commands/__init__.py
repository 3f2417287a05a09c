"""The commands of `python -m tinygpt`, a file for each.

A file holds a frozen dataclass, whose fields are the command's flags and whose docstrings are
their help, and a function of the command's name, which takes the words after the name and returns
an exit code or None for 0. The first line of its docstring is its line in the usage. `table` lists
it, and `completion` its flags.

A function reads its words with `read_arguments`, finds presets, runs and models with
`preset_named`, `run_named` and `model_named`, imports what is slow to import inside, and prints its
result. Settings that the package has a dataclass for are a field of it, in a box of its own:
`decoding: OmitArgPrefixes[DecodingConfig]`. What the user can mend is raised as `TinyGPTError`, of
which `tinygpt.cli` makes one line and exit code 2, before anything is written.
"""

from .completion import complete
from .names import did_you_mean
from .table import COMMANDS

__all__ = ["COMMANDS", "complete", "did_you_mean"]
