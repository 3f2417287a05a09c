"""What a resumed training needs beside the weights: where it stood, averages, random states."""

import math
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..corpora import Batches
from ..errors import CheckpointError
from ..ranks import part
from .optim import Muon

# what a checkpoint says of the training, beside tensors: attributes of the trainer, by their type
STATE = {
    "step": int,
    "best_step": int,
    "best_val_loss": float,
    "bad_evaluations": int,
    "seconds": float,
    "grad_norm": float,
}
LATER = {"max_steps": int, "tokens_seen": int}  # older checkpoints lack them
AVERAGES = {torch.optim.AdamW: {"step", "exp_avg", "exp_avg_sq"}, Muon: {"momentum_buffer"}}


def check_state(state: dict[str, Any], path: Path) -> None:
    """Raise `CheckpointError` unless a state.json says what a checkpoint has to say."""
    for name, kind in (STATE | {n: kind for n, kind in LATER.items() if n in state}).items():
        value = state.get(name)
        # NaN is no loss, but the gradient norm before the first update; True is no number
        right = type(value) in (int, kind) and (value >= 0 or name == "grad_norm")
        if not right or sys.float_info.max < value < math.inf:
            raise CheckpointError(f"{path} says {name}={value!r:.99}, which cannot be")
    if state["best_step"] > state["step"]:
        raise CheckpointError(f"{path} says that the best step, {state['best_step']}, is to come")


def random_states(batches: Batches, device: torch.device) -> dict[str, Tensor]:
    """Every random state that training on a device draws from."""
    states = {"rng.data": batches.state(), "rng.cpu": torch.get_rng_state()}
    if device.type != "cpu":
        states["rng.device"] = getattr(torch, device.type).get_rng_state()
    return states


def restore_random_states(
    states: dict[str, Tensor], batches: Batches, device: torch.device
) -> None:
    """Put back what `random_states` gave; `CheckpointError` if it did not."""
    try:
        batches.restore(states["rng.data"])
        torch.set_rng_state(states["rng.cpu"])
        if device.type != "cpu" and "rng.device" in states:
            getattr(torch, device.type).set_rng_state(states["rng.device"])
    except (KeyError, RuntimeError, TypeError) as error:
        raise CheckpointError(f"the random states cannot be put back: {error!r}") from error


def optimizer_tensors(optimizers: list[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """Every optimizer's averages, named by optimizer, parameter and average."""
    return {
        f"optimizer.{i}.{index}.{key}": torch.as_tensor(value)
        for i, optimizer in enumerate(optimizers)
        for index, averages in optimizer.state_dict()["state"].items()
        for key, value in averages.items()
    }


def restore_optimizers(optimizers: list[torch.optim.Optimizer], tensors: dict[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave; `CheckpointError` if it was of other optimizers."""
    for i, optimizer in enumerate(optimizers):
        prefix = f"optimizer.{i}."
        params = [p for group in optimizer.param_groups for p in group["params"]]
        state: dict[int, dict[str, Tensor]] = {}
        for name in (name for name in tensors if name.startswith(prefix)):
            index, _, key = name.removeprefix(prefix).partition(".")
            number = int(index) if index.isdecimal() and len(index) < 9 else len(params)
            state.setdefault(number, {})[key] = value = tensors[name]
            if number >= len(params) or value.shape not in ((), params[number].shape):
                raise _of_another(index, value)
            if value.shape:
                state[number][key] = part(value, params[number])
        for number, averages in state.items():
            if averages.keys() != AVERAGES[type(optimizer)]:
                raise _of_another(str(number), *averages.values())
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": state, "param_groups": groups})


def training_tensors(
    optimizers: list[torch.optim.Optimizer], batches: Batches, device: torch.device
) -> dict[str, Tensor]:
    """All that a training needs beside weights and numbers, to go on exactly where it stands."""
    return random_states(batches, device) | optimizer_tensors(optimizers)


def restore_training(
    tensors: dict[str, Tensor],
    optimizers: list[torch.optim.Optimizer],
    batches: Batches,
    device: torch.device,
) -> None:
    """Put back what `training_tensors` gave; `CheckpointError` if it did not."""
    restore_optimizers(optimizers, tensors)
    restore_random_states(tensors, batches, device)


def _of_another(parameter: str, *found: Tensor) -> CheckpointError:
    shapes = ", ".join(str(tuple(value.shape)) for value in found)
    return CheckpointError(
        f"the optimizer's state of parameter {parameter}, {shapes}, does not fit; the run was "
        f"trained with another optimizer or model"
    )
