"""How an answer is made: its settings, kept inside every file that it brings, and read back from there."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from demo.media import load_media
from omni.errors import InputError

__all__ = ["MAX_SEED", "Settings", "metadata_of", "settings_of_file"]

MAX_SEED = 2**31 - 1


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How an answer is made.

    Attributes:
        seed: of all its noise; None draws a new one.
        steps: of denoising, for each picture, film and recording.
        guidance_scale: how closely they follow the words; 1 is without guidance.
        size: (height, width) of every picture and film in pixels; None lets the model choose.
    """

    seed: int | None = None
    steps: int = 24
    guidance_scale: float = 3.0
    size: tuple[int, int] | None = None


def metadata_of(message: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Return what a file keeps of how it was made: the words that asked for it, and the settings."""
    prompt = "".join(item["text"] for item in message["content"] if item["type"] == "text")
    return {"prompt": prompt, **asdict(settings)}


def settings_of_file(source: str | Path) -> tuple[str, Settings]:
    """Read the prompt and the settings back from a picture, film or recording that the demo made.

    Args:
        source: the file.

    Raises:
        InputError: it is none of these, or not one of ours.
    """
    kept = load_media(source).metadata
    try:
        size = kept["size"]
        return str(kept["prompt"]), Settings(
            seed=min(max(int(kept["seed"]), 0), MAX_SEED),
            steps=int(kept["steps"]),
            guidance_scale=float(kept["guidance_scale"]),
            size=(int(size[0]), int(size[1])) if size else None,
        )
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise InputError(
            f"The file {Path(source).name!r} keeps no settings; take one that this page made, as it was saved."
        ) from error
