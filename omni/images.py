"""Pictures from files, Pillow images and arrays: uint8 [H, W, 3], within limits, or one sentence why not.

Sizes are looked at before anything is decoded: a file of a few kilobytes can hold gigabytes of pixels.
"""

import json
import math
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, UnidentifiedImageError
from PIL import Image as PILImage

from omni.errors import InputError
from omni.limits import Limits

__all__ = [
    "FORMATS",
    "METADATA_KEY",
    "check_gif",
    "check_size",
    "check_webp_canvas",
    "pixels_from_array",
    "pixels_from_bytes",
    "pixels_from_pil",
]

Pixels = NDArray[np.uint8]  # [H, W, 3]

# Pillow knows many more, some of which start other programs (EPS) or are hardly ever tested.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
METADATA_KEY = "omni"

_STRIP_ROWS = 64
_MAX_16_BIT = 65_535
_MAX_COMMENT_BYTES = 1 << 18
_MAX_IMAGE_FRAMES = 1  # that Pillow reads on the way to the first
_GIF_EXTENSION, _GIF_COMMENT, _GIF_IMAGE = 0x21, 0xFE, 0x2C
_WHITE = (255, 255, 255)
_TIFF_TILE_WIDTH, _TIFF_TILE_LENGTH = 322, 323
_UPRIGHT = {
    2: PILImage.Transpose.FLIP_LEFT_RIGHT,
    3: PILImage.Transpose.ROTATE_180,
    4: PILImage.Transpose.FLIP_TOP_BOTTOM,
    5: PILImage.Transpose.TRANSPOSE,
    6: PILImage.Transpose.ROTATE_270,
    7: PILImage.Transpose.TRANSVERSE,
    8: PILImage.Transpose.ROTATE_90,
}


def check_size(height: int, width: int, *, name: str, limits: Limits) -> None:
    """Refuse a picture without pixels, and one larger than the limits.

    Raises:
        InputError: the size is out of bounds.
    """
    if height < 1 or width < 1:
        raise InputError(f"{name} has no pixels ({width}x{height}); send another picture.")
    if max(height, width) > limits.max_side or height * width > limits.max_pixels:
        raise InputError(
            f"{name} is too large ({width}x{height} pixels); "
            f"keep within {limits.max_side} pixels a side and {limits.max_pixels / 1e6:.0f} megapixels."
        )


def check_webp_canvas(data: bytes, *, name: str, limits: Limits) -> None:
    """Look at an extended WEBP's canvas, for which Pillow reserves memory as soon as it opens the file."""
    if data[:4] == b"RIFF" and data[8:16] == b"WEBPVP8X" and len(data) >= 30:
        width = 1 + int.from_bytes(data[24:27], "little")
        height = 1 + int.from_bytes(data[27:30], "little")
        check_size(height, width, name=name, limits=limits)


def _after_sub_blocks(data: bytes, place: int) -> int:
    """Return where a GIF's chain of sub-blocks ends."""
    while place < len(data) and data[place]:
        place += 1 + data[place]
    return place + 1


