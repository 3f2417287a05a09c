"""How a model learns: optimizers, checkpoints, the folder of a run, the loop."""

from .checkpoint import Checkpoint, load_checkpoint, read_settings, save_checkpoint
from .hooks import ExpertHooks
from .log import MetricsLogger
from .manifest import verify
from .optim import NEWTON_SCHULZ, Muon, lr_factor, make_optimizers, orthogonalize, set_lr
from .preflight import find_text, identity, used_before
from .pretrained import (
    load_pretrained,
    pretrained_place,
    save_pretrained,
    save_run,
    with_settings,
)
from .recorded import RecordedUpdate
from .run import (
    FORMER,
    RUNS,
    Run,
    checkpoints,
    find_run,
    latest_checkpoint,
    load_expert_tables,
    load_run,
    new_place,
    run_names,
    step_folder,
)
from .samples import write_samples
from .ship import Verified, export_run, verify_run
from .trainer import Trainer

__all__ = [
    "FORMER",
    "NEWTON_SCHULZ",
    "RUNS",
    "Checkpoint",
    "ExpertHooks",
    "MetricsLogger",
    "Muon",
    "RecordedUpdate",
    "Run",
    "Trainer",
    "Verified",
    "checkpoints",
    "export_run",
    "find_run",
    "find_text",
    "identity",
    "latest_checkpoint",
    "load_checkpoint",
    "load_expert_tables",
    "load_pretrained",
    "load_run",
    "lr_factor",
    "make_optimizers",
    "new_place",
    "orthogonalize",
    "pretrained_place",
    "read_settings",
    "run_names",
    "save_checkpoint",
    "save_pretrained",
    "save_run",
    "set_lr",
    "step_folder",
    "used_before",
    "verify",
    "verify_run",
    "with_settings",
    "write_samples",
]
