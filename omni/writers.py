"""Write films and sound: MP4 and WebM by av; WAV, FLAC, Ogg and MP3 by soundfile. Settings are kept in the comment."""

import json
from collections.abc import Mapping
from fractions import Fraction
from io import BytesIO
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from omni.errors import InputError
from omni.images import METADATA_KEY
from omni.sounds import resample

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import OutputContainer
    from av.video.stream import VideoStream

__all__ = ["FILM_FORMATS", "SOUND_FORMATS", "write_film", "write_sound"]

FILM_FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".webm": "webm"}
SOUND_FORMATS = {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG", ".mp3": "MP3"}

_LAYOUTS = ("mono", "stereo", "2.1", "4.0", "5.0", "5.1", "6.1", "7.1")
_AAC_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 64_000, 88_200, 96_000)
_MP3_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
_OPUS_RATE = 48_000
_BITS_A_SECOND = 96_000  # of one channel
_MAX_DENOMINATOR = 1_001
_BLOCK = 1 << 16
_FRAME = 1_024
# The colours that conversion gives, to be written into the file: players guess otherwise, by size.
_SMPTE_170M, _LIMITED_RANGE = 6, 1
_CODECS = {
    "mp4": ("libx264", {"crf": "14", "preset": "medium"}),
    "mov": ("libx264", {"crf": "14", "preset": "medium"}),
    "webm": ("libvpx-vp9", {"crf": "20", "b": "0", "deadline": "good", "cpu-used": "5", "row-mt": "1"}),
}


def _even(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Repeat the last row or column of odd sizes, which most players of H.264 cannot show."""
    odd = [(0, size % 2) for size in frames.shape[1:3]]
    return np.pad(frames, [(0, 0), *odd, (0, 0)], mode="edge") if any(b for _, b in odd) else frames


def _next_rate(rate: int, rates: tuple[int, ...]) -> int:
    return next((known for known in rates if known >= rate), rates[-1])


def _add_sound(container: "OutputContainer", samples: NDArray[np.float32], rate: int, kind: str) -> "AudioStream":
    if len(samples) > len(_LAYOUTS):
        raise InputError(f"A film keeps at most {len(_LAYOUTS)} channels of sound, not {len(samples)}; mix them down.")
    codec, rate = ("libopus", _OPUS_RATE) if kind == "webm" else ("aac", _next_rate(rate, _AAC_RATES))
    stream = cast("AudioStream", container.add_stream(codec, rate=rate, layout=_LAYOUTS[len(samples) - 1]))
    stream.codec_context.format = "flt" if kind == "webm" else "fltp"
    stream.bit_rate = _BITS_A_SECOND * len(samples)
    return stream


def _put_sound(container: "OutputContainer", stream: "AudioStream", samples: NDArray[np.float32]) -> None:
    """Encode sound that has the stream's sample rate already; the frames that encoders like are cut on the way."""
    import av

    context, rate = stream.codec_context, stream.rate
    cutter = av.AudioResampler(
        format=context.format, layout=stream.layout, rate=rate, frame_size=context.frame_size or _FRAME
    )
    for start in range(0, samples.shape[1], _BLOCK):
        interleaved = np.ascontiguousarray(samples[:, start : start + _BLOCK].T).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(interleaved, format="flt", layout=stream.layout.name)
        frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
        for ready in cutter.resample(frame):
            container.mux(stream.encode(ready))
    for ready in cutter.resample(None):
        container.mux(stream.encode(ready))
    container.mux(stream.encode())


def write_film(
    frames: NDArray[np.uint8], fps: float, *, samples: NDArray[np.float32] | None, sample_rate: int, kind: str,
    metadata: Mapping[str, Any],
) -> bytes:  # fmt: skip
    """Return the bytes of a film: H.264 with AAC (MP4, MOV), or VP9 with Opus (WebM).

    Args:
        frames: uint8, [F, H, W, 3].
        fps: frames a second.
        samples: float32, [channels, T], or None for a silent film.
        sample_rate: of the samples.
        kind: "mp4", "mov" or "webm".
        metadata: kept in the comment; anything JSON can hold.

    Raises:
        InputError: more channels than a film keeps.
    """
    import av

    codec, settings = _CODECS[kind]
    rate = Fraction(fps).limit_denominator(_MAX_DENOMINATOR)
    comment = json.dumps({METADATA_KEY: dict(metadata), "size": list(frames.shape[1:3])})
    out = BytesIO()
    options = {"fflags": "+bitexact"}
    with av.open(out, "w", format=kind, options=options) as container:
        container.metadata["comment"] = comment
        stream = cast("VideoStream", container.add_stream(codec, rate=rate, options=settings))
        even = frames if kind == "webm" else _even(frames)
        stream.height, stream.width, stream.pix_fmt = even.shape[1], even.shape[2], "yuv420p"
        stream.time_base = 1 / rate
        stream.codec_context.colorspace, stream.codec_context.color_range = _SMPTE_170M, _LIMITED_RANGE
        sound = None
        if samples is not None:
            sound = _add_sound(container, samples, sample_rate, kind)
            samples = resample(samples, old=sample_rate, new=sound.rate)
        for number, pixels in enumerate(even):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace="ITU601", interpolation="AREA")
            frame.pts, frame.time_base = number, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if sound is not None and samples is not None:
            _put_sound(container, sound, samples)
    return out.getvalue()


def write_sound(samples: NDArray[np.float32], sample_rate: int, *, kind: str, metadata: Mapping[str, Any]) -> bytes:
    """Return the bytes of a recording: 16-bit WAV or FLAC, Ogg Vorbis, or MP3.

    Args:
        samples: float32, [channels, T].
        sample_rate: samples a second; MP3 knows only some, and takes the next higher.
        kind: "WAV", "FLAC", "OGG" or "MP3".
        metadata: kept in the comment; anything JSON can hold.

    Raises:
        InputError: the format cannot hold so many channels.
    """
    import soundfile  # type: ignore[import-untyped]

    if kind == "MP3":
        rate = _next_rate(sample_rate, _MP3_RATES)
        samples, sample_rate = resample(samples, old=sample_rate, new=rate), rate
    stream = BytesIO()
    try:
        with soundfile.SoundFile(stream, "w", sample_rate, len(samples), format=kind) as file:
            if metadata:
                file.comment = json.dumps({METADATA_KEY: dict(metadata)})
            for start in range(0, samples.shape[1], _BLOCK):
                file.write(samples[:, start : start + _BLOCK].T)
    except soundfile.LibsndfileError as error:
        raise InputError(
            f"Cannot write {len(samples)} channels at {sample_rate} Hz as {kind} ({error.error_string}); use .wav."
        ) from error
    return stream.getvalue()
