"""The studies that can be made, by name."""

from .experts import BABY, LAPTOP, NOTEBOOK
from .portuguese import PORTUGUESE
from .stories import STORIES
from .upcycled import UPCYCLING

STUDIES = {
    design.name: design for design in (NOTEBOOK, LAPTOP, BABY, PORTUGUESE, STORIES, UPCYCLING)
}
