"""Exams whose answer is a picture: drawing and editing."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.exams.room import (
    Pixels,
    Room,
    by_split,
    collect,
    next_of_same,
    own_again,
    pictures_of,
    shape_of,
    with_of_real,
    words_of,
)
from training.judges.templates import relation_between
from training.judges.views import View
from training.scores import Score
from training.world.conversation import Example
from training.world.edits import Edit
from training.world.held_out import Key

# Drawing.

Rule = Callable[[View, dict[str, Any], str], bool]


def _is_related(view: View, asked: dict[str, Any], seed: str) -> bool:
    pair = view.pair(asked["thing"], asked["other"])
    return pair is not None and relation_between(*pair) == asked["relation"]


def _has_style(view: View, asked: dict[str, Any], seed: str) -> bool:
    return bool(view.sight.things) and all(thing.style == asked["style"] for thing in view.sight.things)


def _first(attribute: str) -> Rule:
    def is_right(view: View, asked: dict[str, Any], seed: str) -> bool:
        return bool(view.sight.things) and getattr(view.sight.things[0], attribute) == asked[attribute]

    return is_right


# measure -> the slot of the request that it judges, and how.
DRAWING_RULES: dict[str, tuple[str, Rule]] = {
    "background": ("background", lambda view, asked, seed: view.sight.background == asked["background"]),
    "place": ("place", _first("place")),
    "count": ("count", lambda view, asked, seed: len(view.sight.things) == asked["count"]),
    "thing": ("thing", lambda view, asked, seed: view.is_identified(asked["thing"], seed=seed)),
    "thing_template": ("thing", lambda view, asked, seed: view.is_matched(asked["thing"])),
    "other": ("other", lambda view, asked, seed: view.is_identified(asked["other"], seed=seed)),
    "relation": ("relation", _is_related),
    "size": ("size", _first("size")),
    "style": ("style", _has_style),
}
# Combinations that count for a measure; the others may hold none of their own, and go by all that was asked.
OWN_KEYS = {"background": "background", "count": "count", "thing": "style", "thing_template": "style",
            "relation": "relation", "style": "style"}  # fmt: skip


def asked_keys(example: Example, measure: str) -> tuple[Key, ...]:
    """Return the combinations that decide whether a measure's score counts as seen or unseen."""
    asked, scene = example.truth["asked"], example.truth["scenes"][0]
    keys = tuple(key for key in scene.keys if key[0] in asked)
    own = [key for key in keys if key[0] == OWN_KEYS.get(measure)]
    if measure in ("thing", "thing_template"):
        own = [key for key in own if key[1] == asked["thing"]]
    # A thing whose style was left open is asked for by its name alone.
    return tuple(own) if own else keys if measure not in OWN_KEYS else (("thing", asked["thing"]),)


def draw(room: Room, examples: Sequence[Example]) -> list[Pixels]:
    """Let the candidate draw what is asked for."""
    drawn: dict[int, Pixels] = {}
    for batch in room.batches([shape_of(example) for example in examples], label="draw"):
        prompts = [words_of(examples[number].messages[0]) for number in batch]
        images = room.candidate.image(prompts, size=shape_of(examples[batch[0]]), seed=room.seeds(batch))
        drawn |= {number: image.pixels for number, image in zip(batch, images, strict=True)}
    return collect(drawn)


def _views(room: Room, examples: Sequence[Example], pictures: Sequence[Pixels], *, real: bool) -> list[View]:
    scenes = [example.truth["scenes"][0] for example in examples]
    styles = [
        scene.style if real else example.truth["asked"].get("style", "")
        for scene, example in zip(scenes, examples, strict=True)
    ]
    return room.judges.view(pictures, styles=styles, things=[2 if scene.relation else 1 for scene in scenes])


def judge_drawings(room: Room, examples: Sequence[Example], drawn: Sequence[Pixels]) -> Iterator[Score]:
    """Score drawings, the real pictures in their place, and the drawings against other requests."""
    reals = room.through_codec([pictures_of(example.messages[1])[0] for example in examples])
    views = _views(room, examples, drawn, real=False)
    real_views = _views(room, examples, reals, real=True)
    for measure, (slot, rule) in DRAWING_RULES.items():
        numbers = [number for number, example in enumerate(examples) if slot in example.truth["asked"]]
        others = next_of_same([""] * len(numbers))
        for number, other in zip(numbers, others, strict=True):
            asked, name, seed = examples[number].truth["asked"], f"text_to_image/{measure}", str(number)
            keys = asked_keys(examples[number], measure)
            trio = by_split(keys, views[number], real_views[number], views[numbers[other]])
            scores = [Score(name, split, keys, rule(view, asked, seed)) for split, view in trio]
            if measure != "thing":
                yield from scores
                continue
            yield from with_of_real(scores)
            scene = examples[number].truth["scenes"][0]
            yield from own_again(scores, scene.size or scene.layout)


