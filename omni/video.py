"""Films as parts of messages."""

import os
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage

from omni.audio import Audio
from omni.errors import InputError
from omni.image import Image
from omni.limits import Limits
from omni.sources import as_array, open_source, shorten, source_name, write_file

__all__ = ["Video"]

_MAX_FPS = 1_000


def _check_fps(fps: Any, name: str) -> None:
    if isinstance(fps, bool) or not isinstance(fps, int | float) or not 0 < fps <= _MAX_FPS:
        raise InputError(f"{name} is {shorten(fps)}; give frames a second, above 0 and up to {_MAX_FPS}.")


def _sound_of(video: "Video", rate: int, channels: int) -> NDArray[np.float32]:
    """Return the sound of exactly a film's length, [channels, T]: cut, or filled with silence."""
    samples = np.zeros((channels, round(video.duration_s * rate)), np.float32)
    if video.audio is not None:
        audio = video.audio.resampled(rate, mono=len(video.audio.samples) != channels)
        length = min(samples.shape[1], audio.samples.shape[1])
        samples[:, :length] = audio.samples[:, :length]
    return samples


def _joined(one: "Video", other: "Video") -> Audio:
    """Join the sound of two films, each at its own pictures; of different channels, their mean."""
    given = [video.audio for video in (one, other) if video.audio is not None]
    channels = {len(audio.samples) for audio in given}
    rate, width = given[0].sample_rate, channels.pop() if len(channels) == 1 else 1
    return replace(given[0], samples=np.concatenate([_sound_of(v, rate, width) for v in (one, other)], axis=1))


