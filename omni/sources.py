"""Where parts come from: paths, bytes and URLs, opened within limits; and what a file is, by its first bytes."""

import os
import time
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from omni.errors import InputError
from omni.limits import Limits

__all__ = [
    "Deadline",
    "as_array",
    "check_size_of_file",
    "open_source",
    "read_source",
    "shorten",
    "sniff",
    "source_name",
    "write_file",
]

_HEAD_BYTES = 64
_MOV_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot", b"styp", b"moof")
_PICTURE_BRANDS = (b"heic", b"heix", b"mif1", b"avif")


def shorten(value: Any, *, keep_end: bool = False) -> str:
    """Show a value in an error: ASCII, one line, its beginning or its end."""
    shown = ascii(value)
    if len(shown) <= 80:
        return shown
    return "..." + shown[-77:] if keep_end else shown[:77] + "..."


class Deadline:
    """The moment at which decoding a file is given up."""

    def __init__(self, *, name: str, limits: Limits) -> None:
        self._message = f"{name} takes longer than {limits.max_decode_s:g} s to decode; send a shorter or smaller one."
        self._end = time.monotonic() + limits.max_decode_s

    def check(self) -> None:
        """Raise InputError once the time is over."""
        if time.monotonic() > self._end:
            raise InputError(self._message)


def _is_url(source: Any) -> bool:
    return isinstance(source, str) and ("://" in source[:16] or source[:5].lower() == "data:")


def source_name(source: Any, *, what: str, name: str) -> str:
    """Name a source for errors: what was given, or made from it."""
    if name or not isinstance(source, str | os.PathLike):
        return name or f"The {what}"
    return f"The {what} {shorten(os.fspath(source), keep_end=not _is_url(source))}"


def _check_is_file(path: str | os.PathLike[str], *, what: str, name: str) -> None:
    if not os.path.exists(path):
        raise InputError(f"{name} does not exist; check the path.")
    if not os.path.isfile(path):
        raise InputError(f"{name} is not a file; give the path of a {what}.")


def check_size_of_file(num_bytes: int, *, name: str, max_bytes: int) -> None:
    """Refuse a file that is empty or larger than allowed."""
    if not num_bytes:
        raise InputError(f"{name} is empty (0 bytes); send the file again.")
    if num_bytes > max_bytes:
        raise InputError(f"{name} is too large a file ({num_bytes} bytes); send at most {max_bytes} bytes.")


def _download(url: str, *, max_bytes: int, limits: Limits, allow_urls: bool, name: str) -> bytes:
    if not allow_urls:
        raise InputError(f"{name} is a URL; download it and give the file, or allow URLs with allow_urls=True.")
    from omni.fetch import fetch

    return fetch(url, max_bytes=max_bytes, timeout_s=limits.url_timeout_s)


def open_source(
    source: Any, *, what: str, name: str, max_bytes: int, limits: Limits, allow_urls: bool
) -> BinaryIO | None:
    """Open a path, the bytes of a file or a URL; None for a source of any other kind.

    Args:
        source: what the user gave.
        what: "picture", "clip" or "recording".
        name: what errors call it.
        max_bytes: larger files are refused.
        limits: the time a download may take.
        allow_urls: fetch URLs.

    Raises:
        InputError: it cannot be had, or is too large.
    """
    try:
        if _is_url(source):
            data = _download(source, max_bytes=max_bytes, limits=limits, allow_urls=allow_urls, name=name)
            file: BinaryIO = BytesIO(data)
        elif isinstance(source, str | os.PathLike):
            _check_is_file(source, what=what, name=name)
            file = open(source, "rb")
        elif isinstance(source, bytes | bytearray | memoryview):
            file = BytesIO(bytes(source))
        else:
            return None
        num_bytes = file.seek(0, os.SEEK_END)
        file.seek(0)
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{name} cannot be read ({error}); check the path and its permissions.") from error
    check_size_of_file(num_bytes, name=name, max_bytes=max_bytes)
    return file


def read_source(source: Any, *, what: str, name: str, max_bytes: int, limits: Limits, allow_urls: bool) -> bytes | None:
    """Read a source whole, as open_source opens it; one byte more than allowed at most."""
    file = open_source(source, what=what, name=name, max_bytes=max_bytes, limits=limits, allow_urls=allow_urls)
    if file is None:
        return None
    try:
        with file:
            return file.read(max_bytes + 1)
    except OSError as error:
        raise InputError(f"{name} cannot be read ({error}); check the path and its permissions.") from error


def sniff(file: BinaryIO) -> str:
    """Tell what a file is by its first bytes, whatever its name says.

    Returns: "mov" (MP4 too), "matroska" (WebM too), "gif", "webp", "wav", "flac", "ogg", "mp3", "picture", or "".
    """
    head = file.read(_HEAD_BYTES)
    file.seek(0)
    if head[4:8] in _MOV_BOXES:
        return "picture" if head[8:12] in _PICTURE_BRANDS else "mov"
    if head[:4] in (b"RIFF", b"RF64", b"RIFX"):
        return {b"WEBP": "webp", b"WAVE": "wav"}.get(head[8:12], "")
    if head[:8] == b"\x89PNG\r\n\x1a\n" or head[:3] == b"\xff\xd8\xff" or head[:4] in (b"II*\0", b"MM\0*"):
        return "picture"
    starts = {b"\x1a\x45\xdf\xa3": "matroska", b"GIF8": "gif", b"fLaC": "flac", b"OggS": "ogg"}
    if head[:4] in starts:
        return starts[head[:4]]
    # An MPEG frame of layer 1 to 3; a layer of 0 would be AAC.
    is_mpeg = len(head) > 2 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0 and head[1] & 0x06
    return "mp3" if head[:3] == b"ID3" or is_mpeg else ""


def as_array(source: Any, *, name: str) -> NDArray[Any]:
    """Return what has __array__ as an array."""
    try:
        return np.asarray(source)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{name} is no array in main memory ({error}); convert it to NumPy first.") from error


def write_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file at once, or say why not."""
    try:
        Path(path).write_bytes(data)
    except OSError as error:
        raise InputError(f"Cannot write {str(path)!r} ({error.strerror or error}); choose another place.") from error
