"""Motion verbs: what a thing does from where it stands, frame by frame, and when it hits something.

Every verb is a function of a scene and a length. There is one speed and one gravity: what moves takes the time that
its way needs, and then rests. Times of impacts are whole frames, so that a sound can stand exactly there.
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from training.world.held_out import Split, split_of
from training.world.materials import material_of
from training.world.motion import (
    ANGLE_STEP,
    FPS,
    Actor,
    Film,
    Impact,
    Pose,
    box_of,
    place_named,
    render_film,
    visible_bounds,
)
from training.world.pack import STYLES, concepts
from training.world.scene import (
    DRAWN_BACKGROUNDS,
    PLACES,
    PLAIN_BACKGROUNDS,
    SEVERAL_EXTENT,
    SIZES,
    Scene,
    on_cells,
    place_things,
    render,
    sample_scene,
)

__all__ = ["FILM_LENGTHS", "VERBS", "film_of", "possible_verbs", "sample_clips", "sample_film", "stage_scene"]

FILM_LENGTHS = (5, 9, 13, 17)
LENGTH_WEIGHTS = (6, 12, 12, 70)
FILM_SIZES = ((64, 64), (64, 96), (96, 64), (48, 48))
SIZE_WEIGHTS = (72, 10, 10, 8)
USUAL_SIZE = 0.8  # of films whose thing is medium, as of pictures whose request names no size
FULL_STRENGTH = 4.0  # shorter sides a second
# Shorter sides a frame: of 64 pixels a token, 16, while a latent lasts, so that what slides stands on tokens again.
SPEED = 1 / 16
FALL = 1 / 64  # shorter sides after the first frame of a fall; so many times t * t after t frames
LARGER = {"small": "medium", "medium": "big"}
SMALLER = {"big": "small", "medium": "small"}
JUMP, SHORTEST_JUMP = 8, 4  # frames in which what bounces is in the air, first and last
SWELLING = 8  # frames in which a thing grows or shrinks
TURN = 22.5  # degrees a frame
BOUNCE = 0.5  # of the speed with which two things meet, after they have met
ROW_OF = {name: place[0] for name, place in PLACES.items()}
COLUMN_OF = {name: place[1] for name, place in PLACES.items()}


@dataclass(frozen=True)
class Stage:
    """Where a motion takes place: the scene it starts from, its number of steps, and the picture's size."""

    rng: random.Random
    scene: Scene
    steps: int
    height: int
    width: int

    @property
    def first(self) -> Pose:
        """The first thing's pose in frame 0."""
        thing = self.scene.things[0]
        return Pose(thing.row, thing.column, thing.extent)

    @property
    def rooms(self) -> tuple[float, float]:
        """The room that the first thing leaves, down and across, in shorter sides."""
        side, extent = min(self.height, self.width), self.scene.things[0].extent
        return self.height / side - extent, self.width / side - extent

    def fall(self, frames: int) -> float:
        """How far something falls in so many frames, in shares of the room."""
        return FALL * frames**2 / self.rooms[0]

    def strength(self, speed: float) -> float:
        """The strength of a blow, from a speed in shorter sides a frame."""
        return round(min(1.0, speed * FPS / FULL_STRENGTH), 3)


Blow = tuple[int, float]
Motion = tuple[list[list[Pose]], list[Blow]]


def _slide(stage: Stage, row: float, column: float) -> Motion:
    start, (down, across) = stage.first, stage.rooms
    way = max(abs(row - start.row) * down, abs(column - start.column) * across)
    frames = min(stage.steps, max(1, math.ceil(way / SPEED - 1e-6)))
    shares = [min(1.0, step / frames) for step in range(stage.steps + 1)]
    return [
        [
            replace(
                start,
                row=start.row + (row - start.row) * share,
                column=start.column + (column - start.column) * share,
            )
            for share in shares
        ]
    ], []


def _slides_left(stage: Stage) -> Motion:
    return _slide(stage, stage.first.row, 0.0)


def _slides_right(stage: Stage) -> Motion:
    return _slide(stage, stage.first.row, 1.0)


def _slides_up(stage: Stage) -> Motion:
    return _slide(stage, 0.0, stage.first.column)


