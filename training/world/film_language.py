"""Words for films, and films from words; see `language`, which does the same for pictures.

A film has the slots thing, style, background and verb; start and end of a single thing, or the other one.
"""

import random
import re
from collections.abc import Collection
from typing import Literal, NamedTuple

from training.world.language import Slots, background_phrase, find, name_things, parse, place_phrase, with_article
from training.world.motion import Film
from training.world.pack import concepts
from training.world.phrases import phrases
from training.world.scene import PLACES

__all__ = ["Form", "act", "describe_film", "film_caption", "parse_film", "place_noun", "starts_at", "verb_forms"]

Form = Literal["base", "third", "gerund", "past"]
PATH_SLOTS = ("start", "end")
DIRECTIONS = {  # the first is the model's own
    "left": ("left", "to the left", "towards the left"),
    "right": ("right", "to the right", "towards the right"),
    "up": ("up", "upwards", "straight up"),
    "down": ("down", "downwards", "straight down"),
}
STILL = "spins grows shrinks shakes fades".split()
PLACE_PATTERN = (
    r"(?:top|upper|bottom|lower)[- ](?:left|right)(?: corner)?|center|centre|middle|left(?: side)?|right(?: side)?"
    r"|top|bottom"
)
VERB_PATTERNS = {  # in the order in which they are tried
    "orbits": r"orbit\w*|in a circle|circl\w+ around",
    "collides": r"collid\w+|bump\w*|crash\w*|r[au]n(?:s|ning)? into",
    "bounces": r"bounc\w+|hop(?:s|ping|ped)?|jump\w* up and down",
    "falls": r"fall\w*|fell|drop\w*",
    "rolls": r"roll\w*|tumbl\w+",
    "spins": r"spin\w*|spun|rotat\w+|turn\w* around|whirl\w*",
    "grows": r"grow\w*|grew|(?:get|gets|getting|got|become|becomes|becoming|became) (?:bigger|big)",
    "shrinks": r"shrink\w*|shrank|(?:get|gets|getting|got|become|becomes|becoming|became) (?:very )?(?:smaller|small)",
    "shakes": r"shak\w+|shook|trembl\w+|shiver\w*|wobbl\w+",
    "fades": r"fad\w+|disappear\w*|vanish\w*",
}
SLIDE = (
    r"(?:slid\w*|mov(?:e|es|ing|ed)|glid\w+|drift\w*|travel\w*|go|goes|going|went|r[au]n|runs|running|walk\w*"
    r"|driv\w+|drove|fly|flies|flying|flew)"
)
DIRECTION_PATTERNS = {name: rf"{SLIDE} (?:(?:to|towards) the )?(?:straight )?{name}(?:wards)?" for name in DIRECTIONS}


class VerbForms(NamedTuple):
    """One way to say a verb."""

    base: str
    third: str
    gerund: str
    past: str


def verb_forms(verb: str, rng: random.Random | None = None) -> VerbForms:
    """Say a verb; without a generator as the model itself says it."""
    stem, _, direction = verb.partition(" ")
    lines = phrases(f"verb_{stem}")
    forms = (rng.choice(lines) if rng else lines[0]).split(" | ")
    if direction:
        word = rng.choice(DIRECTIONS[direction]) if rng else direction
        forms = [f"{form} {word}" for form in forms]
    return VerbForms(*forms)


def place_noun(place: str) -> str:
    """Name a place: "the left", "the top left corner"."""
    return f"the {place} corner" if " " in place else f"the {place}"


def starts_at(verb: str) -> str:
    """Tell where a verb begins that says nothing of its place."""
    return {
        "slides left": "right", "slides right": "left", "slides up": "bottom", "slides down": "top", "falls": "top",
        "bounces": "top", "rolls": "left", "orbits": "top",
    }.get(verb, "center")  # fmt: skip


def path_phrase(film: Film, rng: random.Random | None = None) -> str:
    """Say where the thing begins and ends."""
    if film.verb == "orbits":
        return f"from {place_noun(film.start)}"
    if film.start == film.end and film.verb in (*STILL, "bounces"):
        return place_phrase(film.start, rng)
    return f"from {place_noun(film.start)} to {place_noun(film.end)}"


