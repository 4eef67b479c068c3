"""The vision codec: pixels <-> normalised latents, by any autoencoder of diffusers, named in a config.

A codec folder holds `codec_config.json` (class and statistics), `config.json` (the autoencoder's own),
`model.safetensors` and a card. B clips, F frames, H rows, W columns, C latent channels.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from omni.codecs.clips import ClipPath
from omni.codecs.folder import (
    CONFIG_FILE,
    OWN_CONFIG,
    check_statistics,
    load_weights,
    read_config,
    read_json,
    write_folder,
)
from omni.codecs.frames import FramePath
from omni.errors import CheckpointError, InputError

__all__ = ["CodecConfig", "FilmDecoder", "VisionCodec"]

MAX_CLIP_PIXELS = 2**22  # of all clips of a call


@dataclasses.dataclass(frozen=True)
class CodecConfig:
    """What a codec knows beyond its weights.

    Args:
        class_name: an autoencoder class of `diffusers.models`.
        package: where the class comes from.
        latents_mean: mean of each latent channel; without it, what the autoencoder's own config says.
        latents_std: standard deviation of each channel, likewise.
        rgb_map: linear map from normalised latents to RGB in [0, 1]; C rows and a last one for the constant.
        stored_dtype: precision of the weights on disk; in memory they are float32.
        sha256: digest of the weights file; compared on loading when given.
    """

    class_name: str
    package: str = "diffusers"
    latents_mean: tuple[float, ...] | None = None
    latents_std: tuple[float, ...] | None = None
    rgb_map: tuple[tuple[float, float, float], ...] | None = None
    stored_dtype: str = "float32"
    sha256: str | None = None

    @classmethod
    def from_file(cls, path: Path) -> CodecConfig:
        """Read a config; raise CheckpointError when it is missing, damaged, or has unknown keys."""
        return read_config(cls, path)


def _autoencoder_class(config: CodecConfig, path: Path) -> Any:
    """Find the named class among diffusers' autoencoders, and nowhere else."""
    import diffusers.models

    is_allowed = config.class_name.startswith(("Autoencoder", "AsymmetricAutoencoder"))
    if config.package != "diffusers" or not is_allowed or not hasattr(diffusers.models, config.class_name):
        raise CheckpointError(
            f"{path}: {config.package}.{config.class_name} is not an autoencoder of the installed diffusers; "
            "name one such as AutoencoderKLWan, AutoencoderKL or AutoencoderDC, or upgrade diffusers"
        )
    return getattr(diffusers.models, config.class_name)


def _fold(value: Tensor) -> Tensor:
    """Leave out the temporal slices of a causal kernel that are zero, as they are until video is trained."""
    return value[:, :, -1] if value.dim() == 5 and not value[:, :, :-1].any() else value


