"""Settings of the codec training."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["CodecTrainConfig"]


class CodecTrainConfig(BaseModel):
    """Dials of one codec training.

    class_name, autoencoder: autoencoder class of diffusers (one with a frame path), its keyword arguments.
    sizes: (rows, columns, share of the batches, scenes in the bank) of every picture size.
    batch_size: pictures of 64x64 in a step; other sizes get as many pixels.
    minutes: wall-clock budget that the schedule follows; without effect when `steps` is given.
    steps: number of steps that the schedule follows.
    matrix_lr: learning rate of Muon, for kernels.
    vector_lr: learning rate of AdamW, for norms, biases and the outermost kernels.
    warmup: share of the budget in which the learning rate rises.
    kl_weight: weight of the KL divergence per latent element, against the squared error per pixel value.
    absolute_weight: weight of the absolute error at the start; it falls to zero over the first 60 %.
    edge_weight: weight of the absolute error of neighbour differences, likewise.
    ema_decay: decay of the averaged weights.
    seed: of weights, scenes and noise.
    threads: of the training process; the scene bank is rendered by as many processes.
    output: folder of checkpoint, log and bank.
    export: codec folder that is written at the end.
    stored_dtype: precision of the exported weights.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    class_name: Literal["AutoencoderKLWan"] = "AutoencoderKLWan"
    autoencoder: dict[str, Any]
    sizes: list[tuple[int, int, float, int]]
    batch_size: int = Field(32, gt=0)
    minutes: float = Field(18.0, gt=0)
    steps: int | None = Field(None, gt=0)
    matrix_lr: float = 0.02
    vector_lr: float = 2e-3
    warmup: float = 0.03
    kl_weight: float = 1e-4
    absolute_weight: float = 0.1
    edge_weight: float = 0.05
    ema_decay: float = 0.998
    validate_every: int = Field(250, gt=0)
    save_every: int = Field(500, gt=0)
    seed: int = 0
    threads: int = Field(2, gt=0)
    output: str = "~/.cache/omni/codec"
    export: str
    stored_dtype: Literal["float32", "float16", "bfloat16"] = "bfloat16"
