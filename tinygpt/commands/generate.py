"""`generate`: texts by a trained model."""

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Annotated, Any

from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, Positional, arg

from ..config import DecodingConfig, TrainConfig, check_value
from ..console import waiting
from ..errors import ConfigError
from .arguments import read_arguments, with_line_ends
from .names import model_named

MOST = 1000  # texts at once


@dataclass(frozen=True)
class GenerateArgs:
    r"""Write text with a trained model.

    In --prompt, --stop, --banned and --allowed \n is a line end.
    """

    run: Annotated[Positional[str], arg(metavar="RUN")]
    """a name under checkpoints/, or a path; also a folder of transformers, or a name on the hub"""
    prompt: Annotated[str, arg(help_behavior_hint=r"(default: \n)")] = "\n"
    """what the text begins with"""
    max_new_tokens: Annotated[int, arg(aliases=["--max-tokens"])] = 500
    """tokens after the prompt, at most"""
    num_samples: int = 1
    """so many texts, each from its own seed: --seed, the next number, …"""
    seed: Annotated[int | None, arg(metavar="INT", help_behavior_hint="")] = None
    """the same text each time; default: another one each time"""
    stream: Annotated[FlagCreatePairsOff[bool], arg(help_behavior_hint="")] = False
    """show each character as soon as it is complete"""
    which: str = "best"
    """best (lowest validation loss) or latest, or the name of a checkpoint's folder"""
    device: str = "auto"
    """auto: CUDA when present, else CPU"""
    decoding: Annotated[OmitArgPrefixes[DecodingConfig], arg(help="")] = field(
        default_factory=lambda: DecodingConfig(temperature=0.8)
    )


def generate(arguments: Sequence[str]) -> None:
    """Write text with a trained model."""
    from ..runtime import pick_device

    args = read_arguments(GenerateArgs, "generate", arguments, repeatable=True)
    if args.seed is not None:
        check_value(TrainConfig, "seed", args.seed)
    if not 1 <= args.num_samples <= MOST:
        raise ConfigError(f"num_samples={args.num_samples} must be between 1 and {MOST}")
    model = model_named(args.run, args.which).to(pick_device(args.device))
    seed = secrets.randbelow(2**31) if args.seed is None else args.seed
    texts = (_streamed if args.stream else _written)(model, args, seed)
    for number, pieces in enumerate(texts):
        if args.num_samples > 1:
            print(f"{chr(10) if number else ''}--- {number + 1}: --seed {seed + number}")
        for piece in pieces:
            print(piece, end="", flush=args.stream)
        print(flush=args.stream)


def _written(model, args: GenerateArgs, seed: int) -> Iterator[list[str]]:
    """All texts at once, side by side."""
    from ..decoding import generate_batch

    prompts = [with_line_ends(args.prompt)] * args.num_samples
    with waiting(f"writing up to {args.max_new_tokens:,} tokens; --stream shows each at once"):
        texts = generate_batch(model, prompts, args.max_new_tokens, seed=seed, **_options(args))
    yield from ([text] for text in texts)


def _streamed(model, args: GenerateArgs, seed: int) -> Iterator[Iterator[str]]:
    """The same, one after another and piece by piece."""
    from ..decoding import stream

    prompt, options = with_line_ends(args.prompt), _options(args)
    for number in range(args.num_samples):
        pieces = stream(model, prompt, args.max_new_tokens, seed=seed + number, **options)
        yield chain([prompt], pieces)


def _options(args: GenerateArgs) -> dict[str, Any]:
    """The settings of the decoding by name."""
    config, line_ends = args.decoding, with_line_ends
    texts = {
        "stop": tuple(map(line_ends, config.stop)),
        "banned": line_ends(config.banned),
        "allowed": config.allowed and line_ends(config.allowed),
    }
    return vars(replace(config, **texts))
