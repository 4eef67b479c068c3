"""What a message is made of: text and pictures, loaded, shown and saved.

What comes in is checked against Limits before it is read, and ends as a frozen value, or as one InputError
that names the thing and the remedy.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage
from PIL.PngImagePlugin import PngInfo

from omni.errors import InputError
from omni.images import METADATA_KEY, pixels_from_array, pixels_from_bytes, pixels_from_pil
from omni.limits import Limits

__all__ = ["Image", "Limits", "Part", "Text", "shorten"]

_SAVE_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


def shorten(value: Any, *, keep_end: bool = False) -> str:
    """Show a value in an error: ASCII, one line, its beginning or its end."""
    shown = ascii(value)
    if len(shown) <= 80:
        return shown
    return "..." + shown[-77:] if keep_end else shown[:77] + "..."


def _load_url(url: str, *, limits: Limits, allow_urls: bool, name: str) -> tuple[NDArray[np.uint8], Mapping[str, Any]]:
    name = name or f"The picture {shorten(url)}"
    if not allow_urls:
        raise InputError(f"{name} is a URL; download it and give the file, or allow URLs with allow_urls=True.")
    from omni.fetch import fetch

    data = fetch(url, max_bytes=limits.max_bytes, timeout_s=limits.url_timeout_s)
    return pixels_from_bytes(data, name=name, limits=limits)


def _read_file(path: str | os.PathLike[str], *, name: str, limits: Limits) -> bytes:
    """Read one byte more than allowed at most: what a file says of its size need not be true."""
    try:
        if not os.path.exists(path):
            raise InputError(f"{name} does not exist; check the path.")
        if not os.path.isfile(path):
            raise InputError(f"{name} is not a file; give the path of a picture.")
        with open(path, "rb") as file:
            return file.read(limits.max_bytes + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{name} cannot be read ({error}); check the path and its permissions.") from error


def _from_pil(picture: PILImage.Image, *, name: str, limits: Limits) -> NDArray[np.uint8]:
    try:
        return pixels_from_pil(picture, name=name, limits=limits)
    except InputError:
        raise
    except Exception as error:  # an image that Pillow has not decoded yet fails as any file does
        raise InputError(f"{name} cannot be converted ({error}); save it as PNG or JPEG.") from error


def _as_array(source: Any, *, name: str) -> NDArray[Any]:
    try:
        return np.asarray(source)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{name} is no array in main memory ({error}); convert it to NumPy first.") from error


@dataclass(frozen=True)
class Text:
    """Words, any str at all."""

    text: str


@dataclass(frozen=True, eq=False)
class Image:
    """A picture.

    Attributes:
        pixels: uint8, [H, W, 3].
        metadata: settings kept in a PNG (prompt, seed and the like); anything JSON can hold.
    """

    pixels: NDArray[np.uint8]
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.pixels.dtype != np.uint8 or self.pixels.ndim != 3 or self.pixels.shape[2] != 3 or not self.pixels.size:
            raise InputError(
                f"Image takes uint8 pixels of [height, width, 3], not {self.pixels.dtype} of "
                f"{list(self.pixels.shape)}; use Image.load for everything else."
            )

    @classmethod
    def load(cls, source: Any, *, limits: Limits | None = None, allow_urls: bool = False, name: str = "") -> "Image":
        """Read a picture from wherever it is.

        Args:
            source: a path, the bytes of a file, a Pillow image, an array (uint8, or floats from 0 to 1,
                [H, W] or [H, W, 1 | 3 | 4]), an Image, or, where allowed, an http(s) URL.
            limits: bounds on its size.
            allow_urls: fetch URLs, from public addresses.
            name: what errors call it; else made from the source.

        Raises:
            InputError: it cannot be had, is no picture, is damaged, or is too large.
        """
        limits = limits or Limits()
        if isinstance(source, Image):
            return source
        if isinstance(source, str) and ("://" in source[:16] or source[:5].lower() == "data:"):
            return cls(*_load_url(source, limits=limits, allow_urls=allow_urls, name=name))
        if isinstance(source, str | os.PathLike):
            name = name or f"The picture {shorten(os.fspath(source), keep_end=True)}"
            return cls(*pixels_from_bytes(_read_file(source, name=name, limits=limits), name=name, limits=limits))
        name = name or "The picture"
        if isinstance(source, bytes | bytearray | memoryview):
            return cls(*pixels_from_bytes(bytes(source), name=name, limits=limits))
        if isinstance(source, PILImage.Image):
            return cls(_from_pil(source, name=name, limits=limits))
        if hasattr(source, "__array__"):
            return cls(pixels_from_array(_as_array(source, name=name), name=name, limits=limits))
        raise InputError(f"{name} is a {type(source).__name__}; give a path, bytes, a Pillow image or an array.")

    @property
    def height(self) -> int:
        """Rows of pixels."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Columns of pixels."""
        return int(self.pixels.shape[1])

    def to_pil(self) -> PILImage.Image:
        """Return a Pillow image in mode RGB."""
        return PILImage.fromarray(self.pixels)

    def to_png(self) -> bytes:
        """Return the bytes of a PNG file, metadata included."""
        info = PngInfo()
        if self.metadata:
            info.add_text(METADATA_KEY, json.dumps(dict(self.metadata)))
        stream = BytesIO()
        self.to_pil().save(stream, format="PNG", pnginfo=info)
        return stream.getvalue()

    def save(self, path: str | os.PathLike[str], *, metadata: Mapping[str, Any] | None = None) -> None:
        """Write a .png (which alone keeps the metadata), .jpg or .webp file.

        Args:
            path: where to; its suffix chooses the format.
            metadata: in place of the picture's own.

        Raises:
            InputError: another suffix, metadata for a format other than PNG, or the file cannot be written.
        """
        suffix = Path(path).suffix.lower()
        if suffix not in _SAVE_FORMATS:
            raise InputError(f"Cannot save a picture as {str(path)!r}; end the name in .png, .jpg or .webp.")
        if metadata and suffix != ".png":
            raise InputError(f"{suffix} files keep no metadata; save as .png, or leave metadata out.")
        image = self if metadata is None else replace(self, metadata=metadata)
        try:
            if suffix == ".png":
                Path(path).write_bytes(image.to_png())
            else:
                image.to_pil().save(path, format=_SAVE_FORMATS[suffix], quality=95)
        except OSError as error:
            raise InputError(
                f"Cannot write {str(path)!r} ({error.strerror or error}); choose another place."
            ) from error

    def __repr__(self) -> str:
        return f"Image(height={self.height}, width={self.width})"

    def _repr_png_(self) -> bytes:
        return self.to_png()


Part = Text | Image
