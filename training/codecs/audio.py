"""Make the audio codec: principal components of log-mel frames over the omni world, then a network that corrects them.

python -m training.codecs.audio CONFIG [key=value ...]
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from omni.codecs.audio import AudioCodec, AudioCodecConfig
from omni.codecs.mel import AutoencoderLogMel, LogMelConfig
from omni.errors import ConfigError
from training.codecs.audio_material import Recording, recordings
from training.muon import Muon
from training.settings import Section, run_program

__all__ = ["AudioFitConfig", "fit"]

CHUNK = 64  # latents of a training example
SPEED = 0.12  # log of the largest change of speed (and so of pitch) of a recording


class AudioFitConfig(Section):
    """Dials of one fit.

    channels: numbers of a latent.
    bands, fft_size, frames_per_latent, floor, iterations, width, num_blocks: see `omni.codecs.mel.LogMelConfig`.
    low_weight, high_weight: weight of an error in the lowest and the highest band, and evenly between.
    recordings: how many of the world's recordings are looked at, each once as it is and once changed.
    quietest: loudness is changed by a factor between this and 1, drawn evenly in decibels.
    steps: of the network's training.
    batch_size: examples of CHUNK latents in a step.
    noise: standard deviation of the noise on latents in training, which makes the decoder forgiving.
    matrix_lr: learning rate of Muon, for matrices.
    vector_lr: learning rate of AdamW, for the rest.
    seed: of recordings, weights and noise.
    stored_dtype: precision of the weights on disk.
    export: codec folder that is written.
    """

    channels: int = Field(gt=0)
    bands: int = Field(128, gt=0)
    fft_size: int = Field(1280, gt=0)
    frames_per_latent: int = Field(2, gt=0)
    floor: float = Field(1e-3, gt=0)
    iterations: int = Field(64, ge=0)
    width: int = Field(128, ge=0)
    num_blocks: int = Field(2, ge=0)
    low_weight: float = Field(1.3, gt=0)
    high_weight: float = Field(0.6, gt=0)
    recordings: int = Field(3600, gt=0)
    quietest: float = Field(0.3, gt=0, le=1)
    steps: int = Field(160, ge=0)
    batch_size: int = Field(32, gt=0)
    noise: float = Field(0.1, ge=0)
    matrix_lr: float = 0.02
    vector_lr: float = 2e-3
    seed: int = 0
    stored_dtype: str = "float16"
    export: str


def _build(config: AudioFitConfig) -> AutoencoderLogMel:
    try:
        own = LogMelConfig(
            latent_channels=config.channels,
            fft_size=config.fft_size,
            bands=config.bands,
            frames_per_latent=config.frames_per_latent,
            width=config.width,
            num_blocks=config.num_blocks,
            floor=config.floor,
            iterations=config.iterations,
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error
    torch.manual_seed(config.seed)
    return AutoencoderLogMel(own)


def _variants(samples: Tensor, rng: np.random.Generator, quietest: float) -> Iterator[Tensor]:
    """Yield a recording [T], and a softer, faster or slower one."""
    yield samples
    length = max(1, round(len(samples) * math.exp(rng.uniform(-SPEED, SPEED))))
    changed = F.interpolate(samples[None, None], size=length, mode="linear")[0, 0]
    yield changed * quietest ** rng.random()


@torch.no_grad()
def _groups(autoencoder: AutoencoderLogMel, material: Iterable[Recording], config: AudioFitConfig) -> Tensor:
    """Compute the frames of all recordings, one after another, [latents, G * M]."""
    rng, rows = np.random.default_rng(config.seed), []
    for each in material:
        for samples in _variants(torch.from_numpy(each.samples), rng, config.quietest):
            padded = F.pad(samples, (0, -len(samples) % autoencoder.samples_per_latent))
            rows.append(autoencoder.groups(padded[None])[0])
    return torch.cat(rows)


@torch.no_grad()
def _fit_linear(autoencoder: AutoencoderLogMel, groups: Tensor, weights: Tensor) -> None:
    """Set mean, analysis and synthesis to the principal components of the weighted frames, of unit variance."""
    number = autoencoder.config.latent_channels
    covariance = torch.cov(groups.T.double()) * weights.double() * weights.double()[:, None]
    variances, directions = torch.linalg.eigh(covariance)
    std = variances.flip(0)[:number].clamp(min=1e-12).sqrt()
    directions = directions.flip(1)[:, :number]
    directions = (directions * directions.sum(0).sign()).T  # of two signs the one in which louder is larger
    autoencoder.mean.copy_(groups.mean(0))
    autoencoder.analysis.copy_(directions * weights / std[:, None])
    autoencoder.synthesis.copy_(directions / weights * std[:, None])


def _unit(latents: Tensor) -> Tensor:
    """Normalise every channel of [B, L, C] over the batch, so that no channel can grow to drown the noise."""
    flat = latents.flatten(0, 1)
    return (latents - flat.mean(0)) / flat.std(0).clamp(min=1e-3)


def _train(autoencoder: AutoencoderLogMel, groups: Tensor, weights: Tensor, config: AudioFitConfig) -> None:
    """Train the network to correct the linear maps: absolute plus half the squared error of weighted frames."""
    named = list(autoencoder.parameters())
    vectors = [param for param in named if param.dim() < 2]
    optimisers: list[torch.optim.Optimizer] = [
        Muon([param for param in named if param.dim() == 2], lr=config.matrix_lr),
        torch.optim.AdamW(vectors, lr=config.vector_lr, betas=(0.9, 0.99), weight_decay=0.0),
    ]
    generator, started = torch.Generator().manual_seed(config.seed), time.perf_counter()
    for step in range(config.steps):
        starts = torch.randint(len(groups) - CHUNK, (config.batch_size,), generator=generator)
        batch = torch.stack([groups[start : start + CHUNK] for start in starts.tolist()])
        latents = _unit(autoencoder.compress(batch))
        noisy = latents + config.noise * torch.randn(latents.shape, generator=generator)
        error = (autoencoder.expand(noisy) - batch) * weights
        loss = error.abs().mean() + 0.5 * error.square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vectors, 1.0)
        scale = min(1.0, (step + 1) / (0.05 * config.steps)) * (1.0 - step / config.steps)
        for optimiser, lr in zip(optimisers, (config.matrix_lr, config.vector_lr), strict=True):
            optimiser.param_groups[0]["lr"] = lr * scale
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        if step % 20 == 19 or step == config.steps - 1:
            figures = f"error {error.square().mean().sqrt():.4f}  {time.perf_counter() - started:.0f} s"
            print(f"step {step + 1}  {figures}", flush=True)


def shares_of(autoencoder: AutoencoderLogMel) -> Tensor:
    """Return how far each channel moves the frames, [C]; 1 in the quadratic mean.

    Normalised latents keep these shares: were all channels of unit variance, the many that are mere hiss would
    outweigh, in a flow's loss, the few that say what is heard.
    """
    reach = autoencoder.synthesis.norm(dim=1)
    return reach / reach.square().mean().sqrt()


@torch.no_grad()
def _finish(autoencoder: AutoencoderLogMel, groups: Tensor, config: AudioFitConfig) -> AudioCodec:
    """Measure the latents, and let the decoder expect them as the training showed them: of unit variance."""
    autoencoder.to(getattr(torch, config.stored_dtype)).float()
    latents = torch.cat([autoencoder.compress(part[None])[0] for part in groups.split(4096)])
    mean, std = latents.mean(0), latents.std(0).clamp(min=1e-6)
    autoencoder.analysis.div_(std[:, None])
    if config.width:
        last = autoencoder.encoder[2]
        last.weight.div_(std[:, None])
        last.bias.sub_(mean).div_(std)
    autoencoder.to(getattr(torch, config.stored_dtype)).float()
    latents = torch.cat([autoencoder.compress(part[None])[0] for part in groups.split(4096)])
    statistics = AudioCodecConfig(
        "AutoencoderLogMel",
        latents_mean=tuple(latents.mean(0).tolist()),
        latents_std=tuple((latents.std(0) / shares_of(autoencoder)).tolist()),
        stored_dtype=config.stored_dtype,
    )
    return AudioCodec(autoencoder, statistics)


def fit(config: AudioFitConfig, material: Iterable[Recording]) -> AudioCodec:
    """Find the directions in which log-mel frames vary most, train the network, and measure the latents.

    Args:
        config: the dials.
        material: recordings to learn from.

    Raises:
        ConfigError: the dials contradict each other, or there are fewer latents than numbers to be found.
    """
    autoencoder = _build(config)
    groups = _groups(autoencoder, material, config)
    if len(groups) <= max(groups.shape[1], CHUNK):
        raise ConfigError(f"recordings: {len(groups)} latents cannot fix {groups.shape[1]} directions; give more")
    weights = torch.linspace(config.low_weight, config.high_weight, config.bands).repeat(config.frames_per_latent)
    _fit_linear(autoencoder, groups, weights)
    if config.width:
        _train(autoencoder, groups, weights, config)
    return _finish(autoencoder, groups, config)


def main(config: AudioFitConfig) -> None:
    """Fit and export."""
    codec = fit(config, recordings("train", config.recordings, seed=config.seed))
    codec.save(Path(config.export).expanduser())
    print(f"{config.export}: {codec.channels} numbers, {codec.latents_per_second:g} times a second")


if __name__ == "__main__":
    sys.exit(run_program(AudioFitConfig, main, "training.codecs.audio"))