def _colour_table(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def check_gif(data: bytes, *, name: str, max_frames: int) -> int:
    """Count a GIF's frames without decoding; refuse long comments, over which Pillow takes the square of their length.

    Returns: the number of frames, as far as max_frames and one more; 0 for a file of another kind.

    Raises:
        InputError: the comments are too long.
    """
    if data[:3] != b"GIF" or len(data) < 13:
        return 0
    place, num_frames, num_comment_bytes = 13 + _colour_table(data[10]), 0, 0
    while place + 1 < len(data) and num_frames <= max_frames:
        if data[place] == _GIF_EXTENSION:
            end = _after_sub_blocks(data, place + 2)
            num_comment_bytes += end - place if data[place + 1] == _GIF_COMMENT else 0
            if num_comment_bytes > _MAX_COMMENT_BYTES:
                raise InputError(f"{name} has comments of more than {_MAX_COMMENT_BYTES} bytes; save it without.")
        elif data[place] == _GIF_IMAGE and place + 10 < len(data):
            num_frames += 1
            end = _after_sub_blocks(data, place + 11 + _colour_table(data[place + 9]))
        else:
            end = place + 1  # Pillow skips what it does not know
        place = end
    return num_frames


def _check_tiff_tiles(picture: PILImage.Image, *, name: str, limits: Limits) -> None:
    """Look at a TIFF's tiles, which may be far larger than the picture and are decoded whole."""
    tags = getattr(picture, "tag_v2", None)
    if tags is not None and _TIFF_TILE_WIDTH in tags and _TIFF_TILE_LENGTH in tags:
        check_size(
            int(tags[_TIFF_TILE_LENGTH]),
            int(tags[_TIFF_TILE_WIDTH]),
            name=f"{name}, in one of its tiles,",
            limits=limits,
        )


def _from_16_bit(picture: PILImage.Image, *, name: str) -> PILImage.Image:
    values = np.asarray(picture)
    if values.min() < 0 or values.max() > _MAX_16_BIT:
        raise InputError(f"{name} has 32-bit values without an agreed range; save it as an 8-bit PNG.")
    return PILImage.fromarray((values // 257).astype(np.uint8))


def _upright(picture: PILImage.Image, *, source: PILImage.Image) -> PILImage.Image:
    """Turn a photo as its EXIF data say; data that cannot be read say nothing."""
    try:
        orientation = source.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # a parser of untrusted bytes, in which nearly anything may go wrong; the pixels are fine
        return picture
    method = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return picture if method is None else picture.transpose(method)


def pixels_from_pil(picture: PILImage.Image, *, name: str, limits: Limits) -> Pixels:
    """Convert a Pillow image of any mode to pixels: upright, transparency on white, 16 bits to 8.

    Args:
        picture: perhaps not decoded yet; of an animation the frame it stands at.
        name: what errors call it.
        limits: bounds on its size.

    Raises:
        InputError: it is too large, cannot be decoded, or has a mode without an agreed range.
    """
    check_size(picture.height, picture.width, name=name, limits=limits)
    _check_tiff_tiles(picture, name=name, limits=limits)
    picture.load()
    # A GIF's first frame may be larger than its header said.
    check_size(picture.height, picture.width, name=name, limits=limits)
    if picture.mode == "F":
        raise InputError(f"{name} holds floating-point values without an agreed range; save it as an 8-bit PNG.")
    flat = _from_16_bit(picture, name=name) if picture.mode.startswith("I") else picture
    if flat.has_transparency_data:
        colours = flat.convert("RGBA")
        flat = PILImage.new("RGB", colours.size, _WHITE)
        flat.paste(colours, mask=colours)
    return _strip_by_strip(_upright(flat, source=picture))


def _strip_by_strip(picture: PILImage.Image) -> Pixels:
    """Convert to RGB, [H, W, 3], without two more copies of the whole, which cost more time than the conversion."""
    pixels = np.empty((picture.height, picture.width, 3), dtype=np.uint8)
    for top in range(0, picture.height, _STRIP_ROWS):
        bottom = min(top + _STRIP_ROWS, picture.height)
        pixels[top:bottom] = np.asarray(picture.crop((0, top, picture.width, bottom)).convert("RGB"))
    return pixels


def _metadata(picture: PILImage.Image) -> dict[str, Any]:
    """Read the settings that Image.save wrote; anything else under that key is somebody else's."""
    try:
        value = json.loads(picture.info.get(METADATA_KEY, "{}"))
    except (TypeError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def pixels_from_bytes(data: bytes, *, name: str, limits: Limits) -> tuple[Pixels, dict[str, Any]]:
    """Decode a picture file, the first frame of an animation; return pixels and the metadata of Image.save.

    Args:
        data: the file's content.
        name: what errors call it.
        limits: bounds on its size.

    Raises:
        InputError: empty, of another format, damaged or too large.
    """
    if not data:
        raise InputError(f"{name} is empty (0 bytes); send the file again.")
    if len(data) > limits.max_bytes:
        raise InputError(f"{name} is too large a file ({len(data)} bytes); send at most {limits.max_bytes} bytes.")
    check_webp_canvas(data, name=name, limits=limits)
    check_gif(data, name=name, max_frames=_MAX_IMAGE_FRAMES)
    try:
        with PILImage.open(BytesIO(data), formats=FORMATS) as picture:
            return pixels_from_pil(picture, name=name, limits=limits), _metadata(picture)
    except InputError:
        raise
    except UnidentifiedImageError as error:
        raise InputError(f"{name} is not a picture this model reads; save it as PNG or JPEG.") from error
    except (PILImage.DecompressionBombError, PILImage.DecompressionBombWarning) as error:
        megapixels = limits.max_pixels / 1e6
        raise InputError(f"{name} is too large; make it smaller than {megapixels:.0f} megapixels.") from error
    except Exception as error:  # decoders of untrusted bytes raise nearly everything, struct.error to MemoryError
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{name} is damaged ({reason[:80]}); save it again as PNG or JPEG.") from error


def pixels_from_array(array: NDArray[Any], *, name: str, limits: Limits) -> Pixels:
    """Convert an array to pixels.

    Args:
        array: [H, W], [H, W, 1], [H, W, 3] or [H, W, 4] (transparency goes on white);
            uint8, or float in [0, 1].
        name: what errors call it.
        limits: bounds on its size.

    Raises:
        InputError: another shape or type, values out of range, or too large.
    """
    shape = "x".join(map(str, array.shape)) or "a single number"
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise InputError(f"{name} has shape {shape}; give an array of [height, width, 3].")
    check_size(array.shape[0], array.shape[1], name=name, limits=limits)
    if np.issubdtype(array.dtype, np.floating):
        low, high = float(array.min()), float(array.max())  # a NaN anywhere makes both NaN
        if not (math.isfinite(low) and math.isfinite(high) and low >= 0 and high <= 1):
            raise InputError(f"{name} has values from {low:g} to {high:g}; give floats from 0 to 1, or uint8.")
        array = np.rint(np.multiply(array, 255, dtype=np.float32)).astype(np.uint8)
    if array.dtype != np.uint8:
        raise InputError(f"{name} has type {array.dtype}; give uint8, or floats from 0 to 1.")
    gray = array.ndim == 2 or array.shape[2] == 1
    picture = PILImage.fromarray(np.ascontiguousarray(array.reshape(array.shape[:2]) if gray else array))
    return pixels_from_pil(picture, name=name, limits=limits)
