"""Weights on disk in 8 bits: of every large matrix whole numbers, and what one of them is worth in each row.

A matrix [rows, columns] lies there as NAME_int8, int8 [rows, columns], and NAME_scale, float32 [rows]. Its numbers are
off by half a step at most, 1/254 of the largest of their row.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from omni.errors import ConfigError

__all__ = ["in_8_bits", "of_bits", "quantize_rows", "read_8_bits", "restored", "restored_shapes"]

CODES, SCALE = "_int8", "_scale"
SMALLEST = 1 << 14  # smaller matrices, biases and norms stay floats
EMBEDDING = "embed_tokens.weight"  # it is read one row at a time, so that errors do not average out


def of_bits(bits: int) -> torch.dtype:
    """Return the number format of weights on disk; ConfigError for other than 8, 16 and 32 bits."""
    formats = {8: torch.int8, 16: torch.float16, 32: torch.float32}
    if bits not in formats:
        raise ConfigError(f"bits is {bits}; take one of {', '.join(map(str, formats))}")
    return formats[bits]


def quantize_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round a matrix [rows, columns] to int8 of the same shape and a scale for each row, [rows]."""
    scales = weight.abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny) / 127
    return (weight / scales.unsqueeze(1)).round().to(torch.int8), scales


def in_8_bits(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return named weights with every large matrix in 8 bits, all else as it is."""
    stored: dict[str, Tensor] = {}
    for name, weight in state.items():
        if weight.ndim == 2 and weight.numel() >= SMALLEST and not name.endswith(EMBEDDING):
            stored[name + CODES], stored[name + SCALE] = quantize_rows(weight.float())
        else:
            stored[name] = weight
    return stored


def restored(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo in_8_bits: float32 where there were 8 bits."""
    names = {name.removesuffix(CODES) for name in stored if name.endswith(CODES)}
    state = {name: stored[name + CODES].float() * stored[name + SCALE].unsqueeze(1) for name in names}
    spent = {name + suffix for name in names for suffix in (CODES, SCALE)}
    return state | {name: weight for name, weight in stored.items() if name not in spent}


def restored_shapes(stored: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Tell the shapes of what `restored` returns; whole numbers without scales that fit keep their own name."""
    shapes = dict(stored)
    for name in [name.removesuffix(CODES) for name in stored if name.endswith(CODES)]:
        if shapes.get(name + SCALE) == shapes[name + CODES][:1]:
            del shapes[name + SCALE]
            shapes[name] = shapes.pop(name + CODES)
    return shapes


def read_8_bits(folder: Path) -> dict[str, Tensor] | None:
    """Read the weights of a model folder that are stored in 8 bits; None where they are not."""
    from safetensors import safe_open
    from safetensors.torch import load_file

    whole = folder / "model.safetensors"
    files = [whole] if whole.is_file() else sorted(folder.glob("model-*.safetensors"))
    for path in files:
        with safe_open(path, framework="pt") as file:
            if any(name.endswith(CODES) for name in file.keys()):  # noqa: SIM118
                return restored({name: weight for each in files for name, weight in load_file(each).items()})
    return None
