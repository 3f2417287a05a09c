"""The studies that can be made, by name."""

from .experts import BABY, LAPTOP, NOTEBOOK

STUDIES = {design.name: design for design in (NOTEBOOK, LAPTOP, BABY)}
