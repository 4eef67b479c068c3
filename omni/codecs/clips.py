"""AutoencoderKLWan on whole clips: the same numbers as its frame by frame path, several times faster.

The class codes a clip in pieces and carries features over from piece to piece. On a whole clip that is causal
convolution over time: each one is a 2-D convolution of a frame and the two before it, side by side as channels.
B clips, T frames, C channels, H rows, W columns; tensors are [B * T, C, H, W], channels last in memory.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from diffusers.models import AutoencoderKLWan

__all__ = ["ClipPath"]


def _with_past(x: Tensor, clips: int, count: int) -> Tensor:
    """Lay each frame's `count` predecessors (zeros before the clip) and itself side by side as channels."""
    if count == 0:
        return x
    frames = x.unflatten(0, (clips, -1))  # [B, T, C, H, W]
    before = torch.cat([torch.zeros_like(frames[:, :1]).expand(-1, count, -1, -1, -1), frames], dim=1)
    length = frames.shape[1]
    past = torch.cat([before[:, start : start + length] for start in range(count + 1)], dim=2)
    return past.flatten(0, 1).contiguous(memory_format=torch.channels_last)


def _conv(module: Any, x: Tensor, clips: int) -> Tensor:
    """Run a causal convolution (or a 2-D one) over time."""
    if module.weight.dim() == 4:
        return F.conv2d(x, module.weight, module.bias, module.stride, module.padding)
    depth = 1 if getattr(module, "looks_at_one_frame", False) else module.kernel_size[0]
    weight = module.weight[:, :, -depth:].transpose(1, 2).flatten(1, 2)  # [O, depth * I, H, W], oldest frame first
    padding = (module._padding[2], module._padding[0])
    return F.conv2d(_with_past(x, clips, depth - 1), weight, module.bias, module.stride[1:], padding)


def _norm(module: Any, x: Tensor) -> Tensor:
    last = x.permute(0, 2, 3, 1)
    return F.rms_norm(last, last.shape[-1:], module.gamma.flatten(), eps=1e-12).permute(0, 3, 1, 2)


def _residual(block: Any, x: Tensor, clips: int) -> Tensor:
    y = _conv(block.conv1, F.silu(_norm(block.norm1, x)), clips)
    y = _conv(block.conv2, F.silu(_norm(block.norm2, y)), clips)
    return y + (x if isinstance(block.conv_shortcut, nn.Identity) else _conv(block.conv_shortcut, x, clips))


def _attention(block: Any, x: Tensor) -> Tensor:
    rows, columns = x.shape[-2:]
    qkv = F.conv2d(_norm(block.norm, x), block.to_qkv.weight, block.to_qkv.bias).flatten(2).transpose(1, 2)[:, None]
    q, k, v = qkv.chunk(3, dim=-1)
    mixed = F.scaled_dot_product_attention(q, k, v)
    mixed = mixed[:, 0].transpose(1, 2).unflatten(2, (rows, columns))
    return F.conv2d(mixed, block.proj.weight, block.proj.bias) + x


def _halve_time(time_conv: Any, x: Tensor, clips: int) -> Tensor:
    """Keep the first frame, and make one of each two that follow, with a look at the one before them."""
    frames = x.unflatten(0, (clips, -1))
    if frames.shape[1] == 1:
        return x
    sides = torch.cat([frames[:, :-2:2], frames[:, 1:-1:2], frames[:, 2::2]], dim=2)
    made = F.conv2d(sides.flatten(0, 1), time_conv.weight.transpose(1, 2).flatten(1, 2), time_conv.bias)
    return torch.cat([frames[:, :1], made.unflatten(0, (clips, -1))], dim=1).flatten(0, 1)


def _double_time(time_conv: Any, x: Tensor, clips: int) -> Tensor:
    """Keep the first frame, and make two of each that follows; the first is not looked at."""
    frames = x.unflatten(0, (clips, -1))
    if frames.shape[1] == 1:
        return x
    made = _conv(time_conv, frames[:, 1:].flatten(0, 1), clips)
    made = made.unflatten(0, (clips, -1)).unflatten(2, (2, -1)).flatten(1, 2)
    return torch.cat([frames[:, :1], made], dim=1).flatten(0, 1)


