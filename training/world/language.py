"""Words for scenes, and scenes from words.

`describe` speaks as people do, in many phrasings and leaving out what was not asked; `caption` speaks as the
model is taught to, in few; `parse` reads both back into slots. A slot is one fact: thing, style, background;
place and size of a single thing; the count of several; the relation of two, and the other one.
"""

import random
import re
from collections.abc import Collection
from functools import cache

from training.world.pack import Concept, concepts, thing_called
from training.world.scene import DRAWN_BACKGROUNDS, PLAIN_BACKGROUNDS, Scene

__all__ = [
    "Slots", "background_phrase", "canonical", "caption", "describe", "find", "name_things", "parse", "place_phrase",
    "sentence", "with_article",
]  # fmt: skip

Slots = dict[str, str | int]

NUMBERS = {"two": 2, "three": 3, "four": 4, "five": 5}
NUMBER_WORDS = {value: word for word, value in NUMBERS.items()}
SIZE_WORDS = {"small": ("small", "little", "tiny"), "big": ("big", "large", "huge"), "medium": ("medium",)}
STYLE_PATTERNS = {"3D": r"3-?d|three[- ]dimensional", "flat": r"flat", "simple": r"simple"}
DRAWN_PHRASES = {  # the first is the model's own
    "sky": ("in the sky", "on a sky background", "with the sky behind"),
    "grass": ("on the grass", "on grass", "on a grass background", "on a meadow"),
    "sea": ("in the sea", "at sea", "on a sea background", "in the ocean"),
    "night": ("at night", "in the night", "on a night background", "in the dark night"),
    "snow": ("in the snow", "on snow", "on a snow background", "in a snowy place"),
}
BACKGROUND_PATTERNS = {
    "sky": r"sky", "grass": r"grass|meadow", "sea": r"sea|ocean", "night": r"night", "snow": r"snow|snowy",
    "gray": r"gray|grey",
}  # fmt: skip
RELATION_PHRASES = {  # the first is the model's own
    "left of": ("to the left of", "left of", "on the left of", "on the left side of"),
    "right of": ("to the right of", "right of", "on the right of", "on the right side of"),
    "above": ("above", "over"),
    "below": ("below", "under", "beneath"),
}
INVERSE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


def name_things(concept: Concept, rng: random.Random | None, *, count: int = 1) -> str:
    """Name a concept, without article; with a generator now and then by one of its other names."""
    if count > 1:
        return concept.plural
    if rng and concept.aliases and rng.random() < 0.15:
        return rng.choice(concept.aliases)
    return concept.name


def with_article(words: str) -> str:
    """Put "a" or "an" before words, as they sound ("a ufo", "an orange")."""
    return f"{'an' if re.match('(?!one )[aeio]|um', words, re.I) else 'a'} {words}"


def sentence(words: str) -> str:
    """Begin words with a capital and end them with a full stop."""
    return f"{words[0].upper()}{words[1:]}."


def place_phrase(place: str, rng: random.Random | None = None) -> str:
    """Say where a single thing is; without a generator as the model itself says it."""
    if place == "center":
        return rng.choice(("in the center", "in the middle")) if rng else "in the center"
    if " " in place:
        forms = ("in the {} corner", "at the {}", "in the {}")
        return (rng.choice(forms) if rng else forms[0]).format(place)
    preposition = "on" if place in ("left", "right") else "at"
    return f"{preposition} the {place}" + (rng.choice(("", "", " side")) if rng and preposition == "on" else "")


def background_phrase(background: str, rng: random.Random | None = None) -> str:
    """Say what is behind the things; without a generator as the model itself says it."""
    if background in DRAWN_PHRASES:
        return rng.choice(DRAWN_PHRASES[background]) if rng else DRAWN_PHRASES[background][0]
    if not rng:
        return f"on a {background} background"
    color = "grey" if background == "gray" and rng.random() < 0.3 else background
    forms = (
        "on a {} background",
        "with a {} background",
        "on {}",
        "against a {} background",
        "on a {} backdrop",
    )
    return rng.choice(forms).format(color)


def _noun(scene: Scene, rng: random.Random | None, said: Collection[str]) -> str:
    """The first thing with its article or number, and what is `said` of size and style as adjectives."""
    concept = thing_called(scene.things[0].concept)
    count = len(scene.things) if scene.layout == "count" else 1
    words = [name_things(concept, rng, count=count)]
    if "style" in said:
        words.insert(0, scene.style)
    if "size" in said and scene.size != "medium":
        words.insert(0, rng.choice(SIZE_WORDS[scene.size]) if rng else scene.size)
    if count == 1:
        return with_article(" ".join(words)) if not rng or rng.random() < 0.97 else f"one {' '.join(words)}"
    number = str(count) if rng and rng.random() < 0.2 else NUMBER_WORDS[count]
    return f"{number} {' '.join(words)}" if "count" in said else f"some {' '.join(words)}"


def _both(scene: Scene, rng: random.Random | None, said: Collection[str]) -> str:
    """The two things of a relation."""
    first = _noun(scene, rng, said)
    second = with_article(name_things(thing_called(scene.things[1].concept), rng))
    if "relation" not in said:
        return f"{first} and {second}"
    if rng and rng.random() < 0.2 and scene.relation in ("left of", "right of"):
        here, there = ("left", "right") if scene.relation == "left of" else ("right", "left")
        return f"{first} on the {here} and {second} on the {there}"
    forms = RELATION_PHRASES[scene.relation]
    return f"{first} {rng.choice(forms) if rng else forms[0]} {second}"


