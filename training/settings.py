"""Settings from a YAML file and the command line, checked against a pydantic model."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from omni.errors import ConfigError

__all__ = ["load_settings"]

Settings = TypeVar("Settings", bound=BaseModel)


def load_settings(kind: type[Settings], path: str | Path, overrides: list[str]) -> Settings:
    """Read a YAML file, apply `key=value` settings (dots reach into sections), and check the result.

    Args:
        kind: the model that the settings fill; it forbids unknown keys.
        path: of the YAML file.
        overrides: settings from the command line.

    Raises:
        ConfigError: the file cannot be read, a key is unknown, or a value is wrong.
    """
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read ({error}); give an existing YAML file") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds no settings; write key: value lines")
    for override in overrides:
        _apply(values, override)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{path}: " + "; ".join(_sentence(kind, each) for each in error.errors())) from error


def _apply(values: dict[str, Any], override: str) -> None:
    name, separator, text = override.partition("=")
    if not separator:
        raise ConfigError(f"setting {override!r} has no '='; write key=value")
    *sections, last = name.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise ConfigError(f"setting {name!r} reaches into {section!r}, which is a single value")
    values[last] = yaml.safe_load(text)


def _sentence(kind: type[BaseModel], problem: Any) -> str:
    place = ".".join(map(str, problem["loc"]))
    if problem["type"] != "extra_forbidden":
        return f"{place}: {problem['msg']} (got {problem['input']!r})"
    known = list(kind.model_fields)
    near = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
    return f"{place} is no setting; " + (f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}")
