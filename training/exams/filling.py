"""The exam of filling in: a box of a picture is painted anew, the rest stays."""

import numpy as np
from numpy.typing import NDArray

from training.exams.films import Shown
from training.exams.pictures import EDGE, SMALLEST_REST, is_unharmed
from training.exams.room import Pixels, Room, by_split, next_of_same, pictures_of, shape_of, words_of
from training.scores import Score
from training.world.conversation import Example
from training.world.held_out import Key
from training.world.scene import Scene

# A latent token that the box touches is painted anew as a whole.
TOKEN = 16


def _rest(given: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Mark the pixels that filling in leaves as they are, away from the tokens that it touches; [H, W]."""
    rows, columns = (side // TOKEN for side in given.shape)
    touched = ~given.reshape(rows, TOKEN, columns, TOKEN).all(axis=(1, 3))
    touched = np.pad(touched.repeat(TOKEN, 0).repeat(TOKEN, 1), EDGE)
    side = 2 * EDGE + 1
    return ~np.lib.stride_tricks.sliding_window_view(touched, (side, side)).any(axis=(2, 3))


def _thing_keys(example: Example) -> tuple[Key, ...]:
    scene: Scene = example.truth["scenes"][0]
    return (("style", example.truth["asked"]["thing"], scene.style),)


def inpaint(room: Room, count: int) -> tuple[list[Score], Shown]:
    """Examine filling in: is the thing that was asked for there, and is the rest as it was?"""
    examples = [
        example
        for split in ("train", "test")
        for example in room.examples("inpaint", split, count // 2, want=lambda e: bool(e.truth["asked"]))
    ]
    wholes = [pictures_of(example.messages[1])[0] for example in examples]
    givens = [
        next(item["given"] for item in example.messages[1]["content"] if item["type"] == "image")
        for example in examples
    ]
    made: list[Pixels] = []
    for number, (example, whole, given) in enumerate(zip(examples, wholes, givens, strict=True)):
        (seed,) = room.seeds([number])
        made.append(room.candidate.inpaint(whole, ~given, words_of(example.messages[0]), seed=seed).pixels)
    reals = room.through_codec(wholes)
    others = next_of_same([(shape_of(e), len(e.truth["scenes"][0].things)) for e in examples])
    things = [len(example.truth["scenes"][0].things) for example in examples]
    styles = [example.truth["scenes"][0].style for example in examples]
    views, real_views = (room.judges.view(ones, styles=styles, things=things) for ones in (made, reals))
    scores = []
    for number, example in enumerate(examples):
        keys, thing, seed_text = _thing_keys(example), example.truth["asked"]["thing"], str(number)
        rest, other = _rest(givens[number]), others[number]
        trio = ((views[number], made[number]), (real_views[number], reals[number]), (views[other], made[other]))
        for split, (view, picture) in by_split(keys, *trio):
            scores.append(Score("inpaint/thing", split, keys, view.is_identified(thing, seed=seed_text)))
            if rest.mean() >= SMALLEST_REST:
                is_right = is_unharmed(picture, before=wholes[number], codec=reals[number], rest=rest)
                scores.append(Score("inpaint/unharmed", split, keys, is_right))
    shown = []
    for example, picture in zip(examples, made, strict=True):
        shown += [(pictures_of(example.messages[0])[0], words_of(example.messages[0])), (picture, "-> filled in")]
    return sorted(scores, key=lambda score: score.measure), shown
