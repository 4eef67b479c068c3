"""Codecs turn media into latents and back."""

from omni.codecs.vision import CodecConfig, VisionCodec

__all__ = ["CodecConfig", "VisionCodec"]
