"""Fit the audio codec: mean and principal components of log-mel frames over recordings of the omni world.

python -m training.codecs.audio CONFIG [key=value ...]
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from omni.codecs.audio import AudioCodec, AudioCodecConfig
from omni.codecs.mel import AutoencoderLogMel, LogMelConfig
from omni.errors import ConfigError, OmniError
from training.codecs.audio_material import Recording, recordings
from training.settings import load_settings

__all__ = ["AudioFitConfig", "fit"]


class AudioFitConfig(BaseModel):
    """Dials of one fit.

    channels: numbers of a latent.
    bands, fft_size, frames_per_latent, floor, iterations: see `omni.codecs.mel.LogMelConfig`.
    recordings: how many of the world's recordings are looked at.
    quietest: a recording is made softer by a factor between this and 1, drawn evenly in decibels.
    seed: of the recordings.
    export: codec folder that is written.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    channels: int = Field(gt=0)
    bands: int = Field(128, gt=0)
    fft_size: int = Field(1280, gt=0)
    frames_per_latent: int = Field(2, gt=0)
    floor: float = Field(1e-3, gt=0)
    iterations: int = Field(32, ge=0)
    recordings: int = Field(3600, gt=0)
    quietest: float = Field(0.3, gt=0, le=1)
    seed: int = 0
    export: str


class _Moments:
    """Count, sum and sum of products of rows, in float64."""

    def __init__(self, width: int) -> None:
        self.count = 0
        self.sum = torch.zeros(width, dtype=torch.float64)
        self.products = torch.zeros(width, width, dtype=torch.float64)

    def add(self, rows: Tensor) -> None:
        rows = rows.double()
        self.count += len(rows)
        self.sum += rows.sum(0)
        self.products += rows.T @ rows

    def mean_and_covariance(self) -> tuple[Tensor, Tensor]:
        mean = self.sum / self.count
        return mean, self.products / self.count - torch.outer(mean, mean)


def _whole(autoencoder: AutoencoderLogMel, samples: Tensor) -> Tensor:
    return torch.nn.functional.pad(samples, (0, -len(samples) % autoencoder.samples_per_latent))[None]


@torch.no_grad()
def fit(config: AudioFitConfig, material: Iterable[Recording]) -> AudioCodec:
    """Find the directions in which the recordings' log-mel frames vary most; their deviations normalise the latents.

    Args:
        config: the dials.
        material: recordings to look at.

    Raises:
        ConfigError: the dials contradict each other, or there are fewer latents than numbers to be found.
    """
    try:
        own = LogMelConfig(
            latent_channels=config.channels,
            fft_size=config.fft_size,
            bands=config.bands,
            frames_per_latent=config.frames_per_latent,
            floor=config.floor,
            iterations=config.iterations,
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error
    autoencoder = AutoencoderLogMel(own)
    moments = _Moments(config.bands * config.frames_per_latent)
    generator = torch.Generator().manual_seed(config.seed)
    for each in material:
        gain = config.quietest ** torch.rand((), generator=generator).item()
        moments.add(autoencoder.groups(_whole(autoencoder, gain * torch.from_numpy(each.samples)))[0])
    if moments.count <= len(moments.sum):
        raise ConfigError(f"recordings: {moments.count} latents cannot fix {len(moments.sum)} directions; give more")
    mean, covariance = moments.mean_and_covariance()
    variances, directions = torch.linalg.eigh(covariance)
    variances, directions = variances.flip(0)[: config.channels], directions.flip(1)[:, : config.channels]
    # Of the two signs of a direction, the one in which louder is larger, so that every machine finds the same.
    directions = directions * directions.sum(0).sign()
    autoencoder.mean.copy_(mean)
    autoencoder.components.copy_(directions.T)
    std = variances.clamp(min=1e-12).sqrt().tolist()
    statistics = AudioCodecConfig("AutoencoderLogMel", latents_mean=(0.0,) * config.channels, latents_std=tuple(std))
    return AudioCodec(autoencoder, statistics)


def main(arguments: list[str]) -> int:
    """Fit and export; return the exit status."""
    if not arguments:
        print("usage: python -m training.codecs.audio CONFIG [key=value ...]", file=sys.stderr)
        return 2
    try:
        config = load_settings(AudioFitConfig, arguments[0], arguments[1:])
        codec = fit(config, recordings("train", config.recordings, seed=config.seed))
        codec.save(Path(config.export).expanduser())
    except OmniError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{config.export}: {codec.channels} numbers, {codec.latents_per_second:g} times a second")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
