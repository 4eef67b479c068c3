"""Settings from a YAML file and the command line, checked against a pydantic model."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from omni.errors import ConfigError, OmniError
from omni.memory import keep_freed_memory

__all__ = ["Section", "load_settings", "run_program"]


class Section(BaseModel):
    """A group of settings; unknown keys are errors, and nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Settings = TypeVar("Settings", bound=BaseModel)


def load_settings(
    kind: type[Settings], path: str | Path, overrides: Sequence[str] = (), *, files: Sequence[str] = ()
) -> Settings:
    """Read a YAML file, apply `key=value` settings (dots reach into sections), and check the result.

    Args:
        kind: the model that the settings fill; it forbids unknown keys.
        path: of the YAML file.
        overrides: settings from the command line.
        files: keys whose value may be the path of another YAML file, relative to this one, in place of a section.

    Raises:
        ConfigError: a file cannot be read, a key is unknown (with the nearest name), or a value is wrong.
    """
    values = _read(Path(path))
    for key in files:
        if isinstance(values.get(key), str):
            values[key] = _read(Path(path).parent / values[key])
    for override in overrides:
        _apply(values, override)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{path}: " + "; ".join(_sentence(kind, each) for each in error.errors())) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read ({error}); give an existing YAML file") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds no settings; write key: value lines")
    return values


def _apply(values: dict[str, Any], override: str) -> None:
    name, separator, text = override.partition("=")
    if not separator:
        raise ConfigError(f"setting {override!r} has no '='; write section.key=value")
    *sections, last = name.split(".")
    for section in sections:
        if values.get(section) is None:
            values[section] = {}
        values = values[section]
        if not isinstance(values, dict):
            raise ConfigError(f"setting {name!r} reaches into {section!r}, which is a single value")
    try:
        values[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"setting {override!r} is no YAML value; put it in quotes") from error


def _section_at(kind: type[BaseModel], place: Sequence[int | str]) -> type[BaseModel]:
    """Follow field names into nested sections, through lists and optional ones."""
    for name in place:
        field = kind.model_fields.get(str(name))
        annotation: Any = field.annotation if field else None
        inner = (annotation, *get_args(annotation), *(a for b in get_args(annotation) for a in get_args(b)))
        kind = next((each for each in inner if isinstance(each, type) and issubclass(each, BaseModel)), kind)
    return kind


def _sentence(kind: type[BaseModel], problem: Any) -> str:
    place = ".".join(map(str, problem["loc"]))
    if problem["type"] == "missing":
        return f"{place} is missing; add it to the file, or write {place}=VALUE behind it"
    if problem["type"] == "value_error":
        return f"{place + ': ' if place else ''}{problem['ctx']['error']}"
    if problem["type"] != "extra_forbidden":
        return f"{place}: {problem['msg']} (got {problem['input']!r})"
    known = list(_section_at(kind, problem["loc"][:-1]).model_fields)
    near = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
    return f"{place} is no setting; " + (f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}")


def run_program(kind: type[Settings], run: Callable[[Settings], object], module: str) -> int:
    """Run a program whose command line is CONFIG [key=value ...]; return its exit status.

    Args:
        kind: the model that the settings fill.
        run: the program; an OmniError of its becomes one line on stderr.
        module: how the program is started, for its usage line.
    """
    if not sys.argv[1:]:
        print(f"usage: python -m {module} CONFIG [key=value ...]", file=sys.stderr)
        return 2
    keep_freed_memory()
    try:
        run(load_settings(kind, sys.argv[1], sys.argv[2:]))
    except OmniError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
