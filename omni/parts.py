"""What a message is made of: text, pictures, films, sound and actions, loaded, shown and saved.

What comes in is checked against Limits before it is read, and ends as a frozen value, or as one InputError
that names the thing and the remedy.
"""

from dataclasses import dataclass

from omni.audio import Audio
from omni.errors import InputError
from omni.image import Image
from omni.limits import Limits
from omni.sources import shorten
from omni.video import Video

__all__ = ["Action", "Audio", "Image", "Limits", "Part", "Text", "Video", "shorten"]

_MAX_ACTION_CHARS = 64


@dataclass(frozen=True)
class Text:
    """Words, any str at all."""

    text: str


@dataclass(frozen=True)
class Action:
    """What a player does in a world, by its name."""

    name: str

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip() or len(self.name) > _MAX_ACTION_CHARS:
            raise InputError(
                f"Action takes a name of 1 to {_MAX_ACTION_CHARS} characters, not {shorten(self.name)}; "
                "use one of the world's actions."
            )


Part = Text | Image | Video | Audio | Action
