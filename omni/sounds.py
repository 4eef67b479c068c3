"""Sound from files and arrays: float32 [channels, T] in [-1, 1], within limits, or one sentence why not."""

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from omni.containers import comment_settings, decoded, opened, packets, settings_of, sound_stream
from omni.errors import InputError
from omni.images import METADATA_KEY
from omni.limits import Limits
from omni.sources import Deadline

if TYPE_CHECKING:
    from av.audio.stream import AudioStream

__all__ = ["Samples", "Sound", "check_sound", "decode_sound", "read_sound", "resample", "sound_from_array"]

_JUMP_S = 0.1  # of sound missing, from which on silence takes its place
_MAX_PADDING = 2_304  # samples an encoder adds at the end
_MAX_PEAK = 8.0  # of a file; beyond, it is on another scale
_INTEGERS = {"u1": 7, "i2": 15, "i4": 31, "i8": 63}
_BLOCK = 1 << 16
_READ_BLOCK = 1 << 12  # at most so much before damage is lost
_MANY_CHANNELS = 8


@dataclass(frozen=True)
class Sound:
    """What was decoded: samples float32, [channels, T]."""

    samples: NDArray[np.float32]
    sample_rate: int
    metadata: dict[str, Any]


def check_sound(*, channels: int, num_samples: int, sample_rate: int, name: str, limits: Limits) -> None:
    """Refuse sound without samples, at an unusual rate, of too many channels or too long."""
    if not limits.min_sample_rate <= sample_rate <= limits.max_sample_rate:
        raise InputError(
            f"{name} has {sample_rate} samples a second; resample it to between {limits.min_sample_rate} "
            f"and {limits.max_sample_rate}."
        )
    if not 1 <= channels <= limits.max_audio_channels:
        raise InputError(f"{name} has {channels} channels; mix it down to at most {limits.max_audio_channels}.")
    if num_samples < 1:
        raise InputError(f"{name} is empty (0 samples); send another recording.")
    if num_samples > limits.max_audio_seconds * sample_rate:
        raise InputError(f"{name} lasts {num_samples / sample_rate:.6g} s; cut it to {limits.max_audio_seconds:g} s.")
    if num_samples * channels > limits.max_audio_samples:
        raise InputError(
            f"{name} has {num_samples * channels} samples in {channels} channels; cut or resample it "
            f"to at most {limits.max_audio_samples}."
        )


def _finished(samples: NDArray[np.float32], *, name: str) -> NDArray[np.float32]:
    """Clip what lossy codecs overshoot; refuse what is no sound."""
    low, high = float(samples.min()), float(samples.max())  # a NaN anywhere makes both NaN
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError(f"{name} has samples that are not numbers; save it again without NaN or infinity.")
    if max(-low, high) > _MAX_PEAK:
        raise InputError(f"{name} has samples from {low:g} to {high:g}; scale them to between -1 and 1.")
    return samples if low >= -1 and high <= 1 else np.clip(samples, -1, 1)


def _floats(frame: Any) -> NDArray[np.float32]:
    """Convert decoded sound of any sample format to float32 [channels, n]."""
    values = frame.to_ndarray()
    if not frame.format.is_planar:
        values = values.reshape(-1, frame.layout.nb_channels).T
    kind = values.dtype.str[1:]
    if kind == "u1":
        values = values.astype(np.int16) - 128
    scale = 1.0 / 2 ** _INTEGERS[kind] if kind in _INTEGERS else 1.0
    return values.astype(np.float32) * np.float32(scale)


