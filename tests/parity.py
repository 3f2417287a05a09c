"""transformers' classes with our weights."""

from pathlib import Path
from tempfile import TemporaryDirectory

from transformers import AutoModelForCausalLM, PreTrainedModel

from tinygpt import TinyGPT
from tinygpt.model import write_pretrained


def as_theirs(model: TinyGPT) -> PreTrainedModel:
    """The model as transformers loads what is written of it: nothing missing, nothing too much."""
    with TemporaryDirectory() as folder:
        write_pretrained(model, Path(folder))
        theirs, told = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(told.values()), told
    return theirs.eval()
