"""Questions about a picture, with their short answers, and the reading of an answer back into its fact."""

import random
import re
from dataclasses import dataclass

from training.world.language import (
    INVERSE,
    NUMBER_WORDS,
    NUMBERS,
    RELATION_PHRASES,
    parse,
    place_phrase,
)
from training.world.pack import concepts, thing_called
from training.world.phrases import phrases
from training.world.scene import DRAWN_BACKGROUNDS, Scene

__all__ = ["KINDS", "Fact", "Question", "ask", "read_answer"]

Fact = str | int | bool
GROUPS = {"animals": "an animal", "foods": "a food"}
KINDS = {  # what can be asked of each layout; a frequent kind stands there twice
    "single": (
        "thing",
        "group",
        "background",
        "background",
        "count",
        "place",
        "style",
        "size",
        "present",
        "present",
    ),
    "count": ("thing", "group", "background", "count", "count", "style"),
    "relation": ("background", "relation", "relation", "side", "style", "present"),
}


@dataclass(frozen=True)
class Question:
    """One question: its kind (one of KINDS), the words, the answer in words, and the fact in it."""

    kind: str
    text: str
    answer: str
    fact: Fact


def _so(scene: Scene, fact: bool) -> str:
    """Say what is seen, and only then yes or no: what was seen is then compared with what was asked, word by word."""
    seen = [thing_called(thing.concept) for thing in scene.things]
    words = f"They are {seen[0].plural}" if scene.layout == "count" else f"I see {' and '.join(t.one for t in seen)}"
    return f"{words}, so {'yes' if fact else 'no'}."


def _thing(rng: random.Random, scene: Scene) -> tuple[str, str, Fact]:
    concept = thing_called(scene.things[0].concept)
    answer = f"They are {concept.plural}." if scene.layout == "count" else f"It is {concept.one}."
    return rng.choice(phrases("what_thing")), answer, concept.name


def _group(rng: random.Random, scene: Scene) -> tuple[str, str, Fact]:
    group = rng.choice(tuple(GROUPS))
    fact = thing_called(scene.things[0].concept).group == group
    return rng.choice(phrases("what_group")).format(group=GROUPS[group]), _so(scene, fact), fact


def _background(rng: random.Random, scene: Scene) -> tuple[str, str, Fact]:
    frames = [frame for frame in phrases("what_background") if scene.layout == "single" or "it?" not in frame]
    article = "the " if scene.background in DRAWN_BACKGROUNDS else ""
    return rng.choice(frames), f"The background is {article}{scene.background}.", scene.background


def _count(rng: random.Random, scene: Scene) -> tuple[str, str, Fact]:
    concept, count = thing_called(scene.things[0].concept), len(scene.things)
    text = rng.choice(phrases("how_many")).format(s=concept.plural)
    one = f"There is one {concept.name}."
    return text, one if count == 1 else f"There are {NUMBER_WORDS[count]} {concept.plural}.", count


def _place(rng: random.Random, scene: Scene) -> tuple[str, str, Fact]:
    name = scene.things[0].concept
    return (
        rng.choice(phrases("where")).format(n=name),
        f"The {name} is {place_phrase(scene.place)}.",
        scene.place,
    )


def _relation(rng: random.Random, scene: Scene) -> tuple[str, str, Fact]:
    first, second, relation = scene.things[0].concept, scene.things[1].concept, scene.relation
    if rng.random() < 0.5:
        first, second, relation = second, first, INVERSE[relation]
    text = rng.choice([frame for frame in phrases("where") if "{n}" in frame]).format(n=first)
    return text, f"The {first} is {RELATION_PHRASES[relation][0]} the {second}.", relation


def _side(rng: random.Random, scene: Scene) -> tuple[str, str, Fact]:
    first, second, relation = scene.things[0].concept, scene.things[1].concept, scene.relation
    if rng.random() < 0.5:
        first, second, relation = second, first, INVERSE[relation]
    text = rng.choice(phrases("which_side")).format(relation=rng.choice(RELATION_PHRASES[relation]), m=second)
    return text, f"It is {concepts()[first].one}.", first


def _style(rng: random.Random, scene: Scene) -> tuple[str, str, Fact]:
    text = rng.choice(phrases("which_style")).format(n=scene.things[0].concept)
    return text, f"It is in {scene.style} style.", scene.style


def _size(rng: random.Random, scene: Scene) -> tuple[str, str, Fact]:
    name = scene.things[0].concept
    return rng.choice(phrases("how_big")).format(n=name), f"The {name} is {scene.size}.", scene.size


def _present(rng: random.Random, scene: Scene) -> tuple[str, str, Fact]:
    here = {thing.concept for thing in scene.things}
    fact = rng.random() < 0.5
    asked = thing_called(
        rng.choice([thing.concept for thing in scene.things] if fact else [n for n in concepts() if n not in here])
    )
    frames = [
        frame
        for frame in phrases("is_there")
        if scene.layout == "single" or "Is this" not in frame and "Is it" not in frame
    ]
    return rng.choice(frames).format(x=asked.one), _so(scene, fact), fact


_ASK = {
    "thing": _thing, "group": _group, "background": _background, "count": _count, "place": _place,
    "relation": _relation, "side": _side, "style": _style, "size": _size, "present": _present,
}  # fmt: skip


def ask(rng: random.Random, scene: Scene, kind: str = "") -> Question:
    """Ask something that the scene answers.

    Args:
        kind: one of KINDS of its layout; any where it is empty.
    """
    kind = kind or rng.choice([kind for kind in KINDS[scene.layout] if kind != "style" or kind in scene.slots])
    return Question(kind, *_ASK[kind](rng, scene))


def read_answer(kind: str, text: str) -> Fact | None:
    """Read the fact out of an answer to a question of this kind; None where it states none."""
    if kind in ("group", "present"):
        word = re.search(r"\b(yes|no)\b", text.lower())
        return word[1] == "yes" if word else None
    if kind == "count":
        numbers = {"one": 1, **NUMBERS}
        return next((numbers[word] for word in re.findall(r"[a-z]+", text.lower()) if word in numbers), None)
    slot = "thing" if kind == "side" else kind
    return parse(f"{text} ").get(slot)