def caption(scene: Scene, said: Collection[str] | None = None) -> str:
    """Describe a scene as the model is taught to: one phrasing, no full stop.

    Args:
        said: the slots to speak of; all of the scene's where it is None.
    """
    said = scene.slots if said is None else said
    words = _both(scene, None, said) if scene.relation else _noun(scene, None, said)
    if "place" in said and scene.place:
        words += f" {place_phrase(scene.place)}"
    return f"{words} {background_phrase(scene.background)}" if "background" in said else words


def describe(
    scene: Scene, rng: random.Random, said: Collection[str] | None = None, *, ground_first: bool = False
) -> str:
    """Describe a scene as people do: many phrasings, no full stop.

    Args:
        said: the slots to speak of; all of the scene's where it is None.
        ground_first: begin with the background, where it is said.
    """
    said = set(scene.slots if said is None else said)
    style = ""
    if "style" in said and rng.random() < 0.5:
        said.remove("style")
        style = rng.choice(("in {} style", "in a {} style", "in the {} style", "drawn in {} style")).format(scene.style)
    words = _both(scene, rng, said) if scene.relation else _noun(scene, rng, said)
    tail = [place_phrase(scene.place, rng)] if "place" in said and scene.place else []
    ground = background_phrase(scene.background, rng) if "background" in said else ""
    tail += [ground] if ground and not ground_first else []
    if style:
        tail.insert(rng.randrange(len(tail) + 1), style)
    words = " ".join([words, *tail]) if rng.random() < 0.9 else ", ".join([words, *tail])
    return f"{ground}, {words}" if ground and ground_first else words


@cache
def _mention_pattern() -> tuple[re.Pattern[str], dict[str, str]]:
    names = {}
    for concept in concepts().values():
        for name in (concept.name, concept.plural, *concept.aliases):
            names[name.lower()] = concept.name
    longest_first = sorted(names, key=len, reverse=True)
    return re.compile(r"\b(" + "|".join(map(re.escape, longest_first)) + r")s?\b"), names


def mentions(text: str) -> tuple[str, list[str]]:
    """Replace each thing named by "@", and list the things."""
    pattern, names = _mention_pattern()
    found = [names[match[1]] for match in pattern.finditer(text)]
    return pattern.sub("@", text), found


def find(text: str, patterns: dict[str, str]) -> str:
    """Return the first value whose pattern occurs in a text as whole words; "" where none does."""
    return next((value for value, pattern in patterns.items() if re.search(rf"\b(?:{pattern})\b", text)), "")


def _relation(text: str) -> tuple[str, str]:
    """Find the relation between two things; gives it and the text without it."""
    for relation, phrases in RELATION_PHRASES.items():
        for phrase in sorted(phrases, key=len, reverse=True):
            if match := re.search(rf"@(.*)\b{phrase}(?= (?:a|an|the) [^@]*@)", text):
                return relation, text[: match.end(1)] + text[match.end() :]
    sides = r"@[^@]*\bon the {}(?: side)?\b[^@]*@[^@]*\bon the {}(?: side)?\b"
    for relation, (first, second) in {"left of": ("left", "right"), "right of": ("right", "left")}.items():
        if re.search(sides.format(first, second), text):
            return relation, re.sub(r"on the (left|right)", "", text)
    return "", text


def _place(text: str) -> str:
    if match := re.search(r"\b(top|upper|bottom|lower)[- ](left|right)\b", text):
        return f"{'top' if match[1] in ('top', 'upper') else 'bottom'} {match[2]}"
    places = {
        "center": "center|centre|middle",
        "left": "left",
        "right": "right",
        "top": "top",
        "bottom": "bottom",
    }
    return find(text, places)


def parse(text: str) -> Slots:
    """Read the slots that a description mentions; what it leaves out is not in the answer.

    A full caption of a single thing that names no size means "medium", so "size" is given with every "place".
    """
    text, things = mentions(text.lower())
    slots: Slots = dict(zip(("thing", "other"), things, strict=False))
    relation, text = _relation(text)
    patterns = {color: color for color in PLAIN_BACKGROUNDS} | {name: name for name in DRAWN_BACKGROUNDS}
    # "A little icon" says how large the picture is.
    sizes = {size: rf"(?:{'|'.join(words)})(?! icon)" for size, words in SIZE_WORDS.items()}
    numbers = {str(value): f"{word}|{value}" for word, value in NUMBERS.items()}
    place = _place(text)
    found = {
        "style": find(text, STYLE_PATTERNS),
        "background": find(text, patterns | BACKGROUND_PATTERNS),
        "relation": relation,
        "place": place,
        "size": find(text, sizes) or ("medium" if place else ""),
    }
    slots |= {slot: value for slot, value in found.items() if value}
    if count := find(re.sub(r"3-?d|three[- ]dimensional", "", text), numbers):
        slots["count"] = int(count)
    return slots


def canonical(slots: Slots) -> Slots:
    """Tell a relation from the left or from above: a picture's slots are the same however it is told."""
    relation, other = slots.get("relation"), slots.get("other")
    if relation not in ("right of", "below") or other is None:
        return slots
    return slots | {"thing": other, "other": slots["thing"], "relation": INVERSE[str(relation)]}
