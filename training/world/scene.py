"""Scenes as data, and their rendering.

A scene does not depend on the resolution: extents are shares of the shorter side, and a place is a share of
the room that is left (0 at the near edge, 1 at the far one), so that a thing is always wholly in the picture.
Shapes: H, W rows and columns of the picture.
"""

import random
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np

from training.world.held_out import Key, Split, split_of, split_of_all
from training.world.pack import STYLES, concepts, sprite_at

__all__ = [
    "BACKGROUNDS", "CELL", "COUNTS", "DRAWN_BACKGROUNDS", "LAYOUTS", "PICTURE_SIZES", "PLACES", "PLAIN_BACKGROUNDS",
    "RELATIONS", "SIZES", "USUAL_SPOTS", "Layout", "Light", "Scene", "Thing", "boxes", "count_spots", "ground_of",
    "on_cells", "place_things", "render", "sample_scene",
]  # fmt: skip

PLAIN_BACKGROUNDS = {
    "red": (220, 40, 40), "green": (40, 160, 70), "blue": (50, 90, 220), "yellow": (250, 215, 60),
    "white": (255, 255, 255), "black": (15, 15, 15), "pink": (250, 160, 200), "gray": (140, 140, 140),
}  # fmt: skip
DRAWN_BACKGROUNDS = ("sky", "grass", "sea", "night", "snow")
BACKGROUNDS = (*PLAIN_BACKGROUNDS, *DRAWN_BACKGROUNDS)
PLACES = {  # name -> (row, column) as shares of the room left
    "center": (0.5, 0.5), "left": (0.5, 0.0), "right": (0.5, 1.0), "top": (0.0, 0.5), "bottom": (1.0, 0.5),
    "top left": (0.0, 0.0), "top right": (0.0, 1.0), "bottom left": (1.0, 0.0), "bottom right": (1.0, 1.0),
}  # fmt: skip
CELL = 8  # pixels of a cell of the codec; things stand on whole ones, so that one has the same latents in many places
# Of 64 pixels 24, 32 and 48, so whole cells too.
SIZES = {"small": 0.375, "medium": 0.5, "big": 0.75}
RELATIONS = ("left of", "right of", "above", "below")
COUNTS = (2, 3, 4, 5)
CORNERS = ("top left", "top right", "bottom left", "bottom right")
# Where several stand in a picture that is asked for: the first so many. Were it any corner, a drawing of three would
# begin as a blend of all arrangements and end with a thing in each of the four.
USUAL_SPOTS = ("top left", "bottom right", "top right", "bottom left", "center")
PICTURE_SIZES = ((64, 64), (64, 96), (96, 64), (48, 48))
RELATED_EXTENT = 0.5
SEVERAL_EXTENT = 0.375

Layout = Literal["single", "count", "relation"]
LAYOUTS: tuple[Layout, ...] = ("single", "count", "relation")


@dataclass(frozen=True)
class Thing:
    """One sprite in a scene: what, how drawn, how large (share of the shorter side), and where."""

    concept: str
    style: str
    extent: float
    row: float
    column: float


@dataclass(frozen=True)
class Scene:
    """Things on a background, with the words that are true of them.

    Args:
        things: drawn in order.
        background: one of BACKGROUNDS.
        place: of a single thing, one of PLACES, else "".
        size: of a single thing, one of SIZES, else "".
        relation: of the first thing to the second, one of RELATIONS, else "".
    """

    things: tuple[Thing, ...]
    background: str
    place: str = ""
    size: str = ""
    relation: str = ""

    @property
    def layout(self) -> Layout:
        """Whether it shows one thing, several of a kind, or two that stand in a relation."""
        return "relation" if self.relation else "single" if len(self.things) == 1 else "count"

    @property
    def style(self) -> str:
        """The style of all its things."""
        return self.things[0].style

    @property
    def slots(self) -> dict[str, str | int]:
        """Everything a full caption says of the scene, by slot."""
        first = self.things[0]
        slots: dict[str, str | int] = {"thing": first.concept}
        if self.style in STYLES:  # the others have no name
            slots["style"] = self.style
        slots["background"] = self.background
        if self.layout == "count":
            return slots | {"count": len(self.things)}
        if self.layout == "relation":
            return slots | {"relation": self.relation, "other": self.things[1].concept}
        return slots | {"place": self.place, "size": self.size}

    @property
    def keys(self) -> tuple[Key, ...]:
        """The combinations it contains that may be held out.

        Relations are named from the left or from above, so that a picture has one key however it is told.
        """
        names = dict.fromkeys(thing.concept for thing in self.things)
        keys: list[Key] = [("style", name, self.style) for name in names]
        keys += [("background", name, self.background) for name in names]
        if self.layout == "count":
            keys.append(("count", self.things[0].concept, str(len(self.things))))
        if self.layout == "relation":
            first, second = (thing.concept for thing in self.things)
            canonical = {"right of": "left of", "below": "above"}
            if self.relation in canonical:
                first, second = second, first
            keys.append(("relation", first, canonical.get(self.relation, self.relation), second))
        return tuple(keys)

    @property
    def split(self) -> Split:
        """The split to which the scene belongs by its combinations."""
        return split_of_all(self.keys)


