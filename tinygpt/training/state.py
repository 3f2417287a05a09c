"""What a resumed training needs beside the weights: the optimizers' averages, all random states."""

import torch
from torch import Tensor

from ..errors import CheckpointError
from ..text import Batches


def random_states(batches: Batches, device: torch.device) -> dict[str, Tensor]:
    """Every random state that training on a device draws from."""
    states = {"rng.data": batches.state(), "rng.cpu": torch.get_rng_state()}
    if device.type != "cpu":
        states["rng.device"] = getattr(torch, device.type).get_rng_state()
    return states


def restore_random_states(
    states: dict[str, Tensor], batches: Batches, device: torch.device
) -> None:
    """Put back what `random_states` gave."""
    batches.restore(states["rng.data"])
    torch.set_rng_state(states["rng.cpu"])
    if device.type != "cpu" and "rng.device" in states:
        getattr(torch, device.type).set_rng_state(states["rng.device"])


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
            index, key = name.removeprefix(prefix).split(".")
            state.setdefault(int(index), {})[key] = value = tensors[name]
            fits = int(index) < len(params) and value.shape in ((), params[int(index)].shape)
            if not fits:
                raise CheckpointError(
                    f"the optimizer's state of parameter {index}, {tuple(value.shape)}, does not "
                    f"fit; the run was trained with another optimizer or model"
                )
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": state, "param_groups": groups})
