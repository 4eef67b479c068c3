"""What every codec folder holds: a config, the autoencoder's own config, and weights that are checked before use."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from omni.errors import CheckpointError

__all__ = [
    "CONFIG_FILE",
    "OWN_CONFIG",
    "check_statistics",
    "latents_digest",
    "load_weights",
    "read_config",
    "read_json",
    "write_folder",
]

CONFIG_FILE, OWN_CONFIG = "codec_config.json", "config.json"
# The first is what we write; the second is what diffusers writes, so that its folders drop in.
WEIGHT_FILES = ("model.safetensors", "diffusion_pytorch_model.safetensors")
DTYPES = ("float32", "float16", "bfloat16")
WAY_BACK = ("decoder.", "post_quant_conv.", "synthesis")  # weights that latents do not depend on

Config = TypeVar("Config")
State = dict[str, Tensor]


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: it is missing, damaged, or no object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing; a codec folder needs it: restore the folder") from error
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON ({error}); restore the file") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} holds a {type(values).__name__}, not a JSON object; restore the file")
    return values


def read_config(kind: type[Config], path: Path) -> Config:
    """Read a codec's config; lists become tuples.

    Args:
        kind: a dataclass with class_name and stored_dtype.
        path: of the file.

    Raises:
        CheckpointError: it is missing or damaged, has an unknown key, no class_name or another precision.
    """
    values = read_json(path)
    known = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(known))
    if unknown or "class_name" not in values:
        what = f"unknown key {unknown[0]!r}" if unknown else "no class_name"
        raise CheckpointError(f"{path}: {what}; known keys are {known}")
    if values.get("stored_dtype", DTYPES[0]) not in DTYPES:
        raise CheckpointError(f"{path}: stored_dtype {values['stored_dtype']!r} is not one of {', '.join(DTYPES)}")
    return kind(**{name: _frozen(value) for name, value in values.items()})


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


def load_weights(
    autoencoder: nn.Module,
    folder: Path,
    sha256: str | None,
    *,
    restore: Callable[[State, State], State] = lambda stored, expected: stored,
) -> None:
    """Load a folder's weights, in float32.

    Args:
        autoencoder: changed in place.
        folder: of the codec.
        sha256: digest of the file, compared when given.
        restore: makes the autoencoder's state of (what is stored, what is expected).

    Raises:
        CheckpointError: the file is missing or damaged, or does not fit.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    path = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if path is None:
        raise CheckpointError(f"{folder / WEIGHT_FILES[0]} is missing; restore it (only safetensors are read)")
    data = path.read_bytes()
    if sha256 and hashlib.sha256(data).hexdigest() != sha256:
        raise CheckpointError(f"{path} is damaged: its SHA-256 differs from {CONFIG_FILE}; restore the file")
    try:
        state = restore(load(data), autoencoder.state_dict())
        autoencoder.load_state_dict({name: value.float() for name, value in state.items()})
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged ({error}); restore the file") from error
    except RuntimeError as error:  # a heading, then a line for each weight that differs
        first = " ".join(str(error).split("\n")[1:2]).strip() or str(error)
        raise CheckpointError(f"{path} does not fit {folder / OWN_CONFIG}: {first}; restore both") from error


def check_statistics(mean: Any, std: Any, num_channels: int) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each latent channel, [C] each.

    Raises:
        CheckpointError: there are not as many as channels, or a standard deviation is not positive.
    """
    if len(mean) != num_channels or len(std) != num_channels or not min(std) > 0:
        raise CheckpointError(
            f"{CONFIG_FILE}: latents_mean and latents_std need {num_channels} values, all of std positive; "
            f"got {len(mean)} and {len(std)}; measure them with training/codecs"
        )
    return torch.tensor(mean, dtype=torch.float32), torch.tensor(std, dtype=torch.float32)


def latents_digest(codec: nn.Module) -> str:
    """Return the SHA-256 of all that latents depend on: the encoder's weights and the statistics.

    Args:
        codec: with an `autoencoder`, latents_mean and latents_std.
    """
    weights: dict[str, Tensor] = codec.autoencoder.state_dict()  # type: ignore[union-attr]
    used = {name: value for name, value in sorted(weights.items()) if not name.startswith(WAY_BACK)}
    used |= {"mean": codec.latents_mean, "std": codec.latents_std}  # type: ignore[dict-item]
    parts = [name.encode() + value.detach().cpu().float().numpy().tobytes() for name, value in used.items()]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def write_folder(folder: Path, config: Any, weights: Mapping[str, Tensor]) -> None:
    """Write a codec's weights in the config's `stored_dtype`, and its config with their digest.

    Weights that are a link to those of another folder are replaced, and the other folder's stay as they are.

    Args:
        folder: made where it does not exist.
        config: a dataclass with stored_dtype and sha256.
        weights: of the autoencoder.
    """
    from safetensors.torch import save

    folder.mkdir(parents=True, exist_ok=True)
    dtype = getattr(torch, config.stored_dtype)
    data = save({name: value.to("cpu", dtype).contiguous() for name, value in weights.items()})
    path = folder / WEIGHT_FILES[0]
    if path.is_symlink():
        path.unlink()
    path.write_bytes(data)
    config = dataclasses.replace(config, sha256=hashlib.sha256(data).hexdigest())
    (folder / CONFIG_FILE).write_text(json.dumps(dataclasses.asdict(config), indent=1) + "\n", encoding="utf-8")
