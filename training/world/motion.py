"""Films as data, and their rendering: sprites that move over a background, frame by frame.

Places are shares of the room left, as in `scene.Thing`, so that a thing is always wholly in the picture.
Shapes: F, H, W frames, rows and columns of a film.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from training.world.held_out import Key, Split, split_of_all
from training.world.pack import load_pack, sprite_at
from training.world.scene import PLACES, SIZES, Scene, Thing, ground_of

__all__ = [
    "ANGLE_STEP", "FPS", "Actor", "Box", "Film", "Impact", "Pose", "box_of", "film_boxes", "place_named",
    "posed_sprite", "render_film", "visible_bounds",
]  # fmt: skip

FPS = 8
ANGLE_STEP = 7.5  # degrees
CANVAS = 92  # pixels; holds a sprite of 64 however it is turned
Box = tuple[int, int, int]


@dataclass(frozen=True)
class Pose:
    """How a thing stands in one frame.

    Args:
        row: share of the room left above it, 0 to 1.
        column: share of the room left to its left, 0 to 1.
        extent: its side, as a share of the picture's shorter side.
        angle: turned counter-clockwise by so many degrees; a multiple of ANGLE_STEP.
        opacity: 1 is solid, 0 cannot be seen.
    """

    row: float
    column: float
    extent: float
    angle: float = 0.0
    opacity: float = 1.0


@dataclass(frozen=True)
class Actor:
    """One thing of a film, and its pose in every frame."""

    concept: str
    style: str
    poses: tuple[Pose, ...]


@dataclass(frozen=True)
class Impact:
    """Something hits the ground, or another thing.

    Args:
        frame: index of the frame in which both touch.
        strength: speed of the blow, 0 to 1; 1 is four times the picture's shorter side a second, or more.
        material: of what hits; see `materials.MATERIALS`.
    """

    frame: int
    strength: float
    material: str


@dataclass(frozen=True)
class Film:
    """A moving picture, with the words that are true of it.

    Args:
        verb: one of `verbs.VERBS`, or "plays" for a world that is steered.
        actors: drawn in order; two where they collide.
        background: one of `scene.BACKGROUNDS`.
        start: where a single thing begins, one of `scene.PLACES`, else "".
        end: where it ends, likewise.
        impacts: in the order of time.
        height, width: in pixels.
        material: of the first thing, or of both.
        ghosts: drawn over the actors, and spoken of by nobody.
    """

    verb: str
    actors: tuple[Actor, ...]
    background: str
    start: str
    end: str
    impacts: tuple[Impact, ...]
    height: int
    width: int
    material: str
    fps: int = FPS
    ghosts: tuple[Actor, ...] = ()

    @property
    def num_frames(self) -> int:
        """Frames of the whole film."""
        return len(self.actors[0].poses)

    @property
    def concept(self) -> str:
        """What moves; the first of two."""
        return self.actors[0].concept

    @property
    def style(self) -> str:
        """The style of all its things."""
        return self.actors[0].style

    @property
    def slots(self) -> dict[str, str | int]:
        """Everything a full caption says of the film, by slot."""
        slots: dict[str, str | int] = {"thing": self.concept, "style": self.style, "background": self.background}
        if len(self.actors) > 1:
            return slots | {"verb": self.verb, "other": self.actors[1].concept}
        return slots | {"verb": self.verb, "start": self.start, "end": self.end}

    @property
    def keys(self) -> tuple[Key, ...]:
        """The combinations it contains that may be held out: of its first frame, and of things with the verb."""
        verbs = [("verb", actor.concept, self.verb) for actor in self.actors if self.verb != "plays"]
        return (*self.scene(0).keys, *verbs)

    @property
    def split(self) -> Split:
        """The split to which the film belongs by its combinations."""
        return split_of_all(self.keys)

    def scene(self, frame: int) -> Scene:
        """Describe one frame as a scene; its picture is the same unless a thing is turned or faint there."""
        poses = [actor.poses[frame] for actor in self.actors]
        things = tuple(
            Thing(actor.concept, actor.style, pose.extent, pose.row, pose.column)
            for actor, pose in zip(self.actors, poses, strict=True)
        )
        if len(things) > 1:
            across = abs(poses[0].column - poses[1].column) > abs(poses[0].row - poses[1].row)
            return Scene(things, self.background, relation="left of" if across else "above")
        size = min(SIZES, key=lambda name: abs(SIZES[name] - poses[0].extent))
        return Scene(things, self.background, place=place_named(poses[0].row, poses[0].column), size=size)


def place_named(row: float, column: float) -> str:
    """Name the nearest of the nine places."""
    return min(PLACES, key=lambda name: (PLACES[name][0] - row) ** 2 + (PLACES[name][1] - column) ** 2)


@lru_cache(maxsize=1 << 11)
def _turned(concept: str, style: str, angle: float) -> np.ndarray:
    """A sprite turned on a canvas that holds it, colour times alpha; float32 [4, CANVAS, CANVAS]."""
    from PIL import Image

    rgba = load_pack().sprite(concept, style).astype(np.float32)
    rgba[..., :3] *= rgba[..., 3:] / 255.0
    margin = (CANVAS - rgba.shape[0]) // 2
    wide = np.pad(rgba, ((margin, margin), (margin, margin), (0, 0)))
    bands = [
        Image.fromarray(wide[..., band].copy()).rotate(angle, Image.Resampling.BILINEAR).tobytes() for band in range(4)
    ]
    return np.stack([np.frombuffer(band, np.float32).reshape(CANVAS, CANVAS) for band in bands])


@lru_cache(maxsize=1 << 11)
def _turned_at(concept: str, style: str, size: int, angle: float) -> tuple[np.ndarray, np.ndarray]:
    from PIL import Image

    side = round(CANVAS * size / 64)
    side += (side - size) % 2  # so that the middles of both fall on the same place
    bands = [
        Image.fromarray(band).resize((side, side), Image.Resampling.BOX) for band in _turned(concept, style, angle)
    ]
    small = np.stack([np.asarray(band) for band in bands], -1).clip(0, 255).round().astype(np.uint16)
    return small[..., :3].copy(), 255 - small[..., 3:]


def posed_sprite(concept: str, style: str, size: int, angle: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Shrink and turn a sprite, ready to compose; see `pack.sprite_at`.

    A turned one is larger than `size`, which stays the side of the sprite itself; both have the same middle.

    Args:
        size: side in pixels.
        angle: degrees, counter-clockwise.
    """
    angle = angle % 360
    return sprite_at(concept, style, size) if angle == 0 else _turned_at(concept, style, size, angle)


