"""`generate`: a text by a trained model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from ..config import TrainConfig, check_value
from .arguments import read_arguments
from .names import run_named


@dataclass(frozen=True)
class GenerateArgs:
    """Write text with a trained model."""

    run: Annotated[Positional[str], arg(metavar="RUN")]
    """a name under checkpoints/, or a path"""
    prompt: str = "\n"
    max_new_tokens: int = 500
    temperature: float = 0.8
    """0: always the most probable character; 1: the model's own distribution"""
    seed: int | None = None
    which: str = "best"
    """best (lowest validation loss) or latest"""
    device: str = "auto"


def generate(arguments: Sequence[str]) -> None:
    """Write text with a trained model."""
    import torch

    from ..decoding import generate_temperature
    from ..training import load_run

    args = read_arguments(GenerateArgs, "generate", arguments)
    if args.seed is not None:
        check_value(TrainConfig, "seed", args.seed)
    model = load_run(run_named(args.run), args.which, args.device)
    torch.seed()  # without --seed another text each time: a new process draws always alike
    print(
        generate_temperature(
            model, args.prompt, args.max_new_tokens, args.temperature, seed=args.seed
        )
    )
