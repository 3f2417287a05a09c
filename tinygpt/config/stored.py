"""Settings as JSON, also as older versions wrote them."""

from dataclasses import MISSING, asdict, fields, is_dataclass
from typing import Any, TypeVar

from ..checks import check, rules
from .train import TrainConfig

Config = TypeVar("Config")


def unusual(settings: Any) -> dict[str, Any]:
    """The settings of a dataclass that have not their default value, by name: what tells recipes
    apart, also when a setting is added later, and off."""
    found = {}
    for field in fields(settings):
        value = getattr(settings, field.name)
        if field.default is MISSING or value != field.default:
            found[field.name] = unusual(value) if is_dataclass(value) else value
    return found


# Settings that are gone, by the value with which they did nothing: older runs hold them.
REMOVED: dict[str, dict[str, Any]] = {
    "ModelConfig": {"head_bias": False},
    "MoEConfig": {
        "expert_choice": False,
        "allow_leak": False,
        "balance_level": "batch",
        "router_hidden": None,
    },
}


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as JSON-ready values."""
    return asdict(config)


def from_dict(kind: type[Config], values: dict[str, Any]) -> Config:
    """The configuration that `to_dict` wrote, by this version or an older one.

    Unknown names raise `ConfigError`, as do settings that are gone, unless they were off.
    """
    check(isinstance(values, dict), f"{kind.__name__} is read from a dict, and this is none")
    known = rules(kind)
    values = _without_removed(kind, _with_log(values) if kind is TrainConfig else values)
    unknown = sorted(values.keys() - known.keys())
    check(
        not unknown,
        f"{kind.__name__} has no setting {', '.join(unknown)}; was it written by a later version?",
    )
    return kind(**{name: _from_json(known[name].kind, value) for name, value in values.items()})


def _with_log(values: dict[str, Any]) -> dict[str, Any]:
    """Of training settings that named each logger by a setting of its own: those with `log`."""
    older = {name: values[name] for name in ("tensorboard", "wandb") if name in values}
    asked = [name for name, value in older.items() if value]
    values = {name: value for name, value in values.items() if name not in older}
    return {"log": asked[0], **values} if asked else values


def _without_removed(kind: type, values: dict[str, Any]) -> dict[str, Any]:
    gone = REMOVED.get(kind.__name__, {})
    for name, off in gone.items():
        value = values.get(name, off)
        check(
            value == off,
            f"{name}={value!r} is no setting of {kind.__name__} any more; use the version of "
            f"tinygpt that wrote it, or train anew without it",
        )
    return {name: value for name, value in values.items() if name not in gone}


def _from_json(kind: type, value: Any) -> Any:
    """What JSON has no type for: configurations and tuples."""
    if is_dataclass(kind) and isinstance(value, dict):
        return from_dict(kind, value)
    return tuple(value) if kind is tuple and isinstance(value, list) else value
