"""What a shell needs to complete commands and flags when the tabulator is pressed."""

from collections.abc import Sequence

from tyro.extras import subcommand_cli_from_dict

from .benchmark import BenchmarkArgs
from .compare import CompareArgs
from .data import DataArgs
from .export import ExportArgs
from .generate import GenerateArgs
from .info import InfoArgs
from .progress import ProgressArgs
from .routing import RoutingArgs
from .train import ExpertArgs
from .upcycle import UpcycleArgs
from .verify import VerifyArgs

FLAGS = {
    "progress": ProgressArgs,
    "data": DataArgs,
    "train": ExpertArgs,
    "generate": GenerateArgs,
    "upcycle": UpcycleArgs,
    "export": ExportArgs,
    "compare": CompareArgs,
    "verify": VerifyArgs,
    "benchmark": BenchmarkArgs,
    "routing": RoutingArgs,
    "info": InfoArgs,
}


def complete(words: Sequence[str]) -> None:
    """Obey `--tyro-print-completion bash` (zsh, fish) or `--tyro-write-completion bash FILE`."""
    subcommand_cli_from_dict(FLAGS, prog="tinygpt", args=list(words))