class Samples:
    """Sound, gathered as it is decoded, up to the limits."""

    def __init__(self, stream: "AudioStream", *, name: str, limits: Limits, start_s: Fraction | None) -> None:
        self._stream, self._name, self._limits, self._start_s = stream, name, limits, start_s
        self._rate, self._channels, self._length = 0, 0, 0
        self._pieces: list[NDArray[np.float32]] = []
        self._packer: Any = None

    def put(self, frame: Any) -> None:
        """Add decoded sound, with silence where its time stamp says that some is missing."""
        samples = _floats(self._packed(frame))
        channels, rate = samples.shape[0], frame.sample_rate
        if not self._rate:
            self._rate, self._channels = rate, channels
            if self._start_s is None:
                self._start_s = Fraction(frame.time or 0)
        if (channels, rate) != (self._channels, self._rate):
            raise self._changed()
        if frame.pts is not None and self._start_s is not None:
            begins = round((frame.pts * frame.time_base - self._start_s) * rate)
            if not self._pieces and begins < 0:
                samples = samples[:, min(-begins, samples.shape[1]) :]
            elif begins - self._length > (_JUMP_S * rate if self._pieces else 0):
                self._add_length(begins - self._length)
                self._pieces.append(np.zeros((channels, begins - self._length), np.float32))
                self._length = begins
        if samples.shape[1]:
            self._add_length(samples.shape[1])
            self._pieces.append(samples)
            self._length += samples.shape[1]

    def _packed(self, frame: Any) -> Any:
        """Interleave the channels where there are eight or more, which av cannot hand out one by one."""
        if not frame.format.is_planar or frame.layout.nb_channels < _MANY_CHANNELS:
            return frame
        if self._packer is None:
            import av

            self._packer = av.AudioResampler(format=frame.format.packed, layout=frame.layout, rate=frame.sample_rate)
        try:
            (packed,) = self._packer.resample(frame)
        except ValueError as error:
            raise self._changed() from error
        return packed

    def _changed(self) -> InputError:
        return InputError(f"{self._name} changes its channels or sample rate on the way; save it again as WAV.")

    def _add_length(self, count: int) -> None:
        check_sound(
            channels=self._channels, num_samples=self._length + count, sample_rate=self._rate,
            name=self._name, limits=self._limits,
        )  # fmt: skip

    @property
    def seconds(self) -> float:
        """Seconds gathered so far."""
        return self._length / self._rate if self._rate else 0.0

    def finish(self, metadata: dict[str, Any]) -> Sound | None:
        """Return the sound, without what an encoder added at the end; None where there is none."""
        if not self._pieces:
            return None
        samples = np.concatenate(self._pieces, axis=1)
        self._pieces.clear()
        stream = self._stream
        if stream.duration and stream.time_base:
            end = round((stream.duration + (stream.start_time or 0)) * stream.time_base * self._rate)
            end -= round((self._start_s or 0) * self._rate)
            if 0 < samples.shape[1] - end <= _MAX_PADDING and end > 0:
                samples = samples[:, :end]
        return Sound(_finished(samples, name=self._name), self._rate, metadata)


def decode_sound(file: BinaryIO, kind: str, *, name: str, limits: Limits) -> Sound:
    """Decode the sound of an MP4, MOV, WebM or MP3 file.

    Args:
        file: perhaps a clip, whose pictures are left out.
        kind: "mov", "matroska" or "mp3", as sniff says.
        name: what errors call it.
        limits: bounds, checked on what the file says, then on what it holds.

    Raises:
        InputError: no sound, another codec, damaged, or out of bounds.
    """
    deadline = Deadline(name=name, limits=limits)
    with opened(file, kind, name=name, limits=limits) as container:
        stream = sound_stream(container, name=name)
        if stream is None:
            raise InputError(f"{name} has no sound; send another recording.")
        # The length of an MP3 is a guess from its first frames.
        says = 0 if kind == "mp3" else round((stream.duration or 0) * (stream.time_base or 0) * stream.rate)
        check_sound(
            channels=stream.channels, num_samples=max(1, says), sample_rate=stream.rate, name=name, limits=limits
        )
        samples = Samples(stream, name=name, limits=limits, start_s=None)
        for packet in packets(container, [stream], deadline):
            for frame in decoded(stream, packet):
                samples.put(frame)
        for frame in decoded(stream, None):
            samples.put(frame)
        settings = settings_of(container)
        sound = samples.finish(settings[METADATA_KEY] if settings else {})
    if sound is None:
        raise InputError(f"{name} is empty (0 samples); send another recording.")
    return sound


