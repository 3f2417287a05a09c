"""Several processes that meet in one group, forked from a test: each calls the same function."""

import os
import pickle
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed, multiprocessing

forks = pytest.mark.skipif(sys.platform != "linux", reason="forks, and meets over lo")
PATIENCE = 120  # seconds, after which a launch hangs


def together(folder: Path, act: Callable[..., Any], *args: Any, world: int = 2) -> list[Any]:
    """What `act(*args)` gives in each of `world` processes, by rank.

    Raises what one of them raised first, and kills all when they take too long.
    """
    folder = folder / f"processes-{time.monotonic_ns()}"
    folder.mkdir()
    context = multiprocessing.start_processes(
        _meet, (world, folder, act, args), nprocs=world, join=False, start_method="fork"
    )
    deadline = time.monotonic() + PATIENCE
    try:
        while not context.join(timeout=1):
            assert time.monotonic() < deadline, "the processes wait for each other"
    finally:
        for process in context.processes:
            process.kill()
    return [pickle.loads((folder / str(rank)).read_bytes()) for rank in range(world)]


def _meet(rank: int, world: int, folder: Path, act: Callable[..., Any], args: tuple) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    meeting = f"file://{folder / 'meeting'}"
    wait = timedelta(seconds=PATIENCE)
    distributed.init_process_group(
        "gloo", init_method=meeting, rank=rank, world_size=world, timeout=wait
    )
    result = act(*args)
    (folder / str(rank)).write_bytes(pickle.dumps(result))
    distributed.destroy_process_group()
