"""AutoencoderKLWan on single frames: the same numbers as its causal 3-D path, at the price of 2-D.

Before a lone frame every causal convolution sees nothing but zeros, so it equals the 2-D convolution
with the last temporal slice of its kernel, and the convolutions that halve or double time are not run.
B pictures, C channels, H rows, W columns; all tensors are channels-last in memory, where they are fastest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from diffusers.models import AutoencoderKLWan

__all__ = ["FramePath"]


def _flat_conv(conv: Any) -> nn.Conv2d:
    """Build the 2-D convolution that a causal (or already 2-D) convolution is on a single frame."""
    kernel, stride = tuple(conv.kernel_size[-2:]), tuple(conv.stride[-2:])
    padding = (conv._padding[2], conv._padding[0]) if hasattr(conv, "_padding") else tuple(conv.padding)
    flat = nn.Conv2d(conv.in_channels, conv.out_channels, kernel, stride, padding)
    with torch.no_grad():
        flat.weight.copy_(conv.weight[:, :, -1] if conv.weight.dim() == 5 else conv.weight)
        if flat.bias is not None:
            flat.bias.copy_(conv.bias)
    return flat


class _Norm(nn.Module):
    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.gamma = nn.Parameter(norm.gamma.detach().clone())

    def forward(self, x: Tensor) -> Tensor:  # [B, C, H, W]
        last = x.permute(0, 2, 3, 1)
        return F.rms_norm(last, last.shape[-1:], self.gamma.flatten(), eps=1e-12).permute(0, 3, 1, 2)


class _Residual(nn.Module):
    def __init__(self, block: Any) -> None:
        super().__init__()
        self.norm1, self.conv1 = _Norm(block.norm1), _flat_conv(block.conv1)
        self.norm2, self.conv2 = _Norm(block.norm2), _flat_conv(block.conv2)
        is_same = isinstance(block.conv_shortcut, nn.Identity)
        self.conv_shortcut = nn.Identity() if is_same else _flat_conv(block.conv_shortcut)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x)))
        return self.conv2(F.silu(self.norm2(y))) + self.conv_shortcut(x)


class _Attention(nn.Module):
    def __init__(self, block: Any) -> None:
        super().__init__()
        self.norm, self.to_qkv, self.proj = (
            _Norm(block.norm),
            _flat_conv(block.to_qkv),
            _flat_conv(block.proj),
        )

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = x.shape[-2:]
        qkv = self.to_qkv(self.norm(x)).flatten(2).transpose(1, 2)[:, None]  # [B, 1, H * W, 3 C]
        mixed = F.scaled_dot_product_attention(*qkv.chunk(3, dim=-1))
        return self.proj(mixed[:, 0].transpose(1, 2).unflatten(2, (rows, columns))) + x


class _Resample(nn.Module):
    def __init__(self, block: Any) -> None:
        super().__init__()
        self.is_up = block.mode.startswith("upsample")
        self.resample = nn.ModuleDict({"1": _flat_conv(block.resample[1])})

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(x, scale_factor=2.0, mode="nearest-exact") if self.is_up else F.pad(x, (0, 1, 0, 1))
        return self.resample["1"](x)


def _flatten(block: Any) -> nn.Module:
    """Rebuild one Wan block for single frames; parameters keep their names."""
    kinds = {"WanResidualBlock": _Residual, "WanAttentionBlock": _Attention, "WanResample": _Resample}
    return kinds[type(block).__name__](block)


class _Mid(nn.Module):
    def __init__(self, block: Any) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(map(_flatten, block.resnets))
        self.attentions = nn.ModuleList(map(_flatten, block.attentions))

    def forward(self, x: Tensor) -> Tensor:
        x = self.resnets[0](x)
        for attention, resnet in zip(self.attentions, self.resnets[1:], strict=True):
            x = resnet(attention(x))
        return x


class _Up(nn.Module):
    def __init__(self, block: Any) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(map(_flatten, block.resnets))
        self.upsamplers = nn.ModuleList(map(_flatten, block.upsamplers or []))

    def forward(self, x: Tensor) -> Tensor:
        for layer in (*self.resnets, *self.upsamplers):
            x = layer(x)
        return x


class _Encoder(nn.Module):
    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.conv_in, self.conv_out = _flat_conv(encoder.conv_in), _flat_conv(encoder.conv_out)
        self.down_blocks = nn.ModuleList(map(_flatten, encoder.down_blocks))
        self.mid_block, self.norm_out = _Mid(encoder.mid_block), _Norm(encoder.norm_out)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        return self.conv_out(F.silu(self.norm_out(self.mid_block(x))))


class _Decoder(nn.Module):
    def __init__(self, decoder: Any) -> None:
        super().__init__()
        self.conv_in, self.conv_out = _flat_conv(decoder.conv_in), _flat_conv(decoder.conv_out)
        self.up_blocks = nn.ModuleList(map(_Up, decoder.up_blocks))
        self.mid_block, self.norm_out = _Mid(decoder.mid_block), _Norm(decoder.norm_out)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mid_block(self.conv_in(x))
        for block in self.up_blocks:
            x = block(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class FramePath(nn.Module):
    """Encode and decode lone frames with the weights of an AutoencoderKLWan.

    It holds copies of the last temporal slices under the parameter names of the original;
    `write_back` puts them, trained or not, into the original again.

    Args:
        autoencoder: the codec, without residual shortcuts around its blocks (`is_residual` false).
    """

    def __init__(self, autoencoder: AutoencoderKLWan) -> None:
        super().__init__()
        assert not autoencoder.config.is_residual, "the frame path does not know Wan 2.2's block shortcuts"
        self.patch_size = autoencoder.config.patch_size or 1
        self.encoder, self.decoder = _Encoder(autoencoder.encoder), _Decoder(autoencoder.decoder)
        self.quant_conv = _flat_conv(autoencoder.quant_conv)
        self.post_quant_conv = _flat_conv(autoencoder.post_quant_conv)
        self.to(device=autoencoder.device, dtype=autoencoder.dtype)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def encode(self, pixels: Tensor) -> Tensor:
        """Compress pictures in [-1, 1], [B, 3, H, W], into [B, 2 C, H/8, W/8]: means, then log variances."""
        x = pixels.contiguous(memory_format=torch.channels_last)
        if self.patch_size > 1:
            x = self._swap(F.pixel_unshuffle(x, self.patch_size))
        return self.quant_conv(self.encoder(x))

    def decode(self, latents: Tensor) -> Tensor:
        """Rebuild pictures, about in [-1, 1], not clamped, [B, 3, H, W], from latents [B, C, H/8, W/8]."""
        x = self.post_quant_conv(latents.contiguous(memory_format=torch.channels_last))
        x = self.decoder(x)
        return F.pixel_shuffle(self._swap(x), self.patch_size) if self.patch_size > 1 else x

    def _swap(self, x: Tensor) -> Tensor:
        """Exchange the row and column of a patch: Wan orders its channels by column, then row."""
        patch = (self.patch_size, self.patch_size)
        return x.unflatten(1, (-1, *patch)).transpose(2, 3).flatten(1, 3)

    @torch.no_grad()
    def write_back(self, autoencoder: AutoencoderKLWan) -> None:
        """Copy the parameters held here into the last temporal slices of the original."""
        targets = dict(autoencoder.named_parameters())
        for name, value in self.named_parameters():
            target = targets[name]
            (target[:, :, -1] if target.dim() == value.dim() + 1 and value.dim() == 4 else target).copy_(value)
