"""The audio codec: sound <-> normalised latents, by our log-mel autoencoder or one of diffusers, named in a config.

A codec folder holds `codec_config.json` (class and statistics), `config.json` (the autoencoder's own),
`model.safetensors` and a card. B recordings, T samples, L latents, C channels.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from omni.codecs.mel import AutoencoderLogMel, LogMelConfig
from omni.errors import CheckpointError, InputError

__all__ = ["AudioCodec", "AudioCodecConfig"]

CONFIG_FILE = "codec_config.json"
# The first is what we write; the second is what diffusers writes, so that its folders drop in.
WEIGHT_FILES = ("model.safetensors", "diffusion_pytorch_model.safetensors")
CLASSES = {"AutoencoderLogMel": "omni", "AutoencoderOobleck": "diffusers"}
PREVIEW_RANGE = 2.5  # normalised latents from minus this to this fill the range of a preview


@dataclasses.dataclass(frozen=True)
class AudioCodecConfig:
    """What a codec knows beyond its weights.

    Args:
        class_name: one of CLASSES.
        library: where the class comes from.
        latents_mean: mean of each latent channel; without it, zeros.
        latents_std: standard deviation of each channel; without it, ones.
        stored_dtype: precision of the weights on disk; in memory they are float32.
        sha256: digest of the weights file; compared on loading when given.
    """

    class_name: str
    library: str = "omni"
    latents_mean: tuple[float, ...] | None = None
    latents_std: tuple[float, ...] | None = None
    stored_dtype: str = "float32"
    sha256: str | None = None

    @classmethod
    def from_file(cls, path: Path) -> AudioCodecConfig:
        """Read a config; raise CheckpointError when it is missing, damaged, or has unknown keys or another class."""
        values = _read_json(path)
        known = [field.name for field in dataclasses.fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown or "class_name" not in values:
            what = f"unknown key {unknown[0]!r}" if unknown else "no class_name"
            raise CheckpointError(f"{path}: {what}; known keys are {known}")
        lists = {key: tuple(values[key]) for key in ("latents_mean", "latents_std") if values.get(key)}
        config = cls(**{**values, **lists})
        if CLASSES.get(config.class_name) != config.library:
            raise CheckpointError(
                f"{path}: {config.library}.{config.class_name} is no audio autoencoder that is known here; "
                f"name one of {[f'{library}.{name}' for name, library in CLASSES.items()]}"
            )
        if config.stored_dtype not in ("float32", "float16", "bfloat16"):
            raise CheckpointError(f"{path}: stored_dtype {config.stored_dtype!r} is not float32, float16 or bfloat16")
        return config


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing; a codec folder needs it: restore the folder") from error
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON ({error}); restore the file") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} holds a {type(values).__name__}, not a JSON object; restore the file")
    return values


def _build(config: AudioCodecConfig, path: Path) -> Any:
    """Build the autoencoder that `config.json` describes, without its weights."""
    own = _read_json(path)
    try:
        if config.class_name == "AutoencoderLogMel":
            return AutoencoderLogMel(LogMelConfig(**own))
        from diffusers.models import AutoencoderOobleck

        return AutoencoderOobleck.from_config(own)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path} does not build a {config.class_name}: {error}; restore it") from error


def _load_weights(autoencoder: nn.Module, folder: Path, sha256: str | None) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load

    path = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if path is None:
        raise CheckpointError(f"{folder / WEIGHT_FILES[0]} is missing; restore it (only safetensors are read)")
    data = path.read_bytes()
    if sha256 and hashlib.sha256(data).hexdigest() != sha256:
        raise CheckpointError(f"{path} is damaged: its SHA-256 differs from {CONFIG_FILE}; restore the file")
    try:
        autoencoder.load_state_dict({name: value.float() for name, value in load(data).items()})
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged ({error}); restore the file") from error
    except RuntimeError as error:  # a heading, then a line for each weight that differs
        first = " ".join(str(error).split("\n")[1:2]).strip() or str(error)
        raise CheckpointError(f"{path} does not fit {folder / 'config.json'}: {first}; restore both") from error


def _statistics(config: AudioCodecConfig, num_channels: int) -> tuple[Tensor, Tensor]:
    mean = config.latents_mean or (0.0,) * num_channels
    std = config.latents_std or (1.0,) * num_channels
    if len(mean) != num_channels or len(std) != num_channels or not min(std) > 0:
        raise CheckpointError(
            f"{CONFIG_FILE}: latents_mean and latents_std need {num_channels} values, all of std positive; "
            f"got {len(mean)} and {len(std)}; measure them with training/codecs"
        )
    return torch.tensor(mean, dtype=torch.float32), torch.tensor(std, dtype=torch.float32)


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
        autoencoder = _build(config, folder / "config.json")
        _load_weights(autoencoder, folder, config.sha256)
        return cls(autoencoder, config)

    def save(self, path: str | Path) -> None:
        """Write the folder that `from_folder` reads; weights in the config's `stored_dtype`."""
        from safetensors.torch import save

        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        dtype = cast(torch.dtype, getattr(torch, self.config.stored_dtype))
        weights = self.autoencoder.state_dict().items()
        data = save({name: value.to("cpu", dtype).contiguous() for name, value in weights})
        (folder / WEIGHT_FILES[0]).write_bytes(data)
        config = dataclasses.replace(self.config, sha256=hashlib.sha256(data).hexdigest())
        text = json.dumps(dataclasses.asdict(config), indent=1)
        (folder / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")
        if self.is_log_mel:
            own = json.dumps(dataclasses.asdict(self.autoencoder.config), indent=1)
            (folder / "config.json").write_text(own + "\n", encoding="utf-8")
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
