"""What happens while a reply is made, in the order in which it happens."""

from dataclasses import dataclass

import numpy as np

from omni.parts import Audio, Image, Video

__all__ = ["Event", "MediaFinished", "MediaPreview", "MediaStarted", "TextDelta"]


@dataclass(frozen=True)
class TextDelta:
    """More words."""

    text: str


@dataclass(frozen=True)
class MediaStarted:
    """A medium begins.

    Attributes:
        modality: "image", "video" or "audio".
        shape: (height, width) of a picture, (frames, height, width) of a film, in pixels; (samples,) of a recording.
    """

    modality: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class MediaPreview:
    """A rough look at a medium that is being made. image: uint8 [H, W, 3], smaller than the medium."""

    image: np.ndarray
    step: int
    num_steps: int


@dataclass(frozen=True)
class MediaFinished:
    """A medium is done.

    Attributes:
        part: the medium; of a film that goes on, the new frames and their sound.
        continues: whether it goes on with the film before it.
    """

    part: Image | Video | Audio
    continues: bool = False


Event = TextDelta | MediaStarted | MediaPreview | MediaFinished
