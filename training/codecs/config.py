"""Settings of the training of the picture codec."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from training.codecs.trainer import TrainerConfig

__all__ = ["PictureCodecConfig"]


class PictureCodecConfig(TrainerConfig):
    """Dials of one training on pictures.

    class_name, autoencoder: autoencoder class of diffusers (one with a frame path), its keyword arguments.
    sizes: (rows, columns, share of the batches, scenes in the bank) of every picture size.
    batch_size: pictures of 64x64 in a step; other sizes get as many pixels.
    absolute_weight: weight of the absolute error at the start; it falls to zero over the first 60 %.
    edge_weight: weight of the absolute error of neighbour differences, likewise.
    output: folder of checkpoint, log and bank; the bank is rendered by `threads` processes.
    stored_dtype: precision of the exported weights.
    """

    class_name: Literal["AutoencoderKLWan"] = "AutoencoderKLWan"
    autoencoder: dict[str, Any]
    sizes: list[tuple[int, int, float, int]]
    batch_size: int = Field(32, gt=0)
    absolute_weight: float = 0.1
    edge_weight: float = 0.05
    output: str = "~/.cache/omni/codec"
    stored_dtype: Literal["float32", "float16", "bfloat16"] = "bfloat16"
