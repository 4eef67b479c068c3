"""Edits of a scene: the same scene rendered twice, before and after, and what a person says to ask for it.

What an operation does not touch stays exactly where and as it was, so that its pixels are the same.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from training.world.held_out import Key, Split, split_of, split_of_all
from training.world.language import (
    INVERSE,
    NUMBER_WORDS,
    RELATION_PHRASES,
    SIZE_WORDS,
    Slots,
    background_phrase,
    caption,
    place_phrase,
    sentence,
)
from training.world.pack import STYLES, concepts
from training.world.phrases import phrases
from training.world.scene import (
    COUNTS,
    DRAWN_BACKGROUNDS,
    PLACES,
    PLAIN_BACKGROUNDS,
    SIZES,
    USUAL_SPOTS,
    Layout,
    Scene,
    Thing,
    place_things,
    sample_scene,
)

__all__ = ["OPERATIONS", "Edit", "edit_scene", "sample_edit", "thought"]

NUMBERS = {1: "one", **NUMBER_WORDS}


@dataclass(frozen=True)
class Edit:
    """One change.

    Args:
        operation: one of OPERATIONS.
        instruction: the user's sentence.
        asked: the slots that the instruction names, as they are in the result.
    """

    operation: str
    source: Scene
    result: Scene
    instruction: str
    asked: Slots

    @property
    def key(self) -> Key:
        """The combination of the edit itself: operation, thing it is about, style (after a restyling)."""
        about = str(self.asked.get("thing", self.source.things[0].concept))
        return ("edit", self.operation, about, self.result.style)

    @property
    def keys(self) -> tuple[Key, ...]:
        """Every combination that it contains: its own, and those of both scenes."""
        return tuple(dict.fromkeys((self.key, *self.source.keys, *self.result.keys)))


def thought(edit: Edit) -> str:
    """Say what has to be reckoned or named before an edit can be drawn; "" where the instruction says it all.

    How many there will be, what is to be drawn in another style, which of two things goes: the words are easier to find
    than the picture, and the picture then goes by them.
    """
    if edit.operation == "count":
        before, after = (NUMBERS[len(scene.things)] for scene in (edit.source, edit.result))
        return f"There {'is' if before == 'one' else 'are'} {before}, so that makes {after}."
    if edit.operation == "restyle":
        said = caption(edit.result, {"style", "count", "relation"} & set(edit.result.slots))
        return sentence(said)
    if edit.operation in ("remove", "replace") and edit.source.relation:
        return _each_named(edit)
    return ""


def _each_named(edit: Edit) -> str:
    """Say of each of two things, in the order in which they stand, whether it stays, goes or becomes another."""
    relation = edit.source.relation
    places = ("left", "right") if relation in ("left of", "right of") else ("top", "bottom")
    in_order = edit.source.things[:: 1 if relation in ("left of", "above") else -1]
    after = {thing.concept for thing in edit.result.things}
    ends = "goes" if edit.operation == "remove" else f"becomes {concepts()[str(edit.asked['thing'])].one}"
    return sentence(
        ", ".join(
            f"{_one(thing)} {f'stays {place_phrase(place)}' if thing.concept in after else ends}"
            for thing, place in zip(in_order, places, strict=True)
        )
    )


def _one(thing: Thing) -> str:
    return concepts()[thing.concept].one


def _name(thing: Thing) -> str:
    return concepts()[thing.concept].name


def _alone(scene: Scene, index: int) -> Scene:
    """Keep one of the two things of a relation, where it is."""
    relation = scene.relation if index == 0 else INVERSE[scene.relation]
    place = {"left of": "left", "right of": "right", "above": "top", "below": "bottom"}[relation]
    return Scene((scene.things[index],), scene.background, place=place, size="small")


def _add(rng: random.Random, scene: Scene, added: int | None = None) -> Edit:
    added = rng.randrange(2) if added is None else added
    relation = scene.relation if added == 0 else INVERSE[scene.relation]
    new, old = scene.things[added], scene.things[1 - added]
    frame = rng.choice(phrases("add"))
    words = RELATION_PHRASES[relation][0] if rng.random() < 0.6 else rng.choice(RELATION_PHRASES[relation])
    asked: Slots = {"thing": new.concept}
    if "{relation}" in frame:
        asked |= {"relation": relation, "other": old.concept}
    text = frame.format(x=concepts()[new.concept].one, m=_name(old), relation=words)
    return Edit("add", _alone(scene, 1 - added), scene, text, asked)


def _join(rng: random.Random, scene: Scene) -> Edit:
    """Add to a single thing that stands anywhere: both then take the sizes and places of a pair."""
    old = scene.things[0].concept
    new = rng.choice([name for name in concepts() if name != old])
    relation = rng.choice(tuple(INVERSE))
    pair = place_things(rng, names=(new, old), style=scene.style, background=scene.background, relation=relation)
    return replace(_add(rng, pair, 0), source=scene)


def _remove(rng: random.Random, scene: Scene) -> Edit:
    gone = rng.randrange(2)
    text = rng.choice(phrases("remove")).format(n=_name(scene.things[gone]), m=_name(scene.things[1 - gone]))
    return Edit("remove", scene, _alone(scene, 1 - gone), text, {"thing": scene.things[gone].concept})


def _move(rng: random.Random, scene: Scene) -> Edit:
    place = rng.choice([place for place in PLACES if place != scene.place])
    moved = place_things(
        rng, names=(scene.things[0].concept,), style=scene.style, background=scene.background, place=place,
        size=scene.size,
    )  # fmt: skip
    at = place_phrase(place, rng)
    to = at.replace("on the", "to the").replace("at the", "to the").replace("in the", "to the")
    text = rng.choice(phrases("move")).format(n=_name(scene.things[0]), to=to, at=at)
    return Edit("move", scene, moved, text, {"thing": scene.things[0].concept, "place": place})


def _replace(rng: random.Random, scene: Scene) -> Edit:
    index = rng.randrange(len(scene.things)) if scene.relation else 0
    old = scene.things[index]
    new = rng.choice([name for name in concepts() if name not in {thing.concept for thing in scene.things}])
    things = tuple(replace(thing, concept=new) if thing is old else thing for thing in scene.things)
    text = rng.choice(phrases("replace")).format(n=_name(old), x=concepts()[new].one, z=concepts()[old.concept].one)
    return Edit("replace", scene, replace(scene, things=things), text, {"thing": new, "other": old.concept})


def _recolour(rng: random.Random, scene: Scene) -> Edit:
    color = rng.choice([color for color in PLAIN_BACKGROUNDS if color != scene.background])
    text = rng.choice(phrases("recolour")).format(color=color)
    return Edit("recolour", scene, replace(scene, background=color), text, {"background": color})


def _background(rng: random.Random, scene: Scene) -> Edit:
    name = rng.choice([name for name in DRAWN_BACKGROUNDS if name != scene.background])
    ground = background_phrase(name, rng)
    named = scene.layout == "single"
    frame = rng.choice([frame for frame in phrases("background") if named or "{n}" not in frame])
    text = frame.format(n=_name(scene.things[0]), ground=ground, color=name)
    return Edit("background", scene, replace(scene, background=name), text, {"background": name})


def _count(rng: random.Random, scene: Scene) -> Edit:
    concept = concepts()[scene.things[0].concept]
    wanted = rng.choice([count for count in COUNTS if count != len(scene.things)])
    fewer, more = sorted((len(scene.things), wanted))
    full = place_things(
        rng, names=(concept.name,), style=scene.style, background=scene.background, count=more, spots=USUAL_SPOTS[:more]
    )
    few = replace(full, things=full.things[:fewer])
    source, result = (few, full) if wanted == more else (full, few)
    frame = rng.choice(phrases("count"))
    change = wanted - len(scene.things)
    if rng.random() < 0.4:
        frame = rng.choice(phrases("count_more" if change > 0 else "count_less"))
    number = NUMBERS[abs(change)]
    text = frame.format(
        k=NUMBERS[wanted], s=concept.plural,
        more=f"{number} more {concept.plural if change > 1 else concept.name}",
        less=f"{number} {concept.plural if change < -1 else concept.name}",
    )  # fmt: skip
    return Edit("count", source, result, text, {"thing": concept.name, "count": wanted})


def _restyle(rng: random.Random, scene: Scene) -> Edit:
    style = rng.choice([style for style in STYLES if style != scene.style])
    things = tuple(replace(thing, style=style) for thing in scene.things)
    text = rng.choice(phrases("restyle")).format(style=style)
    return Edit("restyle", scene, replace(scene, things=things), text, {"style": style})


def _resize(rng: random.Random, scene: Scene) -> Edit:
    steps = list(SIZES)
    here = steps.index(scene.size)
    there = rng.choice([step for step in range(len(steps)) if step != here])
    if abs(here - there) == 1 and rng.random() < 0.7 or steps[there] == "medium":
        words = "bigger" if there > here else "smaller"
        there = here + (1 if there > here else -1)
    else:
        words = rng.choice(SIZE_WORDS[steps[there]])
    size, name = steps[there], _name(scene.things[0])
    after = replace(scene, things=(replace(scene.things[0], extent=SIZES[size]),), size=size)
    frame = rng.choice(phrases("resize"))
    return Edit("resize", scene, after, frame.format(n=name, bigger=words), {"thing": name, "size": size})


OPERATIONS: dict[str, tuple[Callable[[random.Random, Scene], Edit], tuple[Layout, ...]]] = {
    "add": (_add, ("relation",)),
    "remove": (_remove, ("relation",)),
    "move": (_move, ("single",)),
    "replace": (_replace, ("single", "single", "relation")),
    "recolour": (_recolour, ("single", "single", "relation", "count")),
    "background": (_background, ("single", "single", "relation", "count")),
    "count": (_count, ("count",)),
    "restyle": (_restyle, ("single", "single", "relation", "count")),
    "resize": (_resize, ("single",)),
}


CHAINED: dict[str, Callable[[random.Random, Scene], Edit]] = {  # those that can start from any fitting scene
    "add": _join, "remove": _remove, "move": _move, "replace": _replace, "recolour": _recolour,
    "background": _background, "restyle": _restyle, "resize": _resize, "count": _count,
}  # fmt: skip
BRIEF = 0.35  # of the edits in a conversation


def _briefly(rng: random.Random, edit: Edit) -> str:
    """Ask for it in as few words as people do who go on with what they see: "One more." "Now on the left."

    Gives the instruction itself where few words would not say it.
    """
    source, result, section = edit.source, edit.result, edit.operation
    words: dict[str, object] = dict(edit.asked)
    if section == "count":
        change = len(result.things) - len(source.things)
        words = {"k": NUMBERS[len(result.things)], "number": NUMBERS[abs(change)]}
        section = rng.choice(("count", "more" if change > 0 else "less"))
    elif section == "move":
        words = {"at": place_phrase(result.place, rng)}
    elif section == "background":
        words = {"ground": background_phrase(result.background, rng)}
    elif section == "resize":
        steps = list(SIZES)
        change = steps.index(result.size) - steps.index(source.size)
        if abs(change) > 1:
            return edit.instruction
        words = {"bigger": "bigger" if change > 0 else "smaller"}
    elif section == "remove":
        words = {"n": edit.asked["thing"], "m": _name(result.things[0])}
    elif section == "replace":
        words = {"x": concepts()[str(edit.asked["thing"])].one}
    elif section == "add":
        if "relation" not in edit.asked:
            return edit.instruction
        relation = rng.choice(RELATION_PHRASES[str(edit.asked["relation"])])
        words = {"x": concepts()[str(edit.asked["thing"])].one, "m": edit.asked["other"], "relation": relation}
    return rng.choice(phrases(f"briefly_{section}")).format(**words)


def edit_scene(rng: random.Random, scene: Scene, split: Split) -> Edit | None:
    """Edit a given scene, as in the middle of a conversation, so that the whole edit belongs to `split`.

    Returns None where a few tries find none. Here "add" may move and shrink what was there to make room, and what is
    asked for may be said in few words, by what is seen.
    """
    joinable = {"add": ("single",)}
    fitting = [name for name in CHAINED if scene.layout in joinable.get(name, OPERATIONS[name][1])]
    for _ in range(8):
        edit = CHAINED[rng.choice(fitting)](rng, scene)
        if split_of_all(edit.keys) == split and edit.source == scene:  # of several things, those in the usual spots
            return replace(edit, instruction=_briefly(rng, edit)) if rng.random() < BRIEF else edit
    return None


def sample_edit(rng: random.Random, split: Split = "train", operation: str | None = None, *, own: bool = False) -> Edit:
    """Draw an edit whose combinations belong to `split`, as in sample_scene.

    Args:
        operation: one of OPERATIONS, or any.
        own: the edit's own key, (operation, thing, style), must be of that split too.
    """
    operation = operation or rng.choice(tuple(OPERATIONS))
    make, layouts = OPERATIONS[operation]
    while True:
        scene = sample_scene(rng, None, layout=rng.choice(layouts))
        edit = make(rng, scene)
        if split_of_all(edit.keys) == split and (not own or split_of(*edit.key) == split):
            return edit
