"""Settings of a training run: one YAML file, and section.key=value from the command line."""

import difflib
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from omni.errors import ConfigError

__all__ = ["TrainConfig", "load_config"]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Data(Section):
    """What is trained on.

    path: folder of encoded shards (training.encode).
    validation_documents: how many of the last documents are held back for the validation loss.
    """

    path: str
    validation_documents: int = 256


class Batch(Section):
    """The shape of a step.

    row_length, num_rows: tokens of a packed row, rows of a batch.
    num_noisy: noisy copies of each trained medium; they share the text and the readable copy.
    accumulation: batches of a step.
    """

    row_length: int = Field(384, gt=0)
    num_rows: int = Field(8, gt=0)
    num_noisy: int = Field(4, gt=0)
    accumulation: int = Field(1, gt=0)


class Objective(Section):
    """What is learnt.

    text_weight, flow_weight: of the two losses.
    sigma_mean, sigma_std: of the logit-normal of training sigmas.
    drop_text, drop_media, drop_both: probability that a document's conditions are dropped.
    """

    text_weight: float = 1.0
    flow_weight: float = 1.0
    sigma_mean: float = 0.0
    sigma_std: float = 1.0
    drop_text: float = Field(0.05, ge=0, le=1)
    drop_media: float = Field(0.0, ge=0, le=1)
    drop_both: float = Field(0.05, ge=0, le=1)


class Optimizer(Section):
    """How it is learnt: Muon for the matrices of the layers, AdamW for the rest; or AdamW for all."""

    kind: Literal["muon", "adamw"] = "muon"
    matrix_lr: float = 0.02
    vector_lr: float = 2e-3
    betas: tuple[float, float] = (0.9, 0.95)
    momentum: float = 0.95
    weight_decay: float = 0.0
    clip: float = 1.0
    ema_decay: float = 0.999


class Schedule(Section):
    """How long: a linear warm-up, a plateau, and a linear decay to zero over the last share of the steps."""

    steps: int = Field(..., gt=0)
    warmup: int = 50
    decay: float = Field(0.3, ge=0, le=1)


class Report(Section):
    """What is written down, each every so many steps."""

    log_every: int = 10
    validate_every: int = 250
    sample_every: int = 0
    save_every: int = 100
    keep: int = 2


class TrainConfig(Section):
    """A training run.

    output: folder of checkpoints, log and sheets.
    model: arguments of OmniConfig, or the path of a YAML file with them, relative to this one.
    start: a model folder whose weights to start from; new weights where left out.
    tokenizer, codecs: folders; codecs by stream.
    """

    output: str
    seed: int = 0
    threads: int = 0
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    model: dict[str, Any]
    start: str | None = None
    tokenizer: str
    codecs: dict[str, str]
    data: Data
    batch: Batch = Batch()
    objective: Objective = Objective()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule
    report: Report = Report()


def load_config(path: str | Path, overrides: list[str] | None = None) -> TrainConfig:
    """Read a YAML file, then apply `section.key=value` settings.

    Args:
        path: of the YAML file.
        overrides: settings from the command line.

    Raises:
        ConfigError: the file cannot be read, a key is unknown (with the nearest name), a value is wrong.
    """
    values = _read(Path(path))
    if isinstance(values.get("model"), str):
        values["model"] = _read(Path(path).parent / values["model"])
    for override in overrides or []:
        _apply(values, override)
    try:
        return TrainConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError("; ".join(_sentence(problem) for problem in error.errors())) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
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
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise ConfigError(f"setting {name!r} reaches into {section!r}, which is a single value")
    values[last] = yaml.safe_load(text)


def _sentence(problem: Any) -> str:
    place = ".".join(map(str, problem["loc"]))
    if problem["type"] != "extra_forbidden":
        return f"{place}: {problem['msg']} (got {problem['input']!r})"
    section: Any = TrainConfig
    for name in problem["loc"][:-1]:
        section = section.model_fields[name].annotation
    known = list(section.model_fields)
    near = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
    return f"{place} is no setting; " + (f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}")
