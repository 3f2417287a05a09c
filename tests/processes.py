"""Several processes that meet in one group, forked from a test: each calls the same function."""

import multiprocessing
import os
import pickle
import sys
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed

forks = pytest.mark.skipif(sys.platform != "linux", reason="forks, and meets over lo")
PATIENCE = 240  # seconds, after which the processes have been waiting for each other


def together(folder: Path, act: Callable[[], Any], world: int = 2) -> list[Any]:
    """What `act()` gives in each of `world` processes, by rank; None for one that was killed."""
    folder = folder / f"processes-{time.monotonic_ns()}"
    folder.mkdir()
    fork = multiprocessing.get_context("fork")
    started = [fork.Process(target=_meet, args=(r, world, folder, act)) for r in range(world)]
    for process in started:
        process.start()
    deadline = time.monotonic() + PATIENCE
    for process in started:
        process.join(max(0.0, deadline - time.monotonic()))
    stuck = [rank for rank, process in enumerate(started) if process.is_alive()]
    for process in started:
        process.kill()
    errors = "\n".join(path.read_text() for path in sorted(folder.glob("error-*")))
    assert not stuck, f"processes {stuck} wait for each other\n{errors}"
    assert not errors, errors
    results = [folder / f"result-{rank}" for rank in range(world)]
    return [pickle.loads(path.read_bytes()) if path.exists() else None for path in results]


def _meet(rank: int, world: int, folder: Path, act: Callable[[], Any]) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    meeting, wait = f"file://{folder / 'meeting'}", timedelta(seconds=PATIENCE)
    try:
        distributed.init_process_group("gloo", meeting, wait, world, rank)
        (folder / f"result-{rank}").write_bytes(pickle.dumps(act()))
        distributed.destroy_process_group()
    except BaseException:
        (folder / f"error-{rank}").write_text(traceback.format_exc())
        os._exit(1)