def _unfold(stored: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """Undo `_fold`."""
    state = {}
    for name, value in stored.items():
        if name in expected and expected[name].dim() == 5 and value.dim() == 4:
            shape = expected[name].shape
            value = torch.cat([value.new_zeros(*shape[:2], shape[2] - 1, *shape[3:]), value[:, :, None]], dim=2)
        state[name] = value
    return state


def _statistics(config: CodecConfig, own: Any, num_channels: int) -> tuple[Tensor, Tensor]:
    """Take mean and standard deviation from our config, or else from the autoencoder's."""
    mean: Any = config.latents_mean
    std: Any = config.latents_std
    if mean is None or std is None:
        # diffusers keeps either lists per channel (Wan) or one scale and shift (FLUX, SD3, DC-AE).
        mean = own.get("latents_mean") or [own.get("shift_factor") or 0.0] * num_channels
        std = own.get("latents_std") or [1.0 / (own.get("scaling_factor") or 1.0)] * num_channels
    return check_statistics(mean, std, num_channels)


class VisionCodec(nn.Module):
    """Turn pixels into latents of about unit variance, and back.

    Args:
        autoencoder: an autoencoder of diffusers, for pictures or (with 3-D convolutions) for video.
        config: class, statistics and preview map.

    Raises:
        CheckpointError: the statistics do not fit the autoencoder.
    """

    latents_mean: Tensor
    latents_std: Tensor
    rgb_map: Tensor

    def __init__(self, autoencoder: Any, config: CodecConfig) -> None:
        super().__init__()
        self.autoencoder = autoencoder.eval().requires_grad_(False)
        self.is_video = any(isinstance(module, nn.Conv3d) for module in autoencoder.modules())
        is_plain_wan = config.class_name == "AutoencoderKLWan" and not autoencoder.config.is_residual
        self.frames = FramePath(autoencoder).requires_grad_(False) if is_plain_wan else None
        # A trial encoding tells the compression of any class; the configs call it by many names.
        trial = self._compress(torch.zeros(1, 1, 64, 64, 3))
        self.spatial_factor = 64 // trial.shape[2]
        self.channels = trial.shape[-1]
        self._frames_per_latent: int | None = None
        self._clips: ClipPath | None = None
        mean, std = _statistics(config, autoencoder.config, self.channels)
        self.register_buffer("latents_mean", mean, persistent=False)
        self.register_buffer("latents_std", std, persistent=False)
        rgb_map = torch.tensor(config.rgb_map or [[0.0] * 3] * (self.channels + 1), dtype=torch.float32)
        if rgb_map.shape != (self.channels + 1, 3):
            raise CheckpointError(f"{CONFIG_FILE}: rgb_map needs {self.channels + 1} rows of 3; fit it again")
        self.register_buffer("rgb_map", rgb_map, persistent=False)
        self.config = dataclasses.replace(config, latents_mean=tuple(mean.tolist()), latents_std=tuple(std.tolist()))

    @property
    def frames_per_latent(self) -> int:
        """Pictures that a latent frame stands for, but a film's first, which stands for one; 1 for a picture codec."""
        if self._frames_per_latent is None:
            side, num_frames = 2 * self.spatial_factor, 17
            with torch.no_grad():
                trial = self._compress(torch.zeros(1, num_frames, side, side, 3, device=self.latents_mean.device))
            self._frames_per_latent = (num_frames - 1) // max(1, trial.shape[1] - 1)
        return self._frames_per_latent

    @classmethod
    def from_folder(cls, path: str | Path) -> VisionCodec:
        """Load a codec folder, weights in float32.

        Raises:
            CheckpointError: a file is missing, damaged or of another shape, or the class is not allowed.
        """
        folder = Path(path)
        config = CodecConfig.from_file(folder / CONFIG_FILE)
        autoencoder_class = _autoencoder_class(config, folder / CONFIG_FILE)
        own = read_json(folder / OWN_CONFIG)
        try:
            autoencoder = autoencoder_class.from_config(own)
        except (TypeError, ValueError) as error:
            message = f"{folder / OWN_CONFIG} does not build a {config.class_name}: {error}; restore it"
            raise CheckpointError(message) from error
        load_weights(autoencoder, folder, config.sha256, restore=_unfold)
        return cls(autoencoder, config)

    def save(self, path: str | Path) -> None:
        """Write the folder that `from_folder` reads; weights in the config's `stored_dtype`."""
        folder = Path(path)
        weights = {name: _fold(value) for name, value in self.autoencoder.state_dict().items()}
        write_folder(folder, self.config, weights)
        self.autoencoder.save_config(folder)

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """Compress pictures (F = 1) or clips into normalised latents.

        Args:
            pixels: uint8, [B, F, H, W, 3]; H and W multiples of `spatial_factor`.

        Returns:
            float32, [B, F', H / spatial_factor, W / spatial_factor, C].

        Raises:
            InputError: the shape or the type is wrong.
        """
        if pixels.dim() != 5 or pixels.shape[-1] != 3 or pixels.dtype != torch.uint8:
            shape = list(pixels.shape)
            raise InputError(f"pixels are {pixels.dtype} {shape}; give uint8 [clips, frames, rows, columns, 3]")
        if pixels.shape[2] % self.spatial_factor or pixels.shape[3] % self.spatial_factor:
            size = tuple(pixels.shape[2:4])
            raise InputError(f"picture size {size} must be a multiple of {self.spatial_factor}; resize it first")
        latents = self._compress(pixels.to(self.latents_mean.device).float() / 127.5 - 1.0)
        return (latents - self.latents_mean) / self.latents_std

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Rebuild pixels, uint8 [B, F, H, W, 3], from normalised latents [B, F', H', W', C].

        Raises:
            InputError: the shape is wrong.
        """
        return _to_bytes(self._rebuild(self._denormalise(latents)))

    def film_decoder(self) -> FilmDecoder:
        """Return a decoder that takes a film's latents piece by piece; joined, its frames equal decode()'s."""
        return FilmDecoder(self)

    def _denormalise(self, latents: Tensor) -> Tensor:
        self._check_latents(latents)
        return latents.to(self.latents_mean.device).float() * self.latents_std + self.latents_mean

    @torch.no_grad()
    def preview(self, latents: Tensor) -> Tensor:
        """Guess small pictures, uint8 [B, F', H', W', 3], one pixel a latent; nearly free.

        Raises:
            InputError: the shape is wrong.
        """
        self._check_latents(latents)
        weight, constant = self.rgb_map[:-1], self.rgb_map[-1]
        colours = latents.to(weight.device).float() @ weight + constant
        return colours.mul(255.0).round().clamp(0, 255).to(torch.uint8)

    def _check_latents(self, latents: Tensor) -> None:
        if latents.dim() != 5 or latents.shape[-1] != self.channels:
            raise InputError(f"latents are {list(latents.shape)}; give [clips, frames, rows, columns, {self.channels}]")

    def _compress(self, pixels: Tensor) -> Tensor:  # [B, F, H, W, 3] -> [B, F', H', W', C]
        if self.frames is not None and pixels.shape[1] == 1:
            moments = self.frames.encode(pixels[:, 0].permute(0, 3, 1, 2))
            return moments.chunk(2, dim=1)[0].permute(0, 2, 3, 1)[:, None]
        if self._fits_clip_path(pixels.shape[:4].numel()):
            whole = 1 + (pixels.shape[1] - 1) // 4 * 4
            moments = self._clip_path().encode(pixels[:, :whole].permute(0, 1, 4, 2, 3))
            return moments.chunk(2, dim=2)[0].permute(0, 1, 3, 4, 2)
        if self.is_video:
            return self._latents_of(pixels.permute(0, 4, 1, 2, 3)).permute(0, 2, 3, 4, 1)
        latents = self._latents_of(pixels.flatten(0, 1).permute(0, 3, 1, 2))
        return latents.permute(0, 2, 3, 1).unflatten(0, pixels.shape[:2])

    def _fits_clip_path(self, num_pixels: int) -> bool:
        """Whether clips are small enough to be held as a whole; the class's own path goes piece by piece."""
        return self.frames is not None and num_pixels <= MAX_CLIP_PIXELS

    def _clip_path(self) -> ClipPath:
        if self._clips is None:
            self._clips = ClipPath(self.autoencoder)
        return self._clips

    def _latents_of(self, pixels: Tensor) -> Tensor:
        encoded = self.autoencoder.encode(pixels.to(self.autoencoder.dtype), return_dict=False)[0]
        return (encoded if isinstance(encoded, Tensor) else encoded.mode()).float()

    def _rebuild(self, latents: Tensor) -> Tensor:  # [B, F', H', W', C] -> [B, F, H, W, 3]
        if self.frames is not None and latents.shape[1] == 1:
            return self.frames.decode(latents[:, 0].permute(0, 3, 1, 2)).permute(0, 2, 3, 1)[:, None]
        if self._fits_clip_path(latents.shape[:4].numel() * 4 * self.spatial_factor**2):
            return self._clip_path().decode(latents.permute(0, 1, 4, 2, 3)).permute(0, 1, 3, 4, 2)
        if self.is_video:
            return self._pixels_of(latents.permute(0, 4, 1, 2, 3)).permute(0, 2, 3, 4, 1)
        pixels = self._pixels_of(latents.flatten(0, 1).permute(0, 3, 1, 2))
        return pixels.permute(0, 2, 3, 1).unflatten(0, latents.shape[:2])

    def _pixels_of(self, latents: Tensor) -> Tensor:
        return self.autoencoder.decode(latents.to(self.autoencoder.dtype), return_dict=False)[0]


def _to_bytes(pixels: Tensor) -> Tensor:
    return pixels.float().add(1.0).mul(127.5).round().clamp(0, 255).to(torch.uint8)


class FilmDecoder:
    """Decode one film as its latents come.

    AutoencoderKLWan carries over what its causal convolutions remember, so a piece costs the same wherever it
    stands. Other classes decode the film so far again.

    Args:
        codec: of the film.

    Attributes:
        num_latents: latent frames decoded so far.
    """

    def __init__(self, codec: VisionCodec) -> None:
        self.codec = codec
        self.num_latents = 0
        self._is_causal = codec.config.class_name == "AutoencoderKLWan"
        self._memory: list[Any] = []
        self._held: list[Tensor] = []
        self._num_frames = 0

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Return the frames, uint8 [B, F, H, W, 3], of the film's next latent frames [B, F', H', W', C].

        Raises:
            InputError: the shape is wrong.
        """
        if self._is_causal:
            pixels = self._go_on(self.codec._denormalise(latents))
        else:
            self._held.append(latents)
            pixels = self.codec.decode(torch.cat(self._held, dim=1))[:, self._num_frames :]
        self.num_latents += latents.shape[1]
        self._num_frames += pixels.shape[1]
        return pixels

    def _go_on(self, latents: Tensor) -> Tensor:
        from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify

        wan = self.codec.autoencoder
        if not self._memory:
            wan.clear_cache()
            self._memory = wan._feat_map
        x = wan.post_quant_conv(latents.permute(0, 4, 1, 2, 3))
        pieces = [
            wan.decoder(
                x[:, :, index : index + 1],
                feat_cache=self._memory,
                feat_idx=[0],
                first_chunk=self.num_latents + index == 0,
            )
            for index in range(x.shape[2])
        ]
        out = torch.cat(pieces, dim=2)
        if wan.config.patch_size is not None:
            out = unpatchify(out, patch_size=wan.config.patch_size)
        return _to_bytes(out.permute(0, 2, 3, 4, 1))
