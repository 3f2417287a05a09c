"""Settings of a run as a YAML file, which a run writes and `train --config` reads.

A value is read by the type of its setting, not by what YAML takes it for: `1e-3` is a number and
`off` a word. See https://yaml.org/spec/1.1/ for what else the words of a file may mean.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from yaml import MappingNode, Node, ScalarNode, SequenceNode

from ..checks import Rule, rules
from ..config import ModelConfig, TrainConfig, to_dict
from ..errors import ConfigError
from ..files import resolve

LARGEST = 1 << 20  # bytes of a file that somebody wrote
NULLS = ("", "~", "null", "Null", "NULL", "None")
WHOLE, NUMBER = r"[-+]?(0|[1-9][0-9]*(_[0-9]+)*)", r"[-+]?(?!0[0-9])[0-9._]+([eE][-+]?[0-9]+)?"
SECTIONS = ("model", "train")  # whose settings are flags without a prefix


@dataclass(frozen=True)
class RunSettings:
    """What the file holds. None: what the preset says."""

    preset: str | None = None
    corpus: str | None = None
    tokenizer: str | None = None
    model: ModelConfig = field(default_factory=ModelConfig)  # vocab_size follows from the corpus
    train: TrainConfig = field(default_factory=TrainConfig)
    init: str | None = None  # whose weights it starts from; None: random ones


def write_settings(settings: RunSettings) -> str:
    """The text of a file that `read_settings_file` gives back as these settings."""
    values = {name: value for name, value in to_dict(settings).items() if value is not None}
    del values["model"]["vocab_size"]
    head = "# The settings of this run: python -m tinygpt train --config FILE makes it anew.\n"
    return head + yaml.safe_dump(values, sort_keys=False)


def read_settings_file(path: str | Path) -> dict[str, Any]:
    """The settings that a file names, sections as dicts; `ConfigError` names file and line."""
    path = resolve(path)
    try:
        node = yaml.compose(_text(path), Loader=yaml.SafeLoader)
        return {} if node is None else _section(node, RunSettings, "")
    except yaml.MarkedYAMLError as error:
        raise ConfigError(f"{path}{_line(error.problem_mark)}: {error.problem}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is no YAML file: {error}") from error
    except RecursionError as error:
        raise ConfigError(f"{path} is nested too deeply") from error
    except ConfigError as error:
        raise ConfigError(f"{path}{error}") from None


def as_flags(values: dict[str, Any], prefix: str = "", kind: type = RunSettings) -> Iterator[str]:
    """The flags of `train` that say the same as a file, in its order."""
    for name, value in values.items():
        flag, rule = name.replace("_", "-"), rules(kind)[name]
        if isinstance(value, dict):
            within = "" if name in SECTIONS else f"{prefix}{flag}."
            yield from as_flags(value, within, rule.kind)
        elif name == "moe":
            yield "--no-moe"
        elif rule.kind is bool and not rule.optional:  # one that may be None takes a value
            yield f"--{prefix}{flag}" if value else f"--{prefix}no-{flag}"
        else:
            yield f"--{prefix}{flag}={value}"


def _text(path: Path) -> str:
    if not path.is_file():
        raise ConfigError(": there is no such file; --config takes a YAML file, as a run's own")
    if (size := path.stat().st_size) > LARGEST:
        raise ConfigError(f" has {size:,} bytes; no file of settings has more than {LARGEST:,}")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(" is not UTF-8; save it so") from None


def _section(node: Node, kind: type, within: str) -> dict[str, Any]:
    """The settings of one section, as far as it names them."""
    if not isinstance(node, MappingNode):
        what = f"{within.rstrip('.')} is a section" if within else "a file of settings has lines"
        raise _wrong(node, f"{what} of the form name: value")
    known, found = rules(kind), {}
    for key, value in node.value:
        name = str(key.value).replace("-", "_")
        if name not in known:
            raise _wrong(key, f"there is no setting {within}{key.value!s:.100}{_near(name, kind)}")
        if name in found:
            raise _wrong(key, f"{within}{name} is there twice; keep one")
        found[name] = _value(value, known[name], f"{within}{name}")
    return found


def _value(node: Node, rule: Rule, name: str) -> Any:
    """A value of the kind that its setting has."""
    if isinstance(node, ScalarNode) and node.value in NULLS and _is_null(node, rule):
        return None
    if is_dataclass(rule.kind):
        return _section(node, rule.kind, f"{name}.")
    if not isinstance(node, ScalarNode):
        what = "a list" if isinstance(node, SequenceNode) else "a section"
        raise _wrong(node, f"{name} is {what} here; it must be {rule.wanted(None)}")
    value = _scalar(node, rule, name)
    if not rule.admits(value):
        raise _wrong(node, f"{name}={value!r} must be {rule.wanted(value)}")
    return value


def _is_null(node: ScalarNode, rule: Rule) -> bool:
    """Whether a word for nothing means that here; of a text in quotes only None does."""
    return rule.optional and (node.style is None or node.value == "None")


def _scalar(node: ScalarNode, rule: Rule, name: str) -> Any:
    text, plain = node.value, node.style is None
    if rule.kind is bool and node.tag.endswith(":bool"):
        return text.lower() in ("true", "yes", "on")
    if rule.kind is int and re.fullmatch(WHOLE, text):
        return int(text)
    if rule.kind is float and re.fullmatch(NUMBER, text):
        try:
            return float(text)
        except ValueError:
            return text
    if rule.kind is str and not rule.choices and plain:
        meant = {":bool": "true or false", ":null": "nothing"}.get(node.tag[-5:])
        if meant:
            raise _wrong(node, f"{name}: {text} means {meant} in YAML; in quotes it is a text")
    return text


def _near(name: str, kind: type) -> str:
    """What may have been meant: a setting spelt nearly alike, or of this name in another place."""
    elsewhere = {key.rpartition(".")[2]: key for key in reversed(list(_names(RunSettings)))}
    places = elsewhere if name in elsewhere else elsewhere | {key: key for key in rules(kind)}
    near = get_close_matches(name[:100], list(places), n=1)
    return f"; did you mean {places[near[0]]}?" if near else ""


def _names(kind: type, within: str = "") -> Iterator[str]:
    for name, rule in rules(kind).items():
        yield f"{within}{name}"
        if is_dataclass(rule.kind):
            yield from _names(rule.kind, f"{within}{name}.")


def _wrong(node: Node, what: str) -> ConfigError:
    return ConfigError(f"{_line(node.start_mark)}: {what}")


def _line(mark: yaml.Mark | None) -> str:
    return "" if mark is None else f", line {mark.line + 1}"