def _at(name: str, style: str, extent: float, place: str) -> Thing:
    return Thing(name, style, extent, *PLACES[place])


def place_things(
    rng: random.Random, *, names: tuple[str, ...], style: str, background: str, count: int = 1,
    place: str = "center", size: str = "medium", relation: str = "", spots: tuple[str, ...] = (),
) -> Scene:  # fmt: skip
    """Compose the scene that the slots ask for.

    Args:
        names: one concept, or the two of a relation.
        spots: where the things of a count scene stand; chosen at random where it is empty.
    """
    if relation:
        first, second = ("left", "right") if relation in ("left of", "right of") else ("top", "bottom")
        if relation in ("right of", "below"):
            first, second = second, first
        things = [
            _at(names[0], style, RELATED_EXTENT, first),
            _at(names[1], style, RELATED_EXTENT, second),
        ]
        return Scene(tuple(things), background, relation=relation)
    if count > 1:
        spots = spots or count_spots(rng, count)
        return Scene(tuple(_at(names[0], style, SEVERAL_EXTENT, spot) for spot in spots), background)
    return Scene((_at(names[0], style, SIZES[size], place),), background, place=place, size=size)


def count_spots(rng: random.Random, count: int) -> tuple[str, ...]:
    """Choose where `count` same things stand: corners, and the center for five and sometimes for three."""
    if count == 5:
        return (*CORNERS, "center")
    if count == 3 and rng.random() < 0.3:
        return (*rng.choice((("top left", "bottom right"), ("top right", "bottom left"))), "center")
    return tuple(rng.sample(CORNERS, count))


def sample_scene(
    rng: random.Random, split: Split | None = "train", *, layout: Layout | None = None, kind: str = ""
) -> Scene:
    """Draw a scene whose combinations belong to `split`.

    Args:
        split: "train" holds no held-out combination; "test" at least one of test; "validation" at least one
            of validation and none of test; None takes whatever comes.
        layout: one of LAYOUTS, or any.
        kind: one of its keys of this kind ("style", "background", "count", "relation") must be of that split.
    """
    layout = layout or rng.choices(LAYOUTS, (60, 17, 23))[0]
    names = tuple(concepts())
    while True:
        grounds = tuple(PLAIN_BACKGROUNDS) if rng.random() < 0.75 else DRAWN_BACKGROUNDS
        scene = place_things(
            rng,
            names=tuple(rng.sample(names, 2)) if layout == "relation" else (rng.choice(names),),
            style=rng.choice(STYLES),
            background=rng.choice(grounds),
            count=rng.choice(COUNTS) if layout == "count" else 1,
            place="center" if rng.random() < 0.3 else rng.choice(tuple(PLACES)),
            size=rng.choice(tuple(SIZES)),
            relation=rng.choice(RELATIONS) if layout == "relation" else "",
        )
        if split and scene.split != split:
            continue
        if not kind or any(key[0] == kind and split_of(*key) == split for key in scene.keys):
            return scene


def _fill(rows: np.ndarray, top: tuple[int, int, int], bottom: tuple[int, int, int]) -> None:
    share = np.linspace(0.0, 1.0, rows.shape[0])[:, None, None]
    rows[:] = np.rint(np.array(top) * (1 - share) + np.array(bottom) * share)