@dataclass(frozen=True, eq=False)
class Video:
    """A film, perhaps with sound.

    Attributes:
        frames: uint8, [F, H, W, 3].
        fps: frames a second, steady.
        audio: its sound, from its first frame on.
        metadata: settings kept in files (prompt, seed and the like); anything JSON can hold.
    """

    frames: NDArray[np.uint8]
    fps: float
    audio: Audio | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        frames = self.frames
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not frames.size:
            raise InputError(
                f"Video takes uint8 frames of [frames, height, width, 3], not {frames.dtype} of "
                f"{list(frames.shape)}; use Video.load for everything else."
            )
        _check_fps(self.fps, "Video's fps")
        if self.audio is not None and not isinstance(self.audio, Audio):
            raise InputError(f"Video takes an Audio as its sound, not a {type(self.audio).__name__}; use Audio.load.")

    @classmethod
    def load(
        cls, source: Any, *, fps: float | None = None, max_frames: int | None = None, limits: Limits | None = None,
        allow_urls: bool = False, name: str = "",
    ) -> "Video":  # fmt: skip
        """Read a clip from wherever it is.

        Frames of an uneven rate are put on an even one by their time stamps. Large frames are scaled down on the way,
        to the larger side and the sum of pixels in the limits. A file that breaks off gives what can be read of it.
        A clip that is too long is refused, unless max_frames asks for its beginning.

        Args:
            source: a path or the bytes of an MP4, MOV, WebM, GIF or WebP file, an array (uint8, or floats from 0
                to 1, [F, H, W, 3]), a Video, or, where allowed, an http(s) URL.
            fps: frames a second of an array; files know theirs.
            max_frames: take the first frames alone, with their sound, however long the clip is.
            limits: bounds on it, checked before it is decoded and on the way.
            allow_urls: fetch URLs, from public addresses.
            name: what errors call it; else made from the source.

        Raises:
            InputError: it cannot be had, is no clip, is damaged, or is out of bounds.
        """
        from omni.animations import frames_from_array, read_film

        limits = limits or Limits()
        name = source_name(source, what="clip", name=name)
        if max_frames is not None and (isinstance(max_frames, bool) or max_frames < 1):
            raise InputError(f"max_frames is {shorten(max_frames)}; give a number of 1 or more.")
        is_array = hasattr(source, "__array__")
        if fps is not None and not is_array:
            raise InputError(f"{name} has its own frame rate; leave fps out, or use .resampled(fps={fps}).")
        if isinstance(source, Video):
            return source if max_frames is None else source.first(max_frames)
        if is_array:
            if fps is None:
                raise InputError(f"{name} is an array; say how many frames a second it has, as in fps=8.")
            _check_fps(fps, "fps")
            array = as_array(source, name=name)
            return cls(frames_from_array(array, fps=fps, max_frames=max_frames, name=name, limits=limits), fps)
        file = open_source(
            source, what="clip", name=name, max_bytes=limits.max_media_bytes, limits=limits, allow_urls=allow_urls
        )
        if file is None:
            raise InputError(f"{name} is a {type(source).__name__}; give a path, bytes or an array.")
        with file:
            film = read_film(file, name=name, limits=limits, max_frames=max_frames)
        sound = None if film.sound is None else Audio(film.sound.samples, film.sound.sample_rate)
        return cls(film.frames, float(film.fps), sound, film.metadata)

    @property
    def num_frames(self) -> int:
        """Frames in all."""
        return int(self.frames.shape[0])

    @property
    def height(self) -> int:
        """Rows of pixels."""
        return int(self.frames.shape[1])

    @property
    def width(self) -> int:
        """Columns of pixels."""
        return int(self.frames.shape[2])

    @property
    def duration_s(self) -> float:
        """Length in seconds, of the frames."""
        return self.num_frames / self.fps

    def image(self, index: int) -> Image:
        """Return one frame; -1 is the last."""
        return Image(self.frames[index], self.metadata)

    def first(self, num_frames: int) -> "Video":
        """Return the first frames, with their sound."""
        if num_frames >= self.num_frames:
            return self
        audio = self.audio
        if audio is not None:
            end = max(1, round(num_frames / self.fps * audio.sample_rate))
            audio = replace(audio, samples=audio.samples[:, :end])
        return replace(self, frames=self.frames[:num_frames], audio=audio)

    def followed_by(self, other: "Video") -> "Video":
        """Return this film and another of the same size and frame rate, one after the other, with their sound.

        Raises:
            InputError: they do not fit together.
        """
        if other.frames.shape[1:] != self.frames.shape[1:] or other.fps != self.fps:
            raise InputError(f"{other!r} does not go on with {self!r}; give both the same size and frame rate.")
        audio = None
        if self.audio is not None or other.audio is not None:
            audio = _joined(self, other)
        return replace(self, frames=np.concatenate([self.frames, other.frames]), audio=audio)

    def resampled(self, *, fps: float | None = None, size: tuple[int, int] | None = None) -> "Video":
        """Change the frame rate and the size; the sound stays as it is.

        Args:
            fps: frames a second; each frame is the nearest in time.
            size: (height, width); each frame is resized with a filter that keeps fine patterns from flickering.
        """
        frames, rate = self.frames, self.fps
        if fps is not None and fps != rate:
            _check_fps(fps, "fps")
            wanted = np.arange(max(1, round(self.duration_s * fps))) * (rate / fps)
            frames, rate = frames[np.ceil(wanted - 0.5 - 1e-9).astype(np.int64).clip(0, len(frames) - 1)], fps
        if size is not None and size != (self.height, self.width):
            if len(size) != 2 or min(size) < 1:
                raise InputError(f"size is {shorten(size)}; give (height, width), each 1 or more.")
            shape = (size[1], size[0])
            resized = [PILImage.fromarray(frame).resize(shape, PILImage.Resampling.LANCZOS) for frame in frames]
            frames = np.stack([np.asarray(frame) for frame in resized])
        return replace(self, frames=frames, fps=rate)

    def to_bytes(self, suffix: str = ".mp4") -> bytes:
        """Return the bytes of an .mp4, .mov, .webm or .gif file, sound and metadata included.

        Raises:
            InputError: another suffix, or the format cannot hold the film.
        """
        from omni.animations import write_gif
        from omni.writers import FILM_FORMATS, write_film

        suffix = suffix.lower()
        if suffix == ".gif":
            if self.audio is not None:
                raise InputError("A .gif file keeps no sound; save as .mp4, or leave the sound out (audio=None).")
            return write_gif(self.frames, self.fps, metadata=dict(self.metadata))
        if suffix not in FILM_FORMATS:
            raise InputError(f"Cannot save a film as {suffix!r}; use .mp4, .mov, .webm or .gif.")
        sound = self.audio
        return write_film(
            self.frames, self.fps, samples=None if sound is None else sound.samples,
            sample_rate=0 if sound is None else sound.sample_rate, kind=FILM_FORMATS[suffix], metadata=self.metadata,
        )  # fmt: skip

    def save(self, path: str | os.PathLike[str], *, metadata: Mapping[str, Any] | None = None) -> None:
        """Write an .mp4 or .mov (H.264, AAC), .webm (VP9, Opus) or .gif file; metadata go into its comment.

        Args:
            path: where to; its suffix chooses the format.
            metadata: in place of the film's own.

        Raises:
            InputError: another suffix, sound for a .gif, or the file cannot be written.
        """
        video = self if metadata is None else replace(self, metadata=metadata)
        write_file(path, video.to_bytes(Path(path).suffix))

    def __repr__(self) -> str:
        sound = "" if self.audio is None else f", audio={self.audio!r}"
        return f"Video(num_frames={self.num_frames}, height={self.height}, width={self.width}, fps={self.fps:g}{sound})"

    def _repr_html_(self) -> str:
        data = b64encode(self.to_bytes()).decode()
        return f'<video controls loop src="data:video/mp4;base64,{data}" width="{max(128, self.width)}"></video>'
