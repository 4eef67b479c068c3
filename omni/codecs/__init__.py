"""Codecs turn media into latents and back."""

from omni.codecs.audio import AudioCodec, AudioCodecConfig
from omni.codecs.vision import CodecConfig, VisionCodec

__all__ = ["AudioCodec", "AudioCodecConfig", "CodecConfig", "VisionCodec"]
