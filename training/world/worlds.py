"""Worlds that a person steers: every action is answered by the next four frames.

system: play     user: a fox on the grass     assistant: one frame, where the world starts
user: <action left>     assistant: four frames that continue     user: <action jump>     ...
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import product

from training.world.conversation import SHAPES, Shot, Talk
from training.world.held_out import Split, split_of
from training.world.language import describe
from training.world.materials import material_of
from training.world.motion import Actor, Film, Pose, place_named
from training.world.pack import STYLES, concepts
from training.world.phrases import phrases, vary
from training.world.scene import PLAIN_BACKGROUNDS, Scene, place_things, sample_scene

__all__ = [
    "ACTIONS", "FRAMES_PER_ACTION", "PLAY", "drifted_world", "play_film", "played_world", "step_pixels", "world",
]  # fmt: skip

ACTIONS = ("left", "right", "up", "down", "jump", "stay")
FRAMES_PER_ACTION = 4
PLAY = "play"  # what the system says before a world
STEPS_ACROSS = 4  # an action moves the character by this part of the shorter side: of 64 pixels a token, as in films
JUMP = (0.75, 1.0, 0.75, 0.0)  # of the height of a jump, a step, frame by frame
DIRECTIONS = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}
MAX_ACTIONS = {"square": 7, "wide": 5}  # as many as a training row has room for
MAX_PASSED = 40  # actions before those that are read
SIZE = "medium"


def step_pixels(height: int, width: int) -> int:
    """How far one action moves the character."""
    return round(min(height, width) / STEPS_ACROSS)


def _clamped(share: float) -> float:
    return min(1.0, max(0.0, share))


def _answer(pose: Pose, action: str, *, rooms: tuple[int, int], step: int) -> list[Pose]:
    """The poses of the next frames."""
    if action == "jump":
        return [replace(pose, row=_clamped(pose.row - share * step / rooms[0])) for share in JUMP]
    down, across = DIRECTIONS.get(action, (0, 0))
    shares = [(number + 1) / FRAMES_PER_ACTION * step for number in range(FRAMES_PER_ACTION)]
    return [
        replace(
            pose,
            row=_clamped(pose.row + down * share / rooms[0]),
            column=_clamped(pose.column + across * share / rooms[1]),
        )
        for share in shares
    ]


def play_film(scene: Scene, actions: Sequence[str], height: int, width: int) -> Film:
    """Play actions in a world; frame 0 is the scene, then four frames an action. Walls stop the character."""
    thing = scene.things[0]
    poses = [Pose(thing.row, thing.column, thing.extent)]
    size = max(1, round(thing.extent * min(height, width)))
    rooms, step = (height - size, width - size), step_pixels(height, width)
    for action in actions:
        poses += _answer(poses[-1], action, rooms=rooms, step=step)
    return Film(
        verb="plays",
        actors=(Actor(thing.concept, thing.style, tuple(poses)),),
        background=scene.background,
        start=scene.place,
        end=place_named(poses[-1].row, poses[-1].column),
        impacts=(),
        height=height,
        width=width,
        material=material_of(thing.concept),
    )


def _actions(rng: random.Random, count: int) -> list[str]:
    """Press keys as people do: the same one several times."""
    actions: list[str] = []
    while len(actions) < count:
        repeat = actions and rng.random() < 0.3
        actions.append(actions[-1] if repeat else rng.choice(ACTIONS))
    return actions


def _start(rng: random.Random, split: Split) -> tuple[Scene, set[str]]:
    """Where a world begins, and the slots that the wish for it names."""
    focus = "" if split == "train" else rng.choice(("style", "background"))
    while True:
        scene = sample_scene(rng, None, layout="single")
        said = {"thing"} | {slot for slot, share in (("style", 0.3), ("background", 0.75)) if rng.random() < share}
        said |= {focus} if focus else set()
        plain = "white" if rng.random() < 0.7 else rng.choice(tuple(PLAIN_BACKGROUNDS))
        scene = place_things(
            rng,
            names=(scene.things[0].concept,),
            style=scene.style if "style" in said else rng.choices(STYLES, (50, 25, 25))[0],
            background=scene.background if "background" in said else plain,
            place="center",
            size=SIZE,
        )
        if scene.split == split and (not focus or any(k[0] == focus and split_of(*k) == split for k in scene.keys)):
            return scene, said


def _drifted(rng: random.Random, film: Film) -> Film:
    """Let the character lose its looks: it grows faint, and another thing shows through."""
    actor = film.actors[0]
    pairs = [pair for pair in product(concepts(), STYLES) if split_of("style", *pair) == "train"]

    def faint(actor: Actor, opacity: float) -> Actor:
        return replace(actor, poses=tuple(replace(pose, opacity=opacity) for pose in actor.poses))

    ghost = Actor(*rng.choice(pairs), actor.poses)
    return replace(film, actors=(faint(actor, rng.uniform(0.6, 1.0)),), ghosts=(faint(ghost, rng.uniform(0.1, 0.7)),))


def _play(rng: random.Random, split: Split, passed: int, *, drifts: bool = False) -> Talk:
    """Wish for a world, and play three actions or more; so many others were played before those that are read.

    Where it drifts, the character has lost its looks in the first of the answers that are read, and has them again in
    the others, which alone are to be learnt.
    """
    scene, said = _start(rng, split)
    talk = Talk(rng.choices(tuple(MAX_ACTIONS), (75, 25))[0])
    actions = _actions(rng, passed + rng.randint(3, MAX_ACTIONS[talk.shape]))
    film = play_film(scene, actions, *SHAPES[talk.shape])
    read = actions[passed:]
    num_drifted = rng.randint(1, len(read) - 1) if drifts else 0
    drifted = _drifted(rng, film) if drifts else film
    frame = rng.choice(phrases("play_world"))
    if frame.startswith("{x}"):  # a wish alone is a world only where the system says so
        talk.say("system", PLAY)
    talk.say("user", vary(rng, frame.format(x=describe(scene, rng, said))))
    talk.say("assistant", Shot(film, stop=1))
    for number, action in enumerate(read):
        first, is_drifted = 1 + (passed + number) * FRAMES_PER_ACTION, number < num_drifted
        is_unknown = passed > 0 and number == 0  # where the character has come to meanwhile, nobody can tell
        shot = Shot(
            drifted if is_drifted else film,
            first=first,
            stop=first + FRAMES_PER_ACTION,
            continues=True,
            given=tuple(range(FRAMES_PER_ACTION)) if is_unknown or is_drifted else (),
            unseen=first - 1 if is_unknown else 0,
        )
        talk.say("user", {"type": "action", "action": action})
        talk.say("assistant", shot)
    talk.truth |= {
        "actions": read,
        "asked": {slot: value for slot, value in scene.slots.items() if slot in said},
    }
    return talk


def world(rng: random.Random, split: Split) -> Talk:
    """Wish for a world, and play it from the beginning."""
    return _play(rng, split, 0)


def played_world(rng: random.Random, split: Split) -> Talk:
    """A world that has long been played: its first picture, then the last actions, as `Omni.play` reads it."""
    return _play(rng, split, rng.randint(1, MAX_PASSED))


def drifted_world(rng: random.Random, split: Split) -> Talk:
    """A world whose character has lost its looks on the way, as a model's own do after many actions.

    It gets them back from the first picture: what is read tells where it is, not what it is.
    """
    return _play(rng, split, rng.choice((0, rng.randint(1, MAX_PASSED))), drifts=True)
