"""The exam of worlds: are actions obeyed, and is the character still there after many of them?"""

import random
from collections.abc import Sequence

import numpy as np

from training.exams.films import SIZE, Shown, strip
from training.exams.room import Pixels, Room, by_split, next_of_same, with_of_real
from training.judges.motion import Spot, Tracker, expected_move, is_obeyed
from training.scores import Score
from training.world.conversation import SHAPES, Example
from training.world.language import caption
from training.world.motion import Film, render_film
from training.world.scene import Scene
from training.world.worlds import ACTIONS, FRAMES_PER_ACTION, play_film, step_pixels

# A character is looked for after so many actions; so many worlds of each split are played that far.
LONG = 60
LONG_SHARE = 2


def _film(example: Example) -> Film:
    film: Film = example.truth["films"][0]
    return film


def _actions(example: Example, seed: int, *, is_long: bool) -> list[str]:
    """At the end of a long world the character rests: where it moves, the codec blurs even the true one."""
    rng = random.Random(f"world|{seed}")
    actions: list[str] = example.truth["actions"]
    return [*actions, *(rng.choice(ACTIONS) for _ in range(LONG - 1 - len(actions))), "stay"] if is_long else actions


def _wish(example: Example) -> str:
    """What is asked for, in the model's own words."""
    return caption(_film(example).scene(0), example.truth["asked"])


def _play(room: Room, example: Example, actions: Sequence[str], seed: int) -> Pixels:
    world = room.candidate.play(_wish(example), size=SIZE, seed=seed)
    return np.concatenate([world.first.frames, *(world.send(action).frames for action in actions)])


def _spots(room: Room, frames: Pixels) -> list[Spot]:
    """Follow what the first frame shows."""
    things = room.judges.templates.look(frames[0]).things
    return Tracker(frames).follow_upright(things[0].concept, things[0].style, things[0].box[2]) if things else []


def _is_stopped(action: str, before: Spot, size: tuple[int, int], step: int) -> bool:
    """Whether a wall stops an action, so that nothing tells obeying it from ignoring it."""
    way = expected_move("up" if action == "jump" else action, before, *size, step)
    return action != "stay" and max(map(abs, way)) < step / 2


def obeyed(spots: Sequence[Spot], actions: Sequence[str], size: tuple[int, int]) -> list[bool]:
    """Tell of every action that no wall stops whether the frames after it show it.

    Args:
        spots: where the character is, frame by frame, the first frame before the first action.
        actions: in order.
        size: height and width of the frames, in pixels.
    """
    step, judged = step_pixels(*size), []
    for number, action in enumerate(actions):
        first = 1 + number * FRAMES_PER_ACTION
        if not spots:
            judged.append(False)
        elif not _is_stopped(action, spots[first - 1], size, step):
            after = spots[first : first + FRAMES_PER_ACTION]
            judged.append(is_obeyed(action, spots[first - 1], after, *size, step))
    return judged


def world(room: Room, count: int) -> tuple[list[Score], Shown]:
    """Examine playing; every action that no wall stops is one judgement, and every long world one more."""
    examples = [
        example
        for split in ("train", "test")
        for example in room.examples("world", split, count // 2, want=lambda e: SHAPES[e.truth["shape"]] == SIZE)
    ]
    is_long = [number % (count // 2) < max(1, count // 2 // LONG_SHARE) for number in range(len(examples))]
    plans = [_actions(e, number, is_long=far) for number, (e, far) in enumerate(zip(examples, is_long, strict=True))]
    scores: list[Score] = []
    played = []
    for number in (one for batch in room.batches([""] * len(examples), label="world") for one in batch):
        (seed,) = room.seeds([number])
        played.append(_play(room, examples[number], plans[number], seed))
    scenes: list[Scene] = [_film(example).scene(0) for example in examples]
    truths = [render_film(play_film(scene, plan, *SIZE)) for scene, plan in zip(scenes, plans, strict=True)]
    reals = room.through_codec(truths)
    others = next_of_same(is_long)
    for number, (frames, real) in enumerate(zip(played, reals, strict=True)):
        keys = scenes[number].keys
        spots, plan = _spots(room, frames), plans[number]
        # Judged against the actions of another world.
        shorter = plans[others[number]][: len(plan)]
        for split, (where, actions) in by_split(keys, (spots, plan), (_spots(room, real), plan), (spots, shorter)):
            scores += [Score("world/action", split, keys, right) for right in obeyed(where, actions, SIZE)]
    scores += _survivals(room, examples, [n for n, far in enumerate(is_long) if far], played, reals)
    return scores, [(strip(frames), _wish(example)) for frames, example in zip(played, examples, strict=True)]


def _survivals(
    room: Room, examples: Sequence[Example], numbers: Sequence[int], played: Sequence[Pixels], reals: Sequence[Pixels]
) -> list[Score]:
    """Is the character that was asked for still identified in the last frame; and where the true one is?"""
    films = [_film(examples[number]) for number in numbers]
    styles, things = [film.style for film in films], [1] * len(films)
    made_views, real_views = (
        room.judges.view([frames[number][-1] for number in numbers], styles=styles, things=things)
        for frames in (played, reals)
    )
    scores: list[Score] = []
    for place, (film, made, real) in enumerate(zip(films, made_views, real_views, strict=True)):
        keys, other = film.scene(0).keys, films[(place + 1) % len(films)].concept
        trio = ((made, film.concept), (real, film.concept), (made, other))
        scores += with_of_real(
            [
                Score("world/survival", split, keys, view.is_identified(name, seed=str(place)))
                for split, (view, name) in by_split(keys, *trio)
            ]
        )
    return scores
