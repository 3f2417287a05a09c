"""Where and how to compute: seeds, device, precision, what this machine has."""

import os
import platform
import subprocess
import sys
import threading
from contextlib import nullcontext
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import init
from torch.overrides import TorchFunctionMode

from .errors import ConfigError
from .files import ROOT


def seed_all(seed: int) -> None:
    """Seed torch's global generators (CPU and every CUDA device): notebooks call it once."""
    torch.manual_seed(seed)


def pick_device(device: str = "auto") -> torch.device:
    """`"auto"` is CUDA when present, else the CPU; any other name is taken as it is.

    Of several processes on a machine, which torchrun counts, each has a GPU of its own. Apple's MPS
    is used only when asked for: its numbers have differed too often.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and "LOCAL_RANK" in os.environ:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise ConfigError(
            f"device={device!r} is not a device; use 'auto', 'cpu', 'cuda' or 'mps'"
        ) from None
    if chosen.type not in ("cpu", "cuda", "mps"):
        raise ConfigError(f"device={device!r} cannot train; use 'auto', 'cpu', 'cuda' or 'mps'")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        way_out = f"at most {count} processes on this machine" if count else "'cpu'"
        way_out = way_out if "LOCAL_RANK" in os.environ else "'auto'"
        raise ConfigError(f"device={device!r}, but torch sees {count} CUDA devices; use {way_out}")
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError(f"device={device!r}, but torch sees no MPS device; use 'auto' or 'cpu'")
    return chosen


def computes_in(device: torch.device, precision: str = "auto") -> torch.dtype | None:
    """bf16 (`"auto"`: on CUDA only), or None: what the weights are in."""
    if precision == "auto":
        precision = "bf16" if device.type == "cuda" else "fp32"
    return torch.bfloat16 if precision == "bf16" else None


def autocast(device: torch.device, precision: str = "auto"):
    """A context in which matrix products run in bf16 (`"auto"`: on CUDA only) or float32."""
    dtype = computes_in(device, precision)
    return torch.autocast(device.type, dtype=dtype) if dtype else nullcontext()


class one_thread:
    """A context in which torch uses one CPU thread, if `when`.

    Steps as small as those of a small model gain nothing from more, and where other programs keep
    the cores busy, threads that wait for each other take ten times as long.

    Torch keeps the number for each thread of Python, and a new one takes what was set last, be it
    in here. So what is put back is the number that was found outside of all such contexts that are
    open, in whatever order they end. A generator must not yield in it: who takes what it yields
    would compute on one thread, too.
    """

    _open: ClassVar[list["one_thread"]] = []  # in all threads of Python
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, when: bool = True):
        self.when = when

    def __enter__(self) -> None:
        if not self.when:
            return
        self.caller = threading.get_ident()
        with self._lock:
            found = torch.get_num_threads()
            self.threads = max([found, *(other.threads for other in self._open)])
            self._open.append(self)
            torch.set_num_threads(1)

    def __exit__(self, *error) -> None:
        if not self.when:
            return
        with self._lock:
            self._open.remove(self)
            if all(other.caller != self.caller for other in self._open):
                torch.set_num_threads(self.threads)


class shapes_only(TorchFunctionMode):
    """A context in which a model is made of shapes without numbers: a large one costs nothing.

    To draw or to scale numbers that are not there, torch would first import its compiler, for as
    long as it takes to import torch itself; so what does only that is left out.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in (init.normal_, Tensor.normal_, Tensor.mul):
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        with torch.device("meta"):
            return (torch.empty if func is torch.randn else func)(*args, **kwargs)


def code_version() -> str:
    """The commit that the package's code is at, with a + if it was changed since.

    Where there is no repository, such as in a copy: $TINYGPT_COMMIT, else "unknown".
    """
    try:
        git = partial(subprocess.run, cwd=ROOT, capture_output=True, text=True, check=True)
        commit = git(["git", "rev-parse", "--short", "HEAD"]).stdout.strip()
        changed = git(["git", "status", "--porcelain", "--", "tinygpt"]).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("TINYGPT_COMMIT", "unknown")
    return f"{commit}+" if changed else commit


def processor(device: torch.device) -> str:
    """The GPU, or the CPU, by the name that its maker gave it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:  # not Linux
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def memory_size(device: torch.device) -> int | None:
    """Bytes of memory that a GPU, or this machine, has; None where that is not known."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows
        return None


def peak_memory(device: torch.device) -> dict[str, float]:
    """The most memory used so far, in GB, by the name of what it is: `peak_gpu_gb` of a GPU by
    torch, else `peak_rss_gb`, the resident set of the whole process; empty where that is not
    known."""
    if device.type == "cuda":
        return {"peak_gpu_gb": torch.cuda.max_memory_allocated(device) / 1e9}
    try:
        from resource import RUSAGE_SELF, getrusage
    except ImportError:  # Windows
        return {}
    unit = 1 if sys.platform == "darwin" else 1024
    return {"peak_rss_gb": getrusage(RUSAGE_SELF).ru_maxrss * unit / 1e9}


def environment() -> dict[str, str]:
    """What a bug report needs: versions, device, threads."""
    system = f"{platform.system()} {platform.machine()}"
    facts = {"python": sys.version.split()[0], "system": system}
    facts["torch"] = str(torch.__version__)  # with its build, which its package may not name
    packages = ("numpy", "pandas", "scipy", "matplotlib", "ipywidgets", "jupyterlab")
    for package in (*packages, "nbval", "transformers"):
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            facts[package] = "missing: run pip install -r requirements.txt"
    device = pick_device()
    facts["device"] = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    facts["threads"] = str(torch.get_num_threads())
    return facts
