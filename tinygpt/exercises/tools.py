"""What the checks of several notebooks share."""

import torch
from torch import Tensor

from . import words
from .registry import NotYet


def expect(condition: bool, message: str) -> None:
    """Raise `NotYet` unless the condition holds."""
    if not condition:
        raise NotYet(message)


def is_tensor(result) -> Tensor:
    """The result, if it is a tensor."""
    if isinstance(result, Tensor):
        return result
    way_out = ""
    if isinstance(result, list):
        way_out = " A list becomes one by torch.tensor(...), a list of tensors by torch.stack(...)."
    elif isinstance(result, tuple):
        way_out = " A comma too many makes a tuple."
    raise NotYet(f"a tensor is asked, but you return {_with_kind(result)}.{way_out}")


def is_number(result) -> float:
    """The result as a number, if it is one."""
    expect(result is not None, "the function returns None: is a `return` missing?")
    if isinstance(result, Tensor):
        if result.numel() != 1:
            raise NotYet(
                f"one number is asked, but you return a tensor of shape {tuple(result.shape)}: is "
                f"a sum missing?"
            )
        return result.item()
    text = isinstance(result, (str, bytes))
    if text or not hasattr(result, "__float__"):  # float() would also read a text
        raise NotYet(f"one number is asked, but you return {_with_kind(result)}.")
    return float(result)


def _with_kind(result) -> str:
    """What was returned, and what kind of thing it is."""
    kind = type(result).__name__
    return shown(result) if result is None else f"a {kind}, {shown(result)}"


def short(values: Tensor) -> list[float]:
    """Numbers as they stand in a message; a rounded zero has no sign."""
    return [round(value, 4) + 0.0 for value in values.tolist()]


def shown(result) -> str:
    """What was returned, as it stands in a message."""
    return "None (is a `return` missing?)" if result is None else words.shown(result)


def diagnose(
    got: Tensor, right: Tensor, mistakes: list[tuple[Tensor, str]], name: str, seen: str = ""
) -> None:
    """Raise `NotYet` unless two tensors are near, with the mistake that gives what was got."""
    if torch.allclose(got.float(), right, atol=1e-5):
        return
    for values, why in mistakes:
        if torch.allclose(got.float(), values.float(), atol=1e-5):
            raise NotYet(seen + why)
    raise NotYet(
        f"{seen}The {name} should be {short(right.flatten())}, but yours are "
        f"{short(got.flatten())}."
    )