@lru_cache(maxsize=512)
def visible_bounds(concept: str, style: str) -> tuple[float, float, float, float]:
    """Tell what of its square a sprite fills: top, left, bottom, right, as shares of the side."""
    alpha = load_pack().sprite(concept, style)[..., 3] > 127
    rows, columns = np.nonzero(alpha.any(1))[0], np.nonzero(alpha.any(0))[0]
    side = alpha.shape[0]
    edges = (rows[0], columns[0], rows[-1] + 1, columns[-1] + 1)
    top, left, bottom, right = (float(edge) / side for edge in edges)
    return top, left, bottom, right


def box_of(pose: Pose, height: int, width: int) -> Box:
    """Tell where a thing is drawn: (top, left, size) in pixels, of its square before turning."""
    size = max(1, round(pose.extent * min(height, width)))
    return round(pose.row * (height - size)), round(pose.column * (width - size)), size


def film_boxes(film: Film) -> list[list[Box]]:
    """Tell where each actor is drawn in each frame; see `box_of`."""
    return [[box_of(pose, film.height, film.width) for pose in actor.poses] for actor in film.actors]


def _paste(picture: np.ndarray, color: np.ndarray, through: np.ndarray, top: int, left: int) -> None:
    """Compose a sprite onto a picture; what lies outside is cut off."""
    (height, width), side = picture.shape[:2], color.shape[0]
    first_row, first_column = max(0, -top), max(0, -left)
    last_row, last_column = min(side, height - top), min(side, width - left)
    rows, columns = slice(first_row, last_row), slice(first_column, last_column)
    ground = picture[top + first_row : top + last_row, left + first_column : left + last_column]
    ground[:] = color[rows, columns] + (ground * through[rows, columns] + 127) // 255


def _draw(picture: np.ndarray, actor: Actor, pose: Pose) -> None:
    top, left, size = box_of(pose, *picture.shape[:2])
    color, through = posed_sprite(actor.concept, actor.style, size, pose.angle)
    if pose.opacity < 1:
        color = np.rint(color * pose.opacity).astype(np.uint16)
        through = 255 - np.rint((255 - through) * pose.opacity).astype(np.uint16)
    margin = (color.shape[0] - size) // 2
    _paste(picture, color, through, top - margin, left - margin)


def render_film(film: Film) -> np.ndarray:
    """Draw all frames; uint8 [F, H, W, 3]. The same film always gives the same pixels."""
    frames = np.empty((film.num_frames, film.height, film.width, 3), np.uint8)
    frames[:] = ground_of(film.background, film.height, film.width)
    for actor in (*film.actors, *film.ghosts):
        for frame, pose in zip(frames, actor.poses, strict=True):
            _draw(frame, actor, pose)
    return frames
