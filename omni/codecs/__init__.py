"""Codecs turn media into latents and back."""

from omni.codecs.audio import AudioCodec, AudioCodecConfig
from omni.codecs.folder import latents_digest
from omni.codecs.vision import CodecConfig, VisionCodec

__all__ = ["AudioCodec", "AudioCodecConfig", "Codec", "CodecConfig", "VisionCodec", "codec_class", "latents_digest"]

Codec = VisionCodec | AudioCodec


def codec_class(stream: str) -> type[VisionCodec] | type[AudioCodec]:
    """Return the class of a stream's codec: sound has one of its own."""
    return AudioCodec if stream == "audio" else VisionCodec
