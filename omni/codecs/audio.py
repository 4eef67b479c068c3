"""The audio codec: sound <-> normalised latents, by our log-mel autoencoder or one of diffusers, named in a config.

A codec folder holds `codec_config.json` (class and statistics), `config.json` (the autoencoder's own),
`model.safetensors` and a card. B recordings, T samples, L latents, C channels.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from omni.codecs.folder import (
    CONFIG_FILE,
    OWN_CONFIG,
    check_statistics,
    load_weights,
    read_config,
    read_json,
    write_folder,
)
from omni.codecs.mel import AutoencoderLogMel, LogMelConfig
from omni.errors import CheckpointError, InputError

__all__ = ["AudioCodec", "AudioCodecConfig"]

CLASSES = {"AutoencoderLogMel": "omni", "AutoencoderOobleck": "diffusers"}
PREVIEW_RANGE = 2.5  # normalised latents from minus this to this fill the range of a preview


@dataclasses.dataclass(frozen=True)
class AudioCodecConfig:
    """What a codec knows beyond its weights.

    Args:
        class_name: one of CLASSES.
        package: where the class comes from.
        latents_mean: mean of each latent channel; without it, zeros.
        latents_std: standard deviation of each channel; without it, ones.
        stored_dtype: precision of the weights on disk; in memory they are float32.
        sha256: digest of the weights file; compared on loading when given.
    """

    class_name: str
    package: str = "omni"
    latents_mean: tuple[float, ...] | None = None
    latents_std: tuple[float, ...] | None = None
    stored_dtype: str = "float32"
    sha256: str | None = None

    @classmethod
    def from_file(cls, path: Path) -> AudioCodecConfig:
        """Read a config; raise CheckpointError when it is missing, damaged, or has unknown keys or another class."""
        config = read_config(cls, path)
        if CLASSES.get(config.class_name) != config.package:
            raise CheckpointError(
                f"{path}: {config.package}.{config.class_name} is no audio autoencoder that is known here; "
                f"name one of {[f'{package}.{name}' for name, package in CLASSES.items()]}"
            )
        return config


def _build(config: AudioCodecConfig, path: Path) -> Any:
    """Build the autoencoder that `config.json` describes, without its weights."""
    own = read_json(path)
    try:
        if config.class_name == "AutoencoderLogMel":
            return AutoencoderLogMel(LogMelConfig(**own))
        from diffusers.models import AutoencoderOobleck

        return AutoencoderOobleck.from_config(own)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path} does not build a {config.class_name}: {error}; restore it") from error


def _statistics(config: AudioCodecConfig, num_channels: int) -> tuple[Tensor, Tensor]:
    mean = config.latents_mean or (0.0,) * num_channels
    std = config.latents_std or (1.0,) * num_channels
    return check_statistics(mean, std, num_channels)


class AudioCodec(nn.Module):
    """Turn mono sound into latents of about unit variance, and back; the same latents always sound the same.

    Args:
        autoencoder: an `AutoencoderLogMel`, or diffusers' `AutoencoderOobleck`.
        config: class and statistics.

    Attributes:
        sample_rate: in Hz.
        samples_per_latent: samples that a latent stands for.
        latents_per_second: a quotient of the two.
        channels: numbers of a latent.

    Raises:
        CheckpointError: the statistics do not fit the autoencoder.
    """

    latents_mean: Tensor
    latents_std: Tensor

    def __init__(self, autoencoder: Any, config: AudioCodecConfig) -> None:
        super().__init__()
        self.autoencoder = autoencoder.eval().requires_grad_(False)
        own = autoencoder.config
        self.is_log_mel = isinstance(autoencoder, AutoencoderLogMel)
        self.sample_rate = int(own.sampling_rate)
        if self.is_log_mel:
            self.samples_per_latent, self.channels = autoencoder.samples_per_latent, own.latent_channels
        else:
            self.samples_per_latent, self.channels = int(autoencoder.hop_length), int(own.decoder_input_channels)
        self.latents_per_second = self.sample_rate / self.samples_per_latent
        mean, std = _statistics(config, self.channels)
        self.register_buffer("latents_mean", mean, persistent=False)
        self.register_buffer("latents_std", std, persistent=False)
        self.config = dataclasses.replace(config, latents_mean=tuple(mean.tolist()), latents_std=tuple(std.tolist()))

    @classmethod
    def from_folder(cls, path: str | Path) -> AudioCodec:
        """Load a codec folder, weights in float32.

        Raises:
            CheckpointError: a file is missing, damaged or of another shape, or the class is not allowed.
        """
        folder = Path(path)
        config = AudioCodecConfig.from_file(folder / CONFIG_FILE)
        autoencoder = _build(config, folder / OWN_CONFIG)
        load_weights(autoencoder, folder, config.sha256)
        return cls(autoencoder, config)

    def save(self, path: str | Path) -> None:
        """Write the folder that `from_folder` reads; weights in the config's `stored_dtype`."""
        folder = Path(path)
        write_folder(folder, self.config, self.autoencoder.state_dict())
        if self.is_log_mel:
            own = json.dumps(dataclasses.asdict(self.autoencoder.config), indent=1)
            (folder / OWN_CONFIG).write_text(own + "\n", encoding="utf-8")
        else:
            self.autoencoder.save_config(folder)

    def num_latents(self, num_samples: int) -> int:
        """Count the latents of so many samples: ceil(samples / samples_per_latent)."""
        return -(-num_samples // self.samples_per_latent)

    @torch.no_grad()
    def encode(self, samples: Tensor) -> Tensor:
        """Compress recordings into normalised latents; silence is thought after their end.

        Args:
            samples: float32, [B, T] at `sample_rate`, in [-1, 1].

        Returns:
            float32, [B, ceil(T / samples_per_latent), C].

        Raises:
            InputError: the shape or the type is wrong, there are no samples, or one is not finite.
        """
        if samples.dim() != 2 or not samples.numel() or not samples.is_floating_point():
            what = f"{samples.dtype} {list(samples.shape)}"
            raise InputError(f"samples are {what}; give float32 [recordings, samples], at least one sample")
        if not bool(torch.isfinite(samples).all()):
            raise InputError("samples hold NaN or infinity; repair the recording before it is encoded")
        missing = -samples.shape[1] % self.samples_per_latent
        padded = nn.functional.pad(samples.to(self.latents_mean.device).float(), (0, missing))
        return (self._compress(padded) - self.latents_mean) / self.latents_std

    @torch.no_grad()
    def decode(self, latents: Tensor, num_samples: int | None = None) -> Tensor:
        """Rebuild samples, float32 [B, T] in [-1, 1], from normalised latents [B, L, C].

        Args:
            latents: normalised, as `encode` gives them.
            num_samples: T, at most L * samples_per_latent; without it, all.

        Raises:
            InputError: the shape is wrong, a value is not finite, or more samples are wanted than there are.
        """
        self._check_latents(latents)
        longest = latents.shape[1] * self.samples_per_latent
        if num_samples is not None and not 0 < num_samples <= longest:
            raise InputError(f"num_samples is {num_samples}; {latents.shape[1]} latents hold 1 to {longest} samples")
        raw = latents.to(self.latents_mean.device).float() * self.latents_std + self.latents_mean
        return self._rebuild(raw)[:, :num_samples].clamp(-1.0, 1.0)

    @torch.no_grad()
    def preview(self, latents: Tensor) -> Tensor:
        """Draw small pictures, uint8 [B, rows, columns, 3], time from left to right; nearly free.

        Log-mel latents show their spectrogram, low sounds below; others show their numbers.

        Raises:
            InputError: the shape is wrong, or a value is not finite.
        """
        self._check_latents(latents)
        given = latents.to(self.latents_mean.device).float()
        if self.is_log_mel:
            mel = self.autoencoder.mel_of(given * self.latents_std + self.latents_mean)
            lightness = 1.0 + (mel.log10() / 3.0)  # 60 dB from black to white
        else:
            lightness = 0.5 + given / (2.0 * PREVIEW_RANGE)
        picture = lightness.transpose(1, 2).flip(1).mul(255.0).round().clamp(0, 255).to(torch.uint8)
        return picture[..., None].expand(*picture.shape, 3).contiguous()

    def _check_latents(self, latents: Tensor) -> None:
        if latents.dim() != 3 or latents.shape[-1] != self.channels or not latents.numel():
            raise InputError(f"latents are {list(latents.shape)}; give [recordings, latents, {self.channels}]")
        if not bool(torch.isfinite(latents).all()):
            raise InputError("latents hold NaN or infinity; nothing can be heard in them")

    def _compress(self, samples: Tensor) -> Tensor:  # [B, L * samples_per_latent] -> [B, L, C]
        if self.is_log_mel:
            return self.autoencoder.encode(samples)
        channels = samples[:, None].expand(-1, self.autoencoder.config.audio_channels, -1)
        return self.autoencoder.encode(channels).latent_dist.mode().transpose(1, 2)

    def _rebuild(self, latents: Tensor) -> Tensor:  # [B, L, C] -> [B, L * samples_per_latent]
        if self.is_log_mel:
            return self.autoencoder.decode(latents)
        return self.autoencoder.decode(latents.transpose(1, 2)).sample.mean(1)