def _slides_down(stage: Stage) -> Motion:
    return _slide(stage, 1.0, stage.first.column)


def _drop(stage: Stage) -> tuple[list[float], Blow]:
    """Rows of a fall to the ground, and the blow at its end."""
    way = 1.0 - stage.first.row
    frames = min(stage.steps, math.ceil((way / stage.fall(1)) ** 0.5 - 1e-6))
    rows = [stage.first.row + way * (t / frames) ** 2 for t in range(frames + 1)]
    return rows, (frames, stage.strength(2 * way * stage.rooms[0] / frames))


def _upright(stage: Stage, rows: list[float], blows: list[Blow]) -> Motion:
    rows = [*rows, *[rows[-1]] * (stage.steps + 1 - len(rows))]
    return [[replace(stage.first, row=row) for row in rows]], blows


def _falls(stage: Stage) -> Motion:
    rows, blow = _drop(stage)
    return _upright(stage, rows, [blow])


def _bounces(stage: Stage) -> Motion:
    """To the ground, then a jump; every next one is two frames shorter."""
    rows, blows = [stage.first.row], list[Blow]()
    if not place_named(stage.first.row, stage.first.column).startswith("bottom"):
        rows, blow = _drop(stage)
        blows.append(blow)
    floor, duration = rows[-1], JUMP
    while (duration := min(duration, stage.steps + 1 - len(rows)) // 2 * 2) >= SHORTEST_JUMP:
        half = duration // 2
        rows += [floor - stage.fall(half) + stage.fall(abs(t - half)) for t in range(1, duration + 1)]
        blows.append((len(rows) - 1, stage.strength(2 * FALL * half)))
        duration -= 2
    return _upright(stage, rows, blows)


def _rounded(degrees: float) -> float:
    return ANGLE_STEP * round(degrees / ANGLE_STEP)


def _rolls(stage: Stage) -> Motion:
    start, thing = stage.first, stage.scene.things[0]
    side = 1.0 if start.column < 0.25 else 0.0 if start.column > 0.75 else stage.rng.choice((0.0, 1.0))
    (poses,), _ = _slide(stage, start.row, side)
    top, left, bottom, right = visible_bounds(thing.concept, thing.style)
    size = box_of(start, stage.height, stage.width)[2]
    diameter = max(bottom - top, right - left) * size
    room = stage.width - size
    turned = [-math.degrees(2 * (pose.column - start.column) * room / diameter) for pose in poses]
    return [[replace(pose, angle=_rounded(angle)) for pose, angle in zip(poses, turned, strict=True)]], []


def _orbits(stage: Stage) -> Motion:
    start = stage.first
    down, across = start.row - 0.5, start.column - 0.5
    way = stage.rng.choice((-1, 1)) * 2 * math.pi / stage.steps
    poses = []
    for step in range(stage.steps + 1):
        cos, sin = math.cos(way * step), math.sin(way * step)
        row, column = 0.5 + down * cos + across * sin, 0.5 + across * cos - down * sin
        poses.append(replace(start, row=min(1.0, max(0.0, row)), column=min(1.0, max(0.0, column))))
    return [poses], []


def _spins(stage: Stage) -> Motion:
    speed = stage.rng.choice((-1, 1)) * TURN
    return [[replace(stage.first, angle=speed * step) for step in range(stage.steps + 1)]], []


def _scaled(stage: Stage, size: str) -> Motion:
    start, frames = stage.first, min(stage.steps, SWELLING)
    shares = [min(1.0, step / frames) for step in range(stage.steps + 1)]
    return [[replace(start, extent=start.extent * (1 - share) + SIZES[size] * share) for share in shares]], []


def _grows(stage: Stage) -> Motion:
    return _scaled(stage, LARGER[stage.scene.size])


def _shrinks(stage: Stage) -> Motion:
    return _scaled(stage, SMALLER[stage.scene.size])


def _shakes(stage: Stage) -> Motion:
    start = stage.first
    room = stage.width - round(start.extent * min(stage.height, stage.width))
    reach = max(2, round(0.06 * min(stage.height, stage.width))) / room
    poses = [start]
    for step in range(1, stage.steps):
        column = start.column + (reach if step % 2 else -reach)
        poses.append(replace(start, column=min(1.0, max(0.0, column))))
    return [[*poses, start]], []


def _fades(stage: Stage) -> Motion:
    return [[replace(stage.first, opacity=1 - step / stage.steps) for step in range(stage.steps + 1)]], []


def _gap(stage: Stage, axis: int) -> float:
    """Pixels between what is seen of two things along an axis (0 down, 1 across), the first one before."""
    boxes = [
        box_of(Pose(thing.row, thing.column, thing.extent), stage.height, stage.width) for thing in stage.scene.things
    ]
    bounds = [visible_bounds(thing.concept, thing.style) for thing in stage.scene.things]
    return boxes[1][axis] + bounds[1][axis] * boxes[1][2] - boxes[0][axis] - bounds[0][axis + 2] * boxes[0][2]


def _collides(stage: Stage) -> Motion:
    """Both move towards each other with one speed, touch in one frame, and go back more slowly."""
    axis = 1 if stage.scene.relation in ("left of", "right of") else 0
    gap = _gap(stage, axis)
    frame = max(2, min(stage.steps // 2, round(gap / min(stage.height, stage.width) / SPEED)))
    way = [min(step / frame, 1 - BOUNCE * (step - frame) / frame) for step in range(stage.steps + 1)]
    way = [max(0.0, share) for share in way]
    actors = []
    for sign, thing in zip((1, -1), stage.scene.things, strict=True):
        start = Pose(thing.row, thing.column, thing.extent)
        size = box_of(start, stage.height, stage.width)[2]
        reach = sign * gap / 2 / ((stage.height, stage.width)[axis] - size)
        shifts = [(reach * share, 0.0) if axis == 0 else (0.0, reach * share) for share in way]
        actors.append([replace(start, row=start.row + down, column=start.column + right) for down, right in shifts])
    return actors, [(frame, stage.strength(gap / frame / min(stage.height, stage.width)))]


@dataclass(frozen=True)
class Verb:
    """How a verb moves things, and where and from what size it can begin."""

    move: Callable[[Stage], Motion]
    places: tuple[str, ...]
    sizes: tuple[str, ...] = ("small", "small", "medium")
    least_steps: int = 4


ALL = tuple(PLACES)
VERBS: dict[str, Verb] = {
    "slides left": Verb(_slides_left, tuple(name for name in ALL if COLUMN_OF[name] > 0)),
    "slides right": Verb(_slides_right, tuple(name for name in ALL if COLUMN_OF[name] < 1)),
    "slides up": Verb(_slides_up, tuple(name for name in ALL if ROW_OF[name] > 0)),
    "slides down": Verb(_slides_down, tuple(name for name in ALL if ROW_OF[name] < 1)),
    "bounces": Verb(_bounces, ALL, least_steps=12),
    "falls": Verb(_falls, tuple(name for name in ALL if ROW_OF[name] < 1)),
    "rolls": Verb(_rolls, ALL),
    "orbits": Verb(_orbits, ("left", "right", "top", "bottom"), least_steps=8),
    "spins": Verb(_spins, ALL, tuple(SIZES)),
    "grows": Verb(_grows, ALL),
    "shrinks": Verb(_shrinks, ALL, ("medium", "big")),
    "shakes": Verb(_shakes, ALL, tuple(SIZES)),
    "fades": Verb(_fades, ALL, tuple(SIZES)),
    "collides": Verb(_collides, ()),
}


def possible_verbs(scene: Scene, num_frames: int) -> list[str]:
    """List what the single thing of a scene can do from where it stands."""
    return [
        name
        for name, verb in VERBS.items()
        if scene.place in verb.places and scene.size in verb.sizes and num_frames > verb.least_steps
    ]


def film_of(
    rng: random.Random, scene: Scene, verb: str, *, num_frames: int, height: int, width: int, hold: int = 0
) -> Film:
    """Set a scene in motion: frame 0 is the scene itself.

    Args:
        scene: one thing at a place from which the verb is possible; for "collides" two that stand in a relation.
        verb: one of VERBS.
        num_frames: of the whole film.
        hold: how many frames after the end of the motion repeat its last one.
    """
    scene = on_cells(scene, height, width)
    stage = Stage(rng, scene, num_frames - 1 - hold, height, width)
    motions, blows = VERBS[verb].move(stage)
    actors = tuple(
        Actor(thing.concept, thing.style, (*poses, *[poses[-1]] * hold))
        for thing, poses in zip(scene.things, motions, strict=True)
    )
    last, material = motions[0][-1], material_of(scene.things[0].concept)
    single = len(actors) == 1
    return Film(
        verb=verb,
        actors=actors,
        background=scene.background,
        start=scene.place if single else "",
        end=place_named(last.row, last.column) if single else "",
        impacts=tuple(Impact(frame, strength, material) for frame, strength in blows),
        height=height,
        width=width,
        material=material,
    )


def stage_scene(
    rng: random.Random,
    verb: str,
    *,
    names: tuple[str, ...] = (),
    style: str = "",
    background: str = "",
    place: str = "",
) -> Scene:
    """Compose a scene from which a verb is possible; what is left out is drawn.

    Args:
        names: one concept, or two for "collides".
        place: where the single thing stands.
    """
    grounds = tuple(PLAIN_BACKGROUNDS) if rng.random() < 0.75 else DRAWN_BACKGROUNDS
    style, background = style or rng.choice(STYLES), background or rng.choice(grounds)
    names = names or tuple(rng.sample(tuple(concepts()), 2))
    if verb == "collides":
        relation = rng.choice(("left of", "left of", "above"))
        pair = place_things(rng, names=names, style=style, background=background, relation=relation)
        first = pair.things[0]
        level = {"row": first.row} if relation == "left of" else {"column": first.column}
        return replace(pair, things=tuple(replace(t, extent=SEVERAL_EXTENT, **level) for t in pair.things))
    known = VERBS[verb]
    return place_things(
        rng, names=names[:1], style=style, background=background, place=place or rng.choice(known.places),
        size="medium" if rng.random() < USUAL_SIZE else rng.choice(known.sizes),
    )  # fmt: skip


def sample_film(
    rng: random.Random, split: Split | None = "train", *, verb: str = "", num_frames: int | None = None,
    size: tuple[int, int] | None = None, hold: int = 0, kind: str = "", verbs: Sequence[str] = tuple(VERBS),
) -> Film:  # fmt: skip
    """Draw a film whose combinations belong to `split`.

    Args:
        split: as in `scene.sample_scene`.
        verb: one of VERBS, or any of `verbs`.
        num_frames: 4k + 1; drawn from FILM_LENGTHS where it is left out.
        size: height and width in pixels; mostly 64 x 64 where it is left out.
        hold: see `film_of`.
        kind: one of its keys of this kind ("style", "background", "verb") must be of that split.
    """
    height, width = size or rng.choices(FILM_SIZES, SIZE_WEIGHTS)[0]
    num_frames = num_frames or rng.choices(FILM_LENGTHS, LENGTH_WEIGHTS)[0]
    fitting = [name for name in verbs if VERBS[name].least_steps < num_frames - hold]
    while True:
        name = verb or rng.choice(fitting)
        if name == verb and name not in fitting:
            num_frames = min(length for length in FILM_LENGTHS if length - hold > VERBS[name].least_steps)
        film = film_of(rng, stage_scene(rng, name), name, num_frames=num_frames, height=height, width=width, hold=hold)
        if split and film.split != split:
            continue
        if not kind or any(key[0] == kind and split_of(*key) == split for key in film.keys):
            return film


def sample_clips(rng: random.Random, batch: int, num_frames: int, size: tuple[int, int] = (64, 64)) -> np.ndarray:
    """Draw clips to train a video codec on: films of training's combinations, and now and then a still.

    Args:
        num_frames: of each, 1 or more.
        size: height and width in pixels.

    Returns:
        uint8 [batch, F, H, W, 3].
    """
    clips = np.empty((batch, num_frames, *size, 3), np.uint8)
    for clip in clips:
        if num_frames < 5 or rng.random() < 0.08:
            clip[:] = render(sample_scene(rng), *size)
        else:
            clip[:] = render_film(sample_film(rng, num_frames=num_frames, size=size))
    return clips
