"""What the checks of several notebooks share."""

import torch
from torch import Tensor

from . import words
from .registry import NotYet

COUNTS = {2: "two", 3: "three"}


def expect(condition: bool, message: str) -> None:
    """Raise `NotYet` unless the condition holds."""
    if not condition:
        raise NotYet(message)


def is_tensor(result) -> Tensor:
    """The result, if it is a tensor."""
    wrong = f"a tensor is asked, but you return {shown(result)}.{_way_out(result)}"
    expect(isinstance(result, Tensor), wrong)
    return result


def tensors(result, asked: str) -> list[Tensor]:
    """The tensors that `return asked` gives, `asked` such as "experts, weights"."""
    names = asked.split(", ")
    expect(
        isinstance(result, (tuple, list)) and len(result) == len(names),
        f"{COUNTS[len(names)]} tensors are asked, `return {asked}`, but you return "
        f"{shown(result)}.",
    )
    for name, part in zip(names, result, strict=True):
        wrong = f"{name} should be a tensor, and is {shown(part)}.{_way_out(part)}"
        expect(isinstance(part, Tensor), wrong)
    return list(result)


def _way_out(result) -> str:
    """How what is no tensor becomes one."""
    if isinstance(result, list):
        return " A list becomes one by torch.tensor(...), a list of tensors by torch.stack(...)."
    is_tuple = isinstance(result, tuple)
    return " That is a tuple: is there a comma too many?" if is_tuple else ""


def is_number(result) -> float:
    """The result as a number, if it is one."""
    expect(result is not None, "the function returns None: is a `return` missing?")
    if isinstance(result, Tensor):
        expect(
            result.numel() == 1,
            f"one number is asked, but you return a tensor of shape {tuple(result.shape)}: is a "
            f"mean or a sum missing?",
        )
        return result.item()
    no_number = f"one number is asked, but you return {shown(result)}."
    expect(not isinstance(result, (str, bytes)), no_number)  # float would read it
    try:
        return float(result)
    except (TypeError, ValueError):
        raise NotYet(no_number) from None


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