def read_sound(file: BinaryIO, *, name: str, limits: Limits) -> Sound:
    """Decode a WAV, FLAC or Ogg file.

    Args:
        file: it.
        name: what errors call it.
        limits: bounds, checked on what the file says, then on what it holds.

    Raises:
        InputError: damaged, of another kind, or out of bounds.
    """
    import soundfile  # type: ignore[import-untyped]

    deadline = Deadline(name=name, limits=limits)
    try:
        with soundfile.SoundFile(file) as recording:
            channels, rate = recording.channels, recording.samplerate
            check = {"channels": channels, "sample_rate": rate, "name": name, "limits": limits}
            # Where a stream does not say how long it is, its length is the largest number there is.
            says = recording.frames if recording.frames < 2**62 else 1
            check_sound(num_samples=says, **check)
            samples, length = np.empty((channels, says), np.float32), 0
            while True:
                deadline.check()
                piece = _read_block(recording, is_first=not length)
                if not len(piece):
                    break
                end = length + len(piece)
                check_sound(num_samples=end, **check)
                if end > samples.shape[1]:
                    samples = np.concatenate([samples, np.empty((channels, end), np.float32)], axis=1)
                samples[:, length:end] = piece.T
                length = end
            check_sound(num_samples=length, **check)
            settings = comment_settings(recording.comment)
    except soundfile.LibsndfileError as error:
        reason = " ".join(str(error.error_string).split())
        raise InputError(f"{name} is damaged or of an unknown kind ({reason[:80]}); save it again as WAV.") from error
    samples = samples if length == samples.shape[1] else samples[:, :length].copy()
    return Sound(_finished(samples, name=name), rate, settings[METADATA_KEY] if settings else {})


def _read_block(recording: Any, *, is_first: bool) -> NDArray[np.float32]:
    """Read [n, channels]; a file that breaks off after its beginning ends there."""
    import soundfile

    try:
        return recording.read(_READ_BLOCK, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError:
        if is_first:
            raise
        return np.empty((0, recording.channels), np.float32)


def sound_from_array(array: NDArray[Any], *, sample_rate: int, name: str, limits: Limits) -> Sound:
    """Convert an array to sound.

    Args:
        array: [T] or [channels, T]; floats in [-1, 1], or int16.
        sample_rate: samples a second.
        name: what errors call it.
        limits: bounds on it.

    Raises:
        InputError: another shape or type, values out of range, or out of bounds.
    """
    shape = "x".join(map(str, array.shape)) or "a single number"
    if array.ndim not in (1, 2):
        raise InputError(f"{name} has shape {shape}; give an array of [channels, samples].")
    channels, length = (1, array.shape[0]) if array.ndim == 1 else array.shape
    if array.ndim == 2 and channels > limits.max_audio_channels >= length > 0:
        raise InputError(f"{name} has shape {shape}; give an array of [channels, samples], transposed.")
    check_sound(channels=channels, num_samples=length, sample_rate=sample_rate, name=name, limits=limits)
    samples = np.atleast_2d(array)
    if samples.dtype == np.int16:
        return Sound(samples.astype(np.float32) / np.float32(2**15), sample_rate, {})
    if not np.issubdtype(samples.dtype, np.floating):
        raise InputError(f"{name} has type {samples.dtype}; give floats from -1 to 1, or int16.")
    low, high = float(samples.min()), float(samples.max())
    if not (low >= -1 and high <= 1):
        raise InputError(f"{name} has values from {low:g} to {high:g}; give floats from -1 to 1, or int16.")
    return Sound(np.array(samples, np.float32), sample_rate, {})


def resample(samples: NDArray[np.float32], *, old: int, new: int) -> NDArray[np.float32]:
    """Change the sample rate with a windowed-sinc filter, each channel alone.

    Args:
        samples: float32, [channels, T].
        old: samples a second.
        new: wanted.

    Returns: float32, [channels, round(T * new / old)], within [-1, 1].
    """
    import av

    if old == new:
        return samples
    length = max(1, round(samples.shape[1] * new / old))
    out = np.zeros((len(samples), length), np.float32)
    for channel, result in zip(samples, out, strict=True):
        options = {"filter_size": "64", "phase_shift": "10", "cutoff": "0.97", "linear_interp": "1"}
        resampler = av.AudioResampler(format="fltp", layout="mono", rate=new, options=options)
        done = 0
        for start in range(0, len(channel) + _BLOCK, _BLOCK):
            frame = None
            if start < len(channel):
                frame = av.AudioFrame.from_ndarray(channel[None, start : start + _BLOCK], format="fltp", layout="mono")
                frame.sample_rate, frame.pts, frame.time_base = old, start, Fraction(1, old)
            for ready in resampler.resample(frame):
                piece = ready.to_ndarray()[0][: length - done]
                result[done : done + len(piece)] = piece
                done += len(piece)
    return np.clip(out, -1, 1)
