"""Recordings as parts of messages."""

import os
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omni.errors import InputError
from omni.limits import Limits
from omni.sources import as_array, open_source, shorten, sniff, source_name, write_file

__all__ = ["Audio"]


@dataclass(frozen=True, eq=False)
class Audio:
    """A recording.

    Attributes:
        samples: float32, [channels, T], in [-1, 1].
        sample_rate: samples a second.
        metadata: settings kept in files (prompt, seed and the like); anything JSON can hold.
    """

    samples: NDArray[np.float32]
    sample_rate: int
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        samples = self.samples
        if samples.dtype != np.float32 or samples.ndim != 2 or not samples.size:
            raise InputError(
                f"Audio takes float32 samples of [channels, samples], not {samples.dtype} of {list(samples.shape)}; "
                "use Audio.load for everything else."
            )
        if not (samples.min() >= -1 and samples.max() <= 1):  # a NaN anywhere makes both NaN
            raise InputError("Audio takes samples from -1 to 1, without NaN; scale or clip them.")
        if isinstance(self.sample_rate, bool) or not isinstance(self.sample_rate, int) or self.sample_rate < 1:
            raise InputError(f"Audio takes a sample_rate of 1 or more, an int, not {shorten(self.sample_rate)}.")

    @classmethod
    def load(
        cls, source: Any, *, sample_rate: int | None = None, limits: Limits | None = None, allow_urls: bool = False,
        name: str = "",
    ) -> "Audio":  # fmt: skip
        """Read a recording from wherever it is.

        A file that breaks off gives what can be read of it. What a lossy codec overshoots is clipped.

        Args:
            source: a path or the bytes of a WAV, FLAC, Ogg, MP3 file or of an MP4, MOV or WebM clip with sound,
                an array (floats from -1 to 1, or int16; [T] or [channels, T]), an Audio, or, where allowed,
                an http(s) URL.
            sample_rate: samples a second of an array; files know theirs.
            limits: bounds on it, checked before it is decoded and on the way.
            allow_urls: fetch URLs, from public addresses.
            name: what errors call it; else made from the source.

        Raises:
            InputError: it cannot be had, is no recording, is damaged, or is out of bounds.
        """
        from omni.sounds import decode_sound, read_sound, sound_from_array

        limits = limits or Limits()
        name = source_name(source, what="recording", name=name)
        is_array = hasattr(source, "__array__")
        if sample_rate is not None and not is_array:
            raise InputError(f"{name} has its own sample rate; leave sample_rate out, or use .resampled.")
        if isinstance(source, Audio):
            return source
        if is_array:
            if isinstance(sample_rate, bool) or not isinstance(sample_rate, int):
                raise InputError(f"{name} is an array; say how many samples a second it has, as in sample_rate=16000.")
            sound = sound_from_array(as_array(source, name=name), sample_rate=sample_rate, name=name, limits=limits)
            return cls(sound.samples, sound.sample_rate)
        file = open_source(
            source, what="recording", name=name, max_bytes=limits.max_media_bytes, limits=limits, allow_urls=allow_urls
        )
        if file is None:
            raise InputError(f"{name} is a {type(source).__name__}; give a path, bytes or an array.")
        with file:
            kind = sniff(file)
            if kind in ("mov", "matroska", "mp3"):
                sound = decode_sound(file, kind, name=name, limits=limits)
            elif kind in ("wav", "flac", "ogg"):
                sound = read_sound(file, name=name, limits=limits)
            else:
                raise InputError(f"{name} is not a recording this model reads; save it as WAV, FLAC, Ogg or MP3.")
        return cls(sound.samples, sound.sample_rate, sound.metadata)

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.samples.shape[1] / self.sample_rate

    def resampled(self, sample_rate: int, *, mono: bool = True) -> "Audio":
        """Change the sample rate, by a windowed-sinc filter.

        Args:
            sample_rate: samples a second.
            mono: mix all channels to one, their mean.
        """
        from omni.sounds import resample

        if isinstance(sample_rate, bool) or not isinstance(sample_rate, int) or sample_rate < 1:
            raise InputError(f"sample_rate is {shorten(sample_rate)}; give an int of 1 or more.")
        samples = self.samples.mean(axis=0, keepdims=True, dtype=np.float32) if mono else self.samples
        return replace(self, samples=resample(samples, old=self.sample_rate, new=sample_rate), sample_rate=sample_rate)

    def to_bytes(self, suffix: str = ".wav") -> bytes:
        """Return the bytes of a .wav, .flac, .ogg or .mp3 file, metadata included.

        Raises:
            InputError: another suffix, or more channels than the format keeps.
        """
        from omni.writers import SOUND_FORMATS, write_sound

        if suffix.lower() not in SOUND_FORMATS:
            raise InputError(f"Cannot save sound as {suffix!r}; use .wav, .flac, .ogg or .mp3.")
        return write_sound(self.samples, self.sample_rate, kind=SOUND_FORMATS[suffix.lower()], metadata=self.metadata)

    def save(self, path: str | os.PathLike[str], *, metadata: Mapping[str, Any] | None = None) -> None:
        """Write a .wav or .flac (16 bits), .ogg (Vorbis) or .mp3 file; metadata go into its comment.

        Args:
            path: where to; its suffix chooses the format.
            metadata: in place of the recording's own.

        Raises:
            InputError: another suffix, more channels than the format keeps, or the file cannot be written.
        """
        audio = self if metadata is None else replace(self, metadata=metadata)
        write_file(path, audio.to_bytes(Path(path).suffix))

    def __repr__(self) -> str:
        return f"Audio(channels={len(self.samples)}, sample_rate={self.sample_rate}, duration_s={self.duration_s:.3f})"

    def _repr_html_(self) -> str:
        return f'<audio controls src="data:audio/wav;base64,{b64encode(self.to_bytes()).decode()}"></audio>'
