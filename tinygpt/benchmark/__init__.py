"""Speed, measured so that it can be trusted: one file per question."""

from .decoding import decoding_speed
from .model import model_speed
from .moe import moe_speed
from .report import Report, machine
from .scale import token_cost
from .step import step_time
from .time_to_loss import GOAL, read_runs, report_of, time_to_loss
from .timing import take_turns
from .twins import dense_twin, dense_twins

__all__ = [
    "GOAL",
    "Report",
    "decoding_speed",
    "dense_twin",
    "dense_twins",
    "machine",
    "model_speed",
    "moe_speed",
    "read_runs",
    "report_of",
    "step_time",
    "take_turns",
    "time_to_loss",
    "token_cost",
]
