"""Films out of MP4, MOV and WebM files, frame by frame, within limits.

A first pass reads the time stamps without decoding: what a container says of its length need not be true. The second
decodes each frame straight into its place, scaled down where it is large.
"""

import os
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from omni.clock import steady
from omni.containers import decoded, opened, packets, picture_stream, settings_of, sound_stream
from omni.errors import InputError
from omni.images import METADATA_KEY
from omni.limits import Limits
from omni.sounds import Samples, Sound
from omni.sources import Deadline

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

__all__ = ["Film", "check_film", "decode_film", "fitted_size"]

_MAX_REORDERED = 32  # frames that may come later in the file than they are shown
_MAX_THREADS = 4
_MAX_STRETCH = 10  # width of one pixel over its height, or the reverse
_HD_HEIGHT = 720  # from which on untagged colours are those of high definition
_UNTAGGED = 2


@dataclass(frozen=True)
class Film:
    """What was decoded: frames uint8, [F, H, W, 3], with their sound."""

    frames: NDArray[np.uint8]
    fps: Fraction
    sound: Sound | None
    metadata: dict[str, Any]


def fitted_size(height: int, width: int, num_frames: int, *, limits: Limits) -> tuple[int, int]:
    """Return height and width of a clip's frames as they are kept: never enlarged, within both limits on a clip."""
    by_side = limits.max_video_side / max(height, width)
    by_pixels = (limits.max_video_pixels / (num_frames * height * width)) ** 0.5
    scale = min(1.0, by_side, by_pixels)
    return max(1, int(height * scale + 1e-6)), max(1, int(width * scale + 1e-6))


def check_film(*, height: int, width: int, num_frames: int, seconds: float, name: str, limits: Limits) -> None:
    """Refuse frames without a size or too large, and a clip of none, too many or too long."""
    if height < 1 or width < 1:
        raise InputError(
            f"{name} has frames of no size or too large; keep within {limits.max_side} pixels a side and "
            f"{limits.max_frame_pixels / 1e6:g} megapixels a frame."
        )
    if max(height, width) > limits.max_side or height * width > limits.max_frame_pixels:
        raise InputError(
            f"{name} is too large ({width}x{height} pixels); "
            f"keep within {limits.max_side} pixels a side and {limits.max_frame_pixels / 1e6:g} megapixels a frame."
        )
    if num_frames < 1:
        raise InputError(f"{name} has no frames; send another clip.")
    if seconds > limits.max_video_seconds:
        raise InputError(
            f"{name} lasts {seconds:.6g} s; keep within {limits.max_video_seconds:g} s, "
            "or take its beginning with max_frames."
        )
    if num_frames > limits.max_video_frames:
        raise InputError(
            f"{name} has more than {limits.max_video_frames} frames; send a shorter clip, "
            "or take its beginning with max_frames."
        )


def stamp_of(packet: "Packet") -> int | None:
    return packet.dts if packet.pts is None else packet.pts


@dataclass(frozen=True)
class _Plan:
    """Which of a file's frames go where."""

    places: dict[int, NDArray[np.int64]]  # frames of the clip that a time stamp fills
    num_frames: int
    fps: Fraction
    start_s: Fraction


def _plan(
    container: "InputContainer", stream: "VideoStream", *, name: str, limits: Limits, max_frames: int | None,
    deadline: Deadline,
) -> _Plan:  # fmt: skip
    """Read the time stamps of a clip's frames and choose its frame rate."""
    most = min(limits.max_video_frames, max_frames or limits.max_video_frames)
    stamps: dict[int, int] = {}
    for number, packet in enumerate(packets(container, [stream], deadline)):
        if packet.is_discard:  # needed to decode others, and not shown
            continue
        stamp = stamp_of(packet)
        stamps[number if stamp is None else stamp] = packet.duration or 0
        if len(stamps) > most + _MAX_REORDERED:
            break
    ordered = sorted(stamps)[: max_frames or None]
    if not ordered:
        raise InputError(f"{name} has no frames; send another clip.")
    base = stream.time_base or Fraction(1, 1000)
    times = (np.array(ordered, np.float64) - ordered[0]) * float(base)
    declared = [rate for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate) if rate]
    limit = {"height": stream.height, "width": stream.width, "name": name, "limits": limits}
    check_film(num_frames=len(ordered), seconds=float(times[-1]), **limit)  # type: ignore[arg-type]
    fps, chosen = steady(times, last_s=stamps[ordered[-1]] * float(base), tick_s=float(base), declared=declared)
    chosen = chosen[: max_frames or None]
    check_film(num_frames=len(chosen), seconds=len(chosen) / float(fps), **limit)  # type: ignore[arg-type]
    order = np.searchsorted(chosen, np.arange(len(ordered) + 1))
    places = {stamp: np.arange(order[k], order[k + 1]) for k, stamp in enumerate(ordered)}
    return _Plan(places, len(chosen), fps, ordered[0] * base)