def act(film: Film, form: Form, rng: random.Random | None = None, *, path: bool = False) -> str:
    """Say what happens, without who does it: "slides left from the right to the left"."""
    words = getattr(verb_forms(film.verb, rng), form)
    if film.verb == "collides":
        return f"{words} {with_article(name_things(concepts()[film.actors[1].concept], rng))}"
    if not path:
        return str(words)
    if rng and " " in film.verb and film.start != film.end and rng.random() < 0.4:
        words = words.split()[0]  # the path says in which direction
    return f"{words} {path_phrase(film, rng)}"


def film_caption(film: Film, said: Collection[str] | None = None, *, form: Form = "third") -> str:
    """Describe a film as the model is taught to: one phrasing, no full stop.

    Args:
        said: the slots to speak of; all of the film's where it is None.
        form: "third" for a clause, "gerund" for a noun phrase.
    """
    said = film.slots if said is None else said
    noun = f"{film.style} {film.concept}" if "style" in said else film.concept
    words = f"{with_article(noun)} {act(film, form, path='start' in said)}"
    return f"{words} {background_phrase(film.background)}" if "background" in said else words


def describe_film(film: Film, rng: random.Random, said: Collection[str] | None = None, *, form: Form) -> str:
    """Describe a film as people do: many phrasings, no full stop; see `film_caption`."""
    said = set(film.slots if said is None else said)
    noun = name_things(concepts()[film.concept], rng)
    style = ""
    if "style" in said and rng.random() < 0.6:
        noun = f"{film.style} {noun}"
    elif "style" in said:
        style = rng.choice(("in {} style", "in a {} style", "in the {} style", "drawn in {} style")).format(film.style)
    verb = act(film, form, rng, path="start" in said)
    if form == "gerund" and rng.random() < 0.25:
        verb = f"that {act(film, 'third', rng, path='start' in said)}"
    ground = background_phrase(film.background, rng) if "background" in said else ""
    noun = with_article(noun)
    if ground and rng.random() < 0.25 and (form == "third" or not ground.startswith("with")):
        noun, ground = (f"{noun} {ground}", "")
    tail = [words for words in (ground, style) if words]
    rng.shuffle(tail)
    return " ".join([noun, verb, *tail])


def _verb(text: str) -> str:
    if verb := find(text, VERB_PATTERNS):
        return verb
    if direction := find(text, DIRECTION_PATTERNS):
        return f"slides {direction}"
    if re.search(rf"\b{SLIDE}\b", text):
        start, end = _path(text)
        return f"slides {_direction(start, end)}" if start and end and start != end else ""
    return ""


def _direction(start: str, end: str) -> str:
    down, across = (b - a for a, b in zip(PLACES[start], PLACES[end], strict=True))
    if across:
        return "left" if across < 0 else "right"
    return "up" if down < 0 else "down"


def _place(words: str) -> str:
    words = words.replace("upper", "top").replace("lower", "bottom").replace("-", " ")
    words = words.replace("centre", "center").replace("middle", "center")
    return words.removesuffix(" corner").removesuffix(" side")


def _path(text: str) -> tuple[str, str]:
    """Find start and end; "" where they are not told."""
    if match := re.search(rf"\bfrom the ({PLACE_PATTERN})\b(?: to the ({PLACE_PATTERN})\b)?", text):
        start = _place(match[1])
        return start, _place(match[2]) if match[2] else start
    if match := re.search(rf"\b(?:in|on|at) the ({PLACE_PATTERN})\b", text):
        return _place(match[1]), _place(match[1])
    return "", ""


def parse_film(text: str) -> Slots:
    """Read the slots that a description of a film mentions; what it leaves out is not in the answer."""
    slots = {slot: value for slot, value in parse(text).items() if slot in ("thing", "other", "style", "background")}
    text = text.lower()
    verb = _verb(text)
    if verb:
        slots["verb"] = verb
    if verb != "collides":
        slots.pop("other", None)
        start, end = _path(text)
        slots |= {slot: place for slot, place in zip(PATH_SLOTS, (start, end), strict=True) if place}
    return slots