def _resample(block: Any, x: Tensor, clips: int) -> Tensor:
    if block.mode == "upsample3d":
        x = _double_time(block.time_conv, x, clips)
    if block.mode.startswith("upsample"):
        x = F.interpolate(x, scale_factor=2.0, mode="nearest-exact")
    else:
        x = F.pad(x, (0, 1, 0, 1))
    x = _conv(block.resample[1], x, clips)
    return _halve_time(block.time_conv, x, clips) if block.mode == "downsample3d" else x


def _block(block: Any, x: Tensor, clips: int) -> Tensor:
    kind = type(block).__name__
    if kind == "WanResample":
        return _resample(block, x, clips)
    return _attention(block, x) if kind == "WanAttentionBlock" else _residual(block, x, clips)


def _mid(block: Any, x: Tensor, clips: int) -> Tensor:
    x = _residual(block.resnets[0], x, clips)
    for attention, resnet in zip(block.attentions, block.resnets[1:], strict=True):
        x = _residual(resnet, _attention(attention, x), clips)
    return x


class ClipPath:
    """Encode and decode whole clips with the weights of an AutoencoderKLWan; gradients reach them.

    Kernels whose earlier temporal slices are all zero look at one frame, at a third of the price.

    Args:
        autoencoder: the codec, without residual shortcuts around its blocks (`is_residual` false).
        trained: names of the kernels whose earlier slices will be trained, zero or not.
    """

    def __init__(self, autoencoder: AutoencoderKLWan, *, trained: Collection[str] = ()) -> None:
        for name, module in autoencoder.named_modules():
            if isinstance(module, nn.Conv3d):
                is_flat = name not in trained and not bool(module.weight[:, :, :-1].any())
                module.looks_at_one_frame = is_flat and "time_conv" not in name  # type: ignore[assignment]
        assert not autoencoder.config.is_residual, "the clip path does not know Wan 2.2's block shortcuts"
        self.autoencoder: Any = autoencoder
        self.patch_size = autoencoder.config.patch_size or 1

    def encode(self, pixels: Tensor) -> Tensor:
        """Compress clips in [-1, 1], [B, T, 3, H, W], into [B, T', 2 C, H/8, W/8]: means, then log variances."""
        wan, clips = self.autoencoder, len(pixels)
        x = pixels.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        if self.patch_size > 1:
            x = self._swap(F.pixel_unshuffle(x, self.patch_size))
        x = _conv(wan.encoder.conv_in, x, clips)
        for block in wan.encoder.down_blocks:
            x = _block(block, x, clips)
        x = _mid(wan.encoder.mid_block, x, clips)
        x = _conv(wan.encoder.conv_out, F.silu(_norm(wan.encoder.norm_out, x)), clips)
        return _conv(wan.quant_conv, x, clips).unflatten(0, (clips, -1))

    def decode(self, latents: Tensor) -> Tensor:
        """Rebuild clips, about in [-1, 1], not clamped, [B, T, 3, H, W], from latents [B, T', C, H/8, W/8]."""
        wan, clips = self.autoencoder, len(latents)
        x = latents.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        x = _conv(wan.decoder.conv_in, _conv(wan.post_quant_conv, x, clips), clips)
        x = _mid(wan.decoder.mid_block, x, clips)
        for block in wan.decoder.up_blocks:
            for layer in (*block.resnets, *(block.upsamplers or [])):
                x = _block(layer, x, clips)
        x = _conv(wan.decoder.conv_out, F.silu(_norm(wan.decoder.norm_out, x)), clips)
        if self.patch_size > 1:
            x = F.pixel_shuffle(self._swap(x), self.patch_size)
        return x.unflatten(0, (clips, -1))

    def _swap(self, x: Tensor) -> Tensor:
        """Exchange the row and column of a patch: Wan orders its channels by column, then row."""
        patch = (self.patch_size, self.patch_size)
        return x.unflatten(1, (-1, *patch)).transpose(2, 3).flatten(1, 3)