@dataclass(frozen=True)
class _Orientation:
    """How a film is to be turned: transposed, then mirrored."""

    is_swapped: bool = False
    row_step: int = 1
    column_step: int = 1

    def turn(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Turn a frame, [H, W, 3]."""
        if self.is_swapped:
            pixels = pixels.transpose(1, 0, 2)
        return pixels[:: self.row_step, :: self.column_step]


def _orientation(frame: "VideoFrame") -> _Orientation:
    """Read a display matrix: quarter turns and mirrors.

    To be asked of one frame alone: asking ties the frame into a cycle, and its memory waits for the collector.
    """
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return _Orientation()
    a, b, _, c, d = np.frombuffer(cast(Any, matrix), np.int32)[:5].tolist()
    is_swapped = abs(b) > abs(a)
    across, down = (c, b) if is_swapped else (a, d)
    return _Orientation(is_swapped, -1 if down < 0 else 1, -1 if across < 0 else 1)


def _square(frame: "VideoFrame", stretch: Fraction | None) -> tuple[int, int]:
    """Return height and width of a frame with square pixels."""
    ratio = float(stretch or 1)
    if not 1 / _MAX_STRETCH <= ratio <= _MAX_STRETCH:
        ratio = 1.0
    height, width = frame.height, frame.width
    return (height, max(1, round(width * ratio))) if ratio < 1 else (max(1, round(height / ratio)), width)


def _pixels(frame: "VideoFrame", size: tuple[int, int]) -> NDArray[np.uint8]:
    """Convert a frame of any pixel format to uint8 [H, W, 3], of a size."""
    same = (frame.height, frame.width) == size
    colours = None
    if frame.colorspace == _UNTAGGED:
        colours = "ITU709" if frame.height >= _HD_HEIGHT else "ITU601"
    converted = frame.reformat(
        height=size[0], width=size[1], format="rgb24", src_colorspace=colours, threads=1,
        interpolation="BICUBIC" if same else "AREA",
    )  # fmt: skip
    return cast(NDArray[np.uint8], converted.to_ndarray())


class _Frames:
    """A clip's frames, filled in as they are decoded."""

    def __init__(self, plan: _Plan, stream: "VideoStream", *, limits: Limits) -> None:
        self._plan, self._stream, self._limits = plan, stream, limits
        self._filled = np.zeros(plan.num_frames, bool)
        self._size = (0, 0)
        self._orientation = _Orientation()
        self.frames: NDArray[np.uint8] = np.empty((0, 0, 0, 3), np.uint8)

    def put(self, frame: "VideoFrame") -> None:
        """Put a decoded frame wherever its time stamp belongs."""
        places = self._plan.places.get(frame.pts if frame.pts is not None else int((~self._filled).argmax()))
        if places is None or not len(places):
            return
        if not self.frames.size:
            size = _square(frame, self._stream.sample_aspect_ratio)
            self._size = fitted_size(*size, self._plan.num_frames, limits=self._limits)
            self._orientation = _orientation(frame)
        pixels = self._orientation.turn(_pixels(frame, self._size))
        if not self.frames.size:
            self.frames = np.empty((self._plan.num_frames, *pixels.shape), np.uint8)
        if pixels.shape == self.frames.shape[1:]:
            self.frames[places] = pixels
            self._filled[places] = True

    @property
    def is_full(self) -> bool:
        """Every frame is there."""
        return bool(self._filled.all())

    def finish(self, *, name: str) -> NDArray[np.uint8]:
        """Return the frames, a lost one as the one before it, and none after the last that was found."""
        if 2 * int(self._filled.sum()) < self._plan.num_frames:
            raise InputError(f"{name} is damaged (most of its frames cannot be decoded); save it again as MP4 or WebM.")
        found = np.flatnonzero(self._filled)
        lost = np.flatnonzero(~self._filled[: found[-1] + 1])
        self.frames[lost] = self.frames[found[np.searchsorted(found, lost).clip(1) - 1]]
        return self.frames[: found[-1] + 1]


def _set_threads(stream: "VideoStream", *, limits: Limits) -> None:
    context = stream.codec_context
    context.options = {"max_pixels": str(limits.max_frame_pixels)}
    context.thread_type = "AUTO"
    context.thread_count = min(_MAX_THREADS, os.cpu_count() or 1)


def decode_film(file: BinaryIO, kind: str, *, name: str, limits: Limits, max_frames: int | None) -> Film:
    """Decode a clip with its sound.

    Args:
        file: an MP4, MOV or WebM file.
        kind: "mov" or "matroska", as sniff says.
        name: what errors call it.
        limits: bounds, checked on what the file says, then on what it holds.
        max_frames: take the first frames alone, however long the clip is.

    Raises:
        InputError: no pictures, another codec, damaged, or out of bounds.
    """
    deadline = Deadline(name=name, limits=limits)
    with opened(file, kind, name=name, limits=limits) as container:
        stream = picture_stream(container, name=name)
        seconds = 0.0 if max_frames else (container.duration or 0) / 1e6
        check_film(height=stream.height, width=stream.width, num_frames=1, seconds=seconds, name=name, limits=limits)
        plan = _plan(container, stream, name=name, limits=limits, max_frames=max_frames, deadline=deadline)
    with opened(file, kind, name=name, limits=limits) as container:
        stream, heard = picture_stream(container, name=name), sound_stream(container, name=name)
        settings = settings_of(container)
        _set_threads(stream, limits=limits)
        frames = _Frames(plan, stream, limits=limits)
        samples = None
        if heard is not None:
            samples = Samples(heard, name=f"{name}, in its sound,", limits=limits, start_s=plan.start_s)
        _decode(container, stream, frames, heard, samples, deadline, until_s=_until(plan, max_frames))
        pixels = frames.finish(name=name)
        sound = samples.finish({}) if samples is not None else None
    return _cut(Film(pixels, plan.fps, sound, settings), max_frames)


def _until(plan: _Plan, max_frames: int | None) -> float | None:
    return plan.num_frames / float(plan.fps) if max_frames else None


def _decode(
    container: "InputContainer", stream: "VideoStream", frames: _Frames, heard: "AudioStream | None",
    samples: Samples | None, deadline: Deadline, *, until_s: float | None,
) -> None:  # fmt: skip
    """Decode pictures and sound together, up to the end or to a time."""
    streams: list[Stream] = [stream] if heard is None else [stream, heard]
    for packet in packets(container, streams, deadline):
        if packet.stream is stream:
            for frame in decoded(stream, packet):
                frames.put(frame)
        elif samples is not None and heard is not None and (until_s is None or samples.seconds < until_s):
            for sound in decoded(heard, packet):
                samples.put(sound)
        if until_s is not None and frames.is_full and (samples is None or samples.seconds >= until_s):
            return
    for frame in decoded(stream, None):
        frames.put(frame)
    for sound in decoded(heard, None) if samples is not None and heard is not None else []:
        assert samples is not None
        samples.put(sound)


def _cut(film: Film, max_frames: int | None) -> Film:
    """Cut odd rows and columns that saving added, and sound beyond the frames that were asked for."""
    size = film.metadata.get("size")
    frames, sound = film.frames, film.sound
    height, width = frames.shape[1:3]
    if isinstance(size, list) and size in [[height - y, width - x] for y in (0, 1) for x in (0, 1)] and min(size) > 0:
        frames = np.ascontiguousarray(frames[:, : size[0], : size[1]]) if size != [height, width] else frames
    if max_frames and sound is not None:
        end = max(1, round(len(frames) / film.fps * sound.sample_rate))
        sound = Sound(sound.samples[:, :end].copy(), sound.sample_rate, {})
    return Film(frames, film.fps, sound, film.metadata[METADATA_KEY] if film.metadata else {})