def text_to_image(room: Room, count: int) -> tuple[list[Score], list[tuple[Pixels, str]]]:
    """Examine drawing: half of the requests hold a combination that training never saw.

    Returns:
        The scores, and every picture with its prompt.
    """
    examples = [
        example
        for split in ("train", "test")
        for example in room.examples("text_to_image", split, count // 2, want=lambda e: "thing" in e.truth["asked"])
    ]
    drawn = draw(room, examples)
    prompts = [words_of(example.messages[0]) for example in examples]
    return list(judge_drawings(room, examples, drawn)), list(zip(drawn, prompts, strict=True))


# Editing.

# How near to a changed pixel the codec may move others, in pixels.
EDGE = 4
# Less of a picture than this share says nothing about the rest of it.
SMALLEST_REST = 0.05
# The rest is unharmed where its mean error is at most this many times the codec's own, and 2 of 255 on top.
HARM_FACTOR, HARM_MARGIN = 1.5, 2.0


def is_changed(view: View, edit: Edit) -> bool:
    """Tell whether the change that was asked for is to be seen."""
    sight, asked, operation = view.sight, edit.asked, edit.operation
    names = [thing.concept for thing in sight.things]
    if operation in ("recolour", "background"):
        return sight.background == asked["background"]
    if operation == "count":
        return len(names) == asked["count"]
    if operation == "restyle":
        return bool(names) and sight.things[0].style == asked["style"]
    if operation == "resize":
        return len(names) == 1 and sight.things[0].size == asked["size"]
    if operation == "move":
        return len(names) == 1 and sight.things[0].place == asked["place"]
    if operation == "remove":
        return len(names) == 1 and asked["thing"] not in names
    if operation == "replace":
        return asked["thing"] in names and asked["other"] not in names
    assert operation == "add", f"no rule for {operation!r}"
    if len(names) != 2 or asked["thing"] not in names:
        return False
    new = sight.things[names.index(asked["thing"])]
    old = sight.things[1 - names.index(asked["thing"])]
    return "relation" not in asked or relation_between(new, old) == asked["relation"]


def untouched(before: Pixels, after: Pixels) -> NDArray[np.bool_]:
    """Mark the pixels that an edit leaves as they are, away from those it changes; [H, W]."""
    changed = np.pad((before != after).any(axis=-1), EDGE)
    side = 2 * EDGE + 1
    return ~np.lib.stride_tricks.sliding_window_view(changed, (side, side)).any(axis=(2, 3))


def is_unharmed(picture: Pixels, *, before: Pixels, codec: Pixels, rest: NDArray[np.bool_]) -> bool:
    """Tell whether the rest of an edited picture is as it was, within the codec's own error.

    Args:
        picture: what the model made of it.
        before: what it was given.
        codec: what the codec alone makes of that.
        rest: the pixels that the edit leaves alone.
    """
    error, own = (np.abs(one[rest].astype(float) - before[rest]).mean() for one in (picture, codec))
    return bool(error <= HARM_FACTOR * own + HARM_MARGIN)


def _edited(room: Room, examples: Sequence[Example]) -> list[Pixels]:
    edited: dict[int, Pixels] = {}
    for batch in room.batches([shape_of(example) for example in examples], label="edit"):
        befores = [pictures_of(examples[number].messages[0])[0] for number in batch]
        instructions = [words_of(examples[number].messages[0]) for number in batch]
        images = room.candidate.edit(befores, instructions, seed=room.seeds(batch))
        edited |= {number: image.pixels for number, image in zip(batch, images, strict=True)}
    return collect(edited)


def _view_all(room: Room, pictures: Sequence[Pixels]) -> list[View]:
    return room.judges.view(pictures, styles=[""] * len(pictures), things=[0] * len(pictures))


def judge_edits(room: Room, examples: Sequence[Example], edited: Sequence[Pixels]) -> Iterator[Score]:
    """Score edits, real results in their place, and the edits against other instructions of their kind."""
    befores = [pictures_of(example.messages[0])[0] for example in examples]
    afters = [pictures_of(example.messages[1])[0] for example in examples]
    codecs, reals = room.through_codec(befores), room.through_codec(afters)
    views, real_views = _view_all(room, edited), _view_all(room, reals)
    others = next_of_same([(example.truth["edit"].operation, shape_of(example)) for example in examples])
    for number, example in enumerate(examples):
        edit: Edit = example.truth["edit"]
        keys, other, rest = (edit.key,), others[number], untouched(befores[number], afters[number])
        trio = ((views[number], edited[number]), (real_views[number], reals[number]), (views[other], edited[other]))
        for split, (view, picture) in by_split(keys, *trio):
            found = {"changed": is_changed(view, edit)}
            if rest.mean() >= SMALLEST_REST:
                found["unharmed"] = is_unharmed(picture, before=befores[number], codec=codecs[number], rest=rest)
            for name, is_right in found.items():
                yield Score(f"edit/{name}", split, keys, is_right)
                yield Score(f"edit/{name}_{edit.operation}", split, keys, is_right)


def edit(room: Room, count: int) -> tuple[list[Score], list[tuple[Pixels, str]]]:
    """Examine editing, as `text_to_image` examines drawing."""
    examples = [
        example
        for split in ("train", "test")
        for example in room.examples("edit", split, count // 2, want=lambda e: True)
    ]
    edited = _edited(room, examples)
    shown = []
    for example, picture in zip(examples, edited, strict=True):
        shown.append((pictures_of(example.messages[0])[0], words_of(example.messages[0])))
        shown.append((picture, "-> edited"))
    return list(judge_edits(room, examples, edited)), shown