def _disc(picture: np.ndarray, row: float, column: float, radius: float, color: tuple[int, int, int]) -> None:
    height, width = picture.shape[:2]
    r, c = np.ogrid[:height, :width]
    unit = min(height, width)
    inside = (r - row * height) ** 2 + (c - column * width) ** 2 < (radius * unit) ** 2
    picture[inside] = color


@lru_cache(maxsize=256)
def ground_of(background: str, height: int, width: int) -> np.ndarray:
    """Draw a background alone; uint8 [H, W, 3], not to be written to."""
    picture = np.empty((height, width, 3), np.uint8)
    if background in PLAIN_BACKGROUNDS:
        picture[:] = PLAIN_BACKGROUNDS[background]
    elif background == "sky":
        _fill(picture, (80, 165, 240), (195, 230, 255))
        for row, column, radius in (
            (0.2, 0.2, 0.1),
            (0.22, 0.32, 0.08),
            (0.7, 0.75, 0.1),
            (0.72, 0.88, 0.08),
        ):
            _disc(picture, row, column, radius, (250, 252, 255))
    elif background == "grass":
        _fill(picture[: height // 2], (135, 200, 245), (205, 235, 255))
        _fill(picture[height // 2 :], (110, 190, 70), (60, 140, 50))
    elif background == "sea":
        _fill(picture[: height // 3], (170, 220, 250), (225, 243, 255))
        _fill(picture[height // 3 :], (30, 130, 190), (10, 60, 130))
    elif background == "night":
        _fill(picture, (10, 12, 50), (45, 35, 100))
        for row, column in (
            (0.1, 0.15),
            (0.18, 0.6),
            (0.35, 0.35),
            (0.3, 0.9),
            (0.6, 0.1),
            (0.75, 0.55),
            (0.9, 0.85),
        ):
            _disc(picture, row, column, 0.02, (255, 245, 190))
    elif background == "snow":
        _fill(picture[: height // 2], (165, 185, 205), (205, 218, 230))
        _fill(picture[height // 2 :], (238, 244, 250), (250, 252, 255))
        for row, column in ((0.08, 0.2), (0.2, 0.75), (0.3, 0.45), (0.4, 0.1), (0.42, 0.9)):
            _disc(picture, row, column, 0.02, (255, 255, 255))
    else:
        raise AssertionError(f"no background is called {background!r}")
    return picture


def _spot(share: float, room: int) -> int:
    """Pixels from the edge: the whole cells nearest to a share of the room."""
    return min(room, CELL * round(share * room / CELL))


def boxes(scene: Scene, height: int, width: int) -> list[tuple[int, int, int]]:
    """Tell where each thing is drawn: (top, left, size) in pixels."""
    found = []
    for thing in scene.things:
        size = max(1, round(thing.extent * min(height, width)))
        found.append((_spot(thing.row, height - size), _spot(thing.column, width - size), size))
    return found


def on_cells(scene: Scene, height: int, width: int) -> Scene:
    """Say exactly where things are drawn in a picture of this size; the picture is the same."""
    things = []
    for thing, (top, left, size) in zip(scene.things, boxes(scene, height, width), strict=True):
        rooms = max(1, height - size), max(1, width - size)
        things.append(replace(thing, row=top / rooms[0], column=left / rooms[1]))
    return replace(scene, things=tuple(things))


@dataclass(frozen=True)
class Light:
    """How things look in a picture that somebody shows: facing the other way, in light of another colour."""

    is_mirrored: bool = False
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def on(self, color: np.ndarray, through: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Change a sprite as `sprite_at` gives it."""
        color = np.rint(np.minimum(color * np.array(self.tint), 255 - through)).astype(np.uint16)
        return (color[:, ::-1], through[:, ::-1]) if self.is_mirrored else (color, through)


def render(scene: Scene, height: int = 64, width: int = 64, light: Light | None = None) -> np.ndarray:
    """Draw a scene; uint8 [H, W, 3]. The same scene in the same light always gives the same pixels."""
    picture = ground_of(scene.background, height, width).copy()
    for thing, (top, left, size) in zip(scene.things, boxes(scene, height, width), strict=True):
        color, through = sprite_at(thing.concept, thing.style, size)
        if light:
            color, through = light.on(color, through)
        ground = picture[top : top + size, left : left + size]
        ground[:] = color + (ground * through + 127) // 255
    return picture
