"""What a widget is given is checked here: one clear error before anything is drawn."""

import copy
import operator

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..model import TinyGPT
from ..text import Tokenizer


def reader(model: TinyGPT) -> TinyGPT:
    """The model for a widget to read with: the same weights and buffers, but in eval mode.

    A widget reads in between the updates of a training, and a text that is written stays open
    from one slice to the next. With a mode of its own neither disturbs the other.
    """
    if not isinstance(model, TinyGPT):
        raise ConfigError(
            f"model must be a TinyGPT, not {kind(model)}; load_run(name) gives one, and a "
            f"trainer has one: trainer.model"
        )
    check_tokenizer(model.tokenizer, "this model", "set model.tokenizer")
    symbols, V = model.tokenizer.vocab_size, model.config.vocab_size
    if symbols != V:
        raise ConfigError(
            f"the tokenizer has {symbols} symbols, the model's vocab_size is {V}; set "
            f"model.tokenizer to the one that it was trained with"
        )
    for name, p in model.named_parameters():
        if not torch.isfinite(p.detach()).all():
            raise ConfigError(
                f"the weights {name} hold NaN or infinity, and nothing can be read with them; "
                f"load the run anew, or train with a lower learning rate"
            )
    return _twin(model).eval()


def check_finite(x: Tensor, what: str) -> None:
    """Raise `ConfigError` if the model computes what is no number."""
    if not torch.isfinite(x).all():
        raise ConfigError(
            f"the model gives NaN or infinity as {what}; its weights are ruined: load the run "
            f"anew, or train with a lower learning rate"
        )


def _twin(module: nn.Module) -> nn.Module:
    """Other modules over the same parameters and buffers."""
    other = copy.copy(module)
    children = module._modules.items()
    other._modules = {name: child if child is None else _twin(child) for name, child in children}
    return other


def check_tokenizer(tokenizer: Tokenizer, owner: str, way_out: str) -> None:
    """Raise `ConfigError` unless it is one."""
    if tokenizer is None:
        raise ConfigError(f"{owner} has no tokenizer; {way_out}")
    if not isinstance(tokenizer, Tokenizer):
        raise ConfigError(
            f"the tokenizer of {owner} must be a Tokenizer, not {kind(tokenizer)}; {way_out}"
        )


def check_text(name: str, value: str) -> None:
    """Raise `ConfigError` unless it is one."""
    if not isinstance(value, str):
        raise ConfigError(f"{name} must be a text, not {kind(value)}")


def whole_number(name: str, value: int, low: int, high: int) -> int:
    """The value as an int; `ConfigError` unless it is one, from `low` to `high`."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or not low <= number <= high:
        raise ConfigError(f"{name}={_short(value)} must be a whole number from {low} to {high}")
    return number


def kind(value: object) -> str:
    """What somebody gave, in words: a model or a table would fill pages."""
    return "None" if value is None else f"a {type(value).__name__}"


def _short(value: object) -> str:
    words = repr(value)
    return words if len(words) <= 40 else f"{words[:40]}…"
