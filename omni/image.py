"""Pictures as parts of messages."""

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
from omni.sources import as_array, read_source, source_name, write_file

__all__ = ["Image"]

_SAVE_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


def _from_pil(picture: PILImage.Image, *, name: str, limits: Limits) -> NDArray[np.uint8]:
    try:
        return pixels_from_pil(picture, name=name, limits=limits)
    except InputError:
        raise
    except Exception as error:  # an image that Pillow has not decoded yet fails as any file does
        raise InputError(f"{name} cannot be converted ({error}); save it as PNG or JPEG.") from error


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
        name = source_name(source, what="picture", name=name)
        data = read_source(
            source, what="picture", name=name, max_bytes=limits.max_bytes, limits=limits, allow_urls=allow_urls
        )
        if data is not None:
            return cls(*pixels_from_bytes(data, name=name, limits=limits))
        if isinstance(source, PILImage.Image):
            return cls(_from_pil(source, name=name, limits=limits))
        if hasattr(source, "__array__"):
            return cls(pixels_from_array(as_array(source, name=name), name=name, limits=limits))
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
        if suffix == ".png":
            write_file(path, image.to_png())
        else:
            stream = BytesIO()
            image.to_pil().save(stream, format=_SAVE_FORMATS[suffix], quality=95)
            write_file(path, stream.getvalue())

    def __repr__(self) -> str:
        return f"Image(height={self.height}, width={self.width})"

    def _repr_png_(self) -> bytes:
        return self.to_png()
