"""Pictures, films and recordings of a conversation as files: what comes in is loaded, made smaller and kept."""

import secrets
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image as PILImage

from omni.config import MODALITIES
from omni.containers import opened
from omni.errors import InputError
from omni.parts import Audio, Image, Limits, Video
from omni.sources import sniff

__all__ = ["KINDS", "Media", "files_of", "keep", "load_media", "media_item", "modality_of", "shrunk"]

# An upload is shown, and kept, no larger than this.
MAX_KEPT_SIDE = 1024  # pixels of a picture
MAX_KEPT_FILM_SIDE = 384
MAX_KEPT_FPS = 16
MAX_KEPT_SAMPLE_RATE = 24_000

KINDS = MODALITIES[1:]
NOUNS = {"image": "picture", "video": "film", "audio": "recording"}

Media = Image | Video | Audio


def modality_of(part: Media) -> str:
    """Return "image", "video" or "audio"."""
    return {Image: "image", Video: "video", Audio: "audio"}[type(part)]


def load_media(source: str | Path, *, modalities: Collection[str] = KINDS) -> Media:
    """Read a file, as what its content says that it is.

    Args:
        source: the file.
        modalities: what the model takes; an animation is its first picture where that is no film.

    Raises:
        InputError: it is none of these, damaged or too large, or the model does not take it; names the file.
    """
    name = f"The file {Path(source).name!r}"
    try:
        kind = _kind_of(Path(source), name)
    except OSError as error:
        raise InputError(f"{name} cannot be read ({error.strerror or error}); send it again.") from error
    if kind == "animation":
        kind = "video" if "video" in modalities else "image"
    if kind not in modalities:
        taken = " and ".join(f"{NOUNS[known]}s" for known in KINDS if known in modalities) or "words"
        raise InputError(f"{name} is a {NOUNS[kind]}, and this model takes {taken} alone; leave it out.")
    load: Any = {"image": Image.load, "video": Video.load, "audio": Audio.load}[kind]
    part: Media = load(source, name=name)
    return part


def _kind_of(path: Path, name: str) -> str:
    """Return a modality, or "animation"; what nobody knows is taken for a picture, which says so."""
    with open(path, "rb") as file:
        kind = sniff(file)
        if kind in ("mov", "matroska"):
            from av.stream import Disposition

            with opened(file, kind, name=name, limits=Limits()) as container:
                shown = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
                return "video" if shown or not container.streams.audio else "audio"
        if kind in ("gif", "webp"):
            return "animation" if _is_animated(file, kind) else "image"
    return "audio" if kind in ("wav", "flac", "ogg", "mp3") else "image"


def _is_animated(file: BinaryIO, kind: str) -> bool:
    """Tell an animation from a picture without decoding either."""
    if kind == "webp":
        head = file.read(21)
        return head[12:16] == b"VP8X" and bool(head[20] & 2)
    try:
        with PILImage.open(file, formats=("GIF",)) as picture:
            return bool(getattr(picture, "is_animated", False))
    except Exception:  # untrusted bytes raise nearly everything; loading says what is wrong with them
        return False


def shrunk(part: Media) -> Media:
    """Return a part as small as uploads are kept."""
    match part:
        case Image() if max(part.height, part.width) > MAX_KEPT_SIDE:
            smaller = part.to_pil()
            smaller.thumbnail((MAX_KEPT_SIDE, MAX_KEPT_SIDE))
            return Image.load(smaller)
        case Video():
            share = min(1.0, MAX_KEPT_FILM_SIDE / max(part.height, part.width))
            size = (max(1, round(part.height * share)), max(1, round(part.width * share)))
            return part.resampled(fps=min(part.fps, MAX_KEPT_FPS), size=size)
        case Audio() if part.sample_rate > MAX_KEPT_SAMPLE_RATE or len(part.samples) > 1:
            return part.resampled(min(part.sample_rate, MAX_KEPT_SAMPLE_RATE))
    return part


def keep(part: Media, folder: Path, *, name: str, metadata: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Write a part into a folder, as PNG, MP4 or WAV, and return its item of the chat form.

    Args:
        part: what to keep.
        folder: made where it does not exist.
        name: how the file's name begins.
        metadata: kept inside the file, and nothing else is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    suffix = {"image": ".png", "video": ".mp4", "audio": ".wav"}[modality_of(part)]
    path = folder / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}{suffix}"
    part.save(path, metadata=metadata or {})
    return media_item(modality_of(part), path)


def media_item(modality: str, path: str | Path) -> dict[str, Any]:
    """Return the item of the chat form that names a file."""
    return {"type": modality, modality: str(path)}


def files_of(content: list[dict[str, Any]]) -> list[str]:
    """Return the files that a message's items name, in their order."""
    return [item[item["type"]] for item in content if item["type"] in KINDS]
