"""Finish a trained codec: latent statistics, the preview map, and the folder that `VisionCodec` loads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from omni.codecs.vision import CodecConfig, VisionCodec
from training.codecs.config import PictureCodecConfig

__all__ = ["export", "fit_rgb_map", "latent_statistics"]

NUM_SCENES = 2048


def _pairs(codec: VisionCodec, banks: Sequence[NDArray[np.uint8]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield latents [N, C] and the mean colours under them [N, 3] in [0, 1], batch by batch."""
    per_bank = NUM_SCENES // len(banks)
    for bank in banks:
        pictures = torch.from_numpy(np.array(bank[:per_bank]))[:, None]
        for batch in pictures.split(64):
            latents = codec.encode(batch)
            colours = batch[:, 0].permute(0, 3, 1, 2).float() / 255.0
            small = F.avg_pool2d(colours, codec.spatial_factor).permute(0, 2, 3, 1)
            yield latents.flatten(0, 3), small.flatten(0, 2)


def latent_statistics(latents: Tensor) -> tuple[list[float], list[float]]:
    """Measure mean and standard deviation of each channel of [N, C]."""
    return latents.mean(0).tolist(), latents.std(0).tolist()


def fit_rgb_map(latents: Tensor, colours: Tensor) -> list[list[float]]:
    """Fit colours [N, 3] = latents [N, C] @ map + constant by least squares; [C + 1, 3]."""
    inputs = torch.cat([latents, torch.ones(len(latents), 1)], dim=1)
    return torch.linalg.lstsq(inputs, colours).solution.tolist()


def export(autoencoder: Any, *, config: PictureCodecConfig, banks: Sequence[NDArray[np.uint8]]) -> VisionCodec:
    """Write the codec folder named by the config, and return the codec as it will be loaded."""
    num_channels = autoencoder.config.z_dim
    # Rounding first, so that the statistics belong to the weights that are stored.
    for param in autoencoder.parameters():
        param.data = param.data.to(getattr(torch, config.stored_dtype)).float()
    plain = CodecConfig(
        config.class_name,
        latents_mean=(0.0,) * num_channels,
        latents_std=(1.0,) * num_channels,
        stored_dtype=config.stored_dtype,
    )
    pairs = list(_pairs(VisionCodec(autoencoder, plain), banks))
    latents, colours = (torch.cat(column) for column in zip(*pairs, strict=True))
    mean, std = latent_statistics(latents)
    normalised = (latents - torch.tensor(mean)) / torch.tensor(std)
    # The autoencoder's own config says the same, for users of plain diffusers.
    autoencoder.register_to_config(latents_mean=mean, latents_std=std)
    finished = CodecConfig(
        config.class_name,
        latents_mean=tuple(mean),
        latents_std=tuple(std),
        rgb_map=tuple((row[0], row[1], row[2]) for row in fit_rgb_map(normalised, colours)),
        stored_dtype=config.stored_dtype,
    )
    codec = VisionCodec(autoencoder, finished)
    codec.save(Path(config.export).expanduser())
    return codec
