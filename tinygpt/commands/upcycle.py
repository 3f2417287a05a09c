"""`upcycle`: a trained dense model as the start of a mixture."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from ..console import waiting
from .arguments import read_arguments
from .names import with_tokenizer


@dataclass(frozen=True)
class UpcycleArgs:
    """Make a mixture of a trained dense model: its outputs are the same until it is trained on.

    What is written is a run: generate and info take it, and train --init goes on from it.
    """

    source: Annotated[Positional[str], arg(metavar="SOURCE")]
    """a run (its name or path), a folder of transformers, or a name on the hub"""
    out: Annotated[str, arg(metavar="RUN")]
    """folder of the new run: a name under checkpoints/, or a path"""
    n_experts: int = 8
    """in all"""
    top_k: int = 2
    """experts per token"""
    granularity: int = 1
    """cut each copy into so many narrower experts; n-experts and top-k are multiples of it"""
    reinit: float = 0.0
    """share of each expert's hidden units that is drawn anew; the outputs are then others"""
    every: int = 1
    """of every so many blocks the last gets experts"""
    first_dense: int = 0
    """the first blocks stay dense"""
    balance: Literal["loss", "bias", "none"] = "loss"
    """what keeps the load even in training; with bias, no class of transformers holds the result"""
    seed: int = 0
    """of the routers, and of what reinit draws"""


def upcycle(arguments: Sequence[str]) -> None:
    """Make a mixture of a trained dense model, to train on with train --init."""
    args = read_arguments(UpcycleArgs, "upcycle", arguments)

    from ..measure import count_parameters
    from ..model import experts_of_copies
    from ..model import upcycle as upcycled
    from ..training import new_place, save_run

    place = new_place(args.out)
    options = {name: value for name, value in vars(args).items() if name not in ("source", "out")}
    experts_of_copies(**options)  # what is wrong with them is said before a model is fetched
    dense = with_tokenizer(args.source)
    with waiting(f"making the experts, writing {args.out}"):
        mixture = upcycled(dense, **options)
        save_run(mixture, place)
    counts = count_parameters(mixture)
    print(f"the run is in {place}: {counts.total:,} parameters, {counts.active:,} active per token")
