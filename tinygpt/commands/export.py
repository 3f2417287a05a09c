"""`export`: a model as a folder that transformers loads."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from ..console import waiting
from ..files import resolve
from .arguments import read_arguments
from .names import model_named


@dataclass(frozen=True)
class ExportArgs:
    """Write a run's best model as a folder that transformers loads, with equal logits.

    GPT-2, Llama, Qwen2, Qwen3, Mixtral, Qwen2-MoE or Qwen3-MoE, by its shape; what none of these
    can hold is refused with the reason.
    """

    run: Annotated[Positional[str], arg(metavar="RUN")]
    """a name under checkpoints/, or a path"""
    out: Annotated[str, arg(metavar="FOLDER")]
    """a folder that does not exist yet"""


def export(arguments: Sequence[str]) -> None:
    """Write a run's model as a folder that transformers loads."""
    args = read_arguments(ExportArgs, "export", arguments)

    from ..training import save_pretrained

    model = model_named(args.run)
    with waiting(f"writing {args.out}"):
        save_pretrained(model, args.out)
    folder = str(resolve(args.out))
    print(f"for transformers: AutoModelForCausalLM.from_pretrained({folder!r})")
