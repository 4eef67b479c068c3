"""GIF and WebP animations, read frame by frame and written with Pillow."""

import json
import os
from fractions import Fraction
from io import BytesIO
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage
from PIL import UnidentifiedImageError

from omni.clock import steady
from omni.containers import comment_settings
from omni.errors import InputError
from omni.films import Film, check_film, decode_film, fitted_size
from omni.images import METADATA_KEY, check_gif, check_webp_canvas, pixels_from_array, pixels_from_pil
from omni.limits import Limits
from omni.sources import Deadline, check_size_of_file, sniff

__all__ = ["frames_from_array", "read_animation", "read_film", "write_gif"]

_TICK_S = 0.01
_SHORTEST_S, _UNTIMED_S = 0.02, 0.1  # browsers show a frame of a shorter duration so long
_MAX_GIF_FPS = 50


def _frames(
    data: bytes, *, name: str, limits: Limits, max_frames: int | None
) -> tuple[list[NDArray[np.uint8]], list[float], dict[str, Any]]:
    """Decode frames with the seconds each is shown; halved whenever they are too many of their size."""
    deadline = Deadline(name=name, limits=limits)
    frames: list[NDArray[np.uint8]] = []
    seconds: list[float] = []
    with PILImage.open(BytesIO(data), formats=("GIF", "WEBP")) as picture:
        check = {"height": picture.height, "width": picture.width, "name": name, "limits": limits}
        check_film(num_frames=1, seconds=0, **check)  # type: ignore[arg-type]
        settings = comment_settings(picture.info.get("comment", b"{}"))
        while len(frames) < (max_frames or limits.max_video_frames + 1):
            deadline.check()
            try:
                picture.seek(len(frames))
                pixels = pixels_from_pil(picture, name=name, limits=limits)
            except EOFError:
                break
            except InputError:
                raise
            except Exception:  # broken off; what came before is whole
                if not frames:
                    raise
                break
            shown_s = picture.info.get("duration", 0) / 1000
            seconds.append(shown_s if shown_s >= _SHORTEST_S else _UNTIMED_S)
            check_film(num_frames=len(frames) + 1, seconds=0 if max_frames else sum(seconds), **check)  # type: ignore[arg-type]
            if not frames:
                size = fitted_size(pixels.shape[0], pixels.shape[1], 1, limits=limits)
            frames.append(_scaled(pixels, *size))
            if len(frames) * size[0] * size[1] > limits.max_video_pixels:
                size = max(1, size[0] // 2), max(1, size[1] // 2)
                frames = [_scaled(frame, *size) for frame in frames]
    return frames, seconds, settings


def _scaled(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    if pixels.shape[:2] == (height, width):
        return pixels
    picture = PILImage.fromarray(pixels)
    return np.asarray(picture.resize((width, height), PILImage.Resampling.BICUBIC))


def read_animation(data: bytes, *, name: str, limits: Limits, max_frames: int | None) -> Film:
    """Decode a GIF or WebP animation; a still picture is a clip of one frame.

    Args:
        data: the file's content.
        name: what errors call it.
        limits: bounds on it.
        max_frames: take the first frames alone.

    Raises:
        InputError: damaged or out of bounds.
    """
    check_webp_canvas(data, name=name, limits=limits)
    num_frames = check_gif(data, name=name, max_frames=max_frames or limits.max_video_frames)
    if not max_frames:
        check_film(height=1, width=1, num_frames=max(1, num_frames), seconds=0, name=name, limits=limits)
    try:
        frames, seconds, settings = _frames(data, name=name, limits=limits, max_frames=max_frames)
    except InputError:
        raise
    except (PILImage.DecompressionBombError, PILImage.DecompressionBombWarning) as error:
        megapixels = limits.max_frame_pixels / 1e6
        raise InputError(f"{name} is too large; make its frames smaller than {megapixels:g} megapixels.") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{name} is not a clip this model reads; save it as MP4, WebM or GIF.") from error
    except Exception as error:  # decoders of untrusted bytes raise nearly everything, struct.error to MemoryError
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{name} is damaged ({reason[:80]}); save it again as GIF or MP4.") from error
    declared = settings.get("fps")
    rates = [Fraction(declared).limit_denominator(1001)] if isinstance(declared, int | float) and declared > 0 else []
    times = np.cumsum([0.0, *seconds[:-1]])
    fps, chosen = steady(times, last_s=seconds[-1], tick_s=_TICK_S, declared=rates)
    chosen = chosen[: max_frames or None]
    height, width = frames[0].shape[:2]
    check_film(
        height=height, width=width, num_frames=len(chosen), seconds=len(chosen) / float(fps), name=name, limits=limits
    )
    height, width = fitted_size(height, width, len(chosen), limits=limits)
    stacked = np.empty((len(chosen), height, width, 3), np.uint8)
    for place, source in enumerate(chosen):
        stacked[place] = _scaled(frames[source], height, width)
    return Film(stacked, fps, None, settings[METADATA_KEY] if settings else {})


def read_film(file: BinaryIO, *, name: str, limits: Limits, max_frames: int | None) -> Film:
    """Decode a clip of any kind that is read, told by its first bytes.

    Raises:
        InputError: another kind, damaged, or out of bounds.
    """
    kind = sniff(file)
    if kind in ("mov", "matroska"):
        return decode_film(file, kind, name=name, limits=limits, max_frames=max_frames)
    if kind in ("gif", "webp"):
        check_size_of_file(file.seek(0, os.SEEK_END), name=name, max_bytes=limits.max_bytes)
        file.seek(0)
        return read_animation(file.read(), name=name, limits=limits, max_frames=max_frames)
    if kind == "picture":
        raise InputError(f"{name} is a picture; send it as an image, or save it as MP4, WebM or GIF.")
    if kind:
        raise InputError(f"{name} is a recording without pictures; send it as audio.")
    raise InputError(f"{name} is not a clip this model reads; save it as MP4, WebM or GIF.")


def frames_from_array(
    array: NDArray[Any], *, fps: float, max_frames: int | None, name: str, limits: Limits
) -> NDArray[np.uint8]:
    """Convert an array to frames, scaled down where they are large.

    Args:
        array: [F, H, W, 3]; uint8, or floats in [0, 1].
        fps: frames a second.
        max_frames: take the first frames alone.
        name: what errors call it.
        limits: bounds on it.

    Returns: uint8, [F, H, W, 3], a copy.

    Raises:
        InputError: another shape or type, values out of range, or out of bounds.
    """
    shape = "x".join(map(str, array.shape)) or "a single number"
    if array.ndim != 4 or array.shape[3] != 3:
        raise InputError(f"{name} has shape {shape}; give an array of [frames, height, width, 3].")
    array = array[:max_frames]
    height, width = array.shape[1:3]
    seconds = len(array) / fps
    check_film(height=height, width=width, num_frames=len(array), seconds=seconds, name=name, limits=limits)
    height, width = fitted_size(height, width, len(array), limits=limits)
    frames = np.empty((len(array), height, width, 3), np.uint8)
    for number, frame in enumerate(array):
        frames[number] = _scaled(pixels_from_array(frame, name=name, limits=limits), height, width)
    return frames


def write_gif(frames: NDArray[np.uint8], fps: float, *, metadata: dict[str, Any]) -> bytes:
    """Return the bytes of a GIF that plays for ever.

    Args:
        frames: uint8, [F, H, W, 3].
        fps: frames a second, at most 50.
        metadata: kept in the file's comment.

    Raises:
        InputError: more frames a second than a GIF can show.
    """
    if fps > _MAX_GIF_FPS:
        raise InputError(
            f"A .gif file shows at most {_MAX_GIF_FPS} frames a second, not {fps:g}; resample it, or use .mp4."
        )
    ends = np.rint((np.arange(len(frames)) + 1) / fps / _TICK_S).astype(int) * 10
    pictures = [PILImage.fromarray(frame).quantize(256, dither=PILImage.Dither.FLOYDSTEINBERG) for frame in frames]
    stream = BytesIO()
    pictures[0].save(
        stream, format="GIF", save_all=True, append_images=pictures[1:], loop=0, disposal=1,
        duration=np.diff(ends, prepend=0).tolist() if len(frames) > 1 else int(ends[0]),
        comment=json.dumps({METADATA_KEY: metadata, "fps": fps}).encode(),
    )  # fmt: skip
    return stream.getvalue()
