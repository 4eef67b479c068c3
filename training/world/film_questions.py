"""Questions about a film, with their short answers, and the reading of an answer back into its fact."""

import random

from training.world.film_language import act, parse_film, place_noun, verb_forms
from training.world.language import place_phrase
from training.world.motion import Film
from training.world.pack import concepts
from training.world.phrases import phrases
from training.world.questions import Fact, Question, read_answer
from training.world.scene import DRAWN_BACKGROUNDS
from training.world.verbs import VERBS

__all__ = ["ask_film", "read_film_answer"]

TIMES = {1: "once", 2: "twice", 3: "three times", 4: "four times", 5: "five times"}


def _motion(rng: random.Random, film: Film) -> tuple[str, str, Fact]:
    text = rng.choice(phrases("what_motion")).format(n=film.concept)
    return text, f"The {film.concept} {act(film, 'third')}.", film.verb


def _start(rng: random.Random, film: Film) -> tuple[str, str, Fact]:
    text = rng.choice(phrases("film_start")).format(n=film.concept)
    return text, f"The {film.concept} starts {place_phrase(film.start)}.", film.start


def _end(rng: random.Random, film: Film) -> tuple[str, str, Fact]:
    text = rng.choice(phrases("film_end")).format(n=film.concept)
    return text, f"The {film.concept} ends {place_phrase(film.end)}.", film.end


def _hits(rng: random.Random, film: Film) -> tuple[str, str, Fact]:
    text, count = rng.choice(phrases("film_hits")).format(n=film.concept), len(film.impacts)
    return text, f"It hits the ground {TIMES[count]}.", count


def _does_it(rng: random.Random, film: Film) -> tuple[str, str, Fact]:
    singles = [verb for verb in VERBS if verb != "collides"]
    fact = rng.random() < 0.5
    # Whether something that falls also slides down is a matter of words.
    others = [v for v in singles if v != film.verb and {v, film.verb} != {"falls", "slides down"}]
    verb = film.verb if fact else rng.choice(others)
    forms = verb_forms(verb, rng)
    text = rng.choice(phrases("does_it")).format(n=film.concept, b=forms.base, g=forms.gerund)
    word = verb_forms(film.verb).third
    return text, f"Yes, it {word}." if fact else f"No, it {word}.", fact


def _thing(rng: random.Random, film: Film) -> tuple[str, str, Fact]:
    return rng.choice(phrases("who_moves")), f"It is {concepts()[film.concept].one}.", film.concept


def _background(rng: random.Random, film: Film) -> tuple[str, str, Fact]:
    article = "the " if film.background in DRAWN_BACKGROUNDS else ""
    return rng.choice(phrases("what_background")), f"The background is {article}{film.background}.", film.background


def _style(rng: random.Random, film: Film) -> tuple[str, str, Fact]:
    frames = [frame for frame in phrases("which_style") if "picture" not in frame]
    return rng.choice(frames).format(n=film.concept), f"It is in {film.style} style.", film.style


ASK = {
    "motion": _motion, "start": _start, "end": _end, "hits": _hits, "does_it": _does_it, "who_moves": _thing,
    "background": _background, "style": _style,
}  # fmt: skip


def ask_film(rng: random.Random, film: Film) -> Question:
    """Ask something that the film answers."""
    kinds = ["motion", "motion", "background", "style"]
    if len(film.actors) == 1:
        kinds += ["start", "end", "does_it", "does_it", "who_moves"]
        kinds += ["hits"] * 3 if film.impacts else []
    kind = rng.choice(kinds)
    return Question(kind, *ASK[kind](rng, film))


def read_film_answer(kind: str, text: str) -> Fact | None:
    """Read the fact out of an answer to a question of this kind; None where it states none."""
    if kind == "does_it":
        return read_answer("present", text)
    if kind == "hits":
        return next((count for count, words in TIMES.items() if words in text.lower()), None)
    slot = {"motion": "verb", "who_moves": "thing"}.get(kind, kind)
    return parse_film(f"{text} ").get(slot)


def happened(film: Film) -> str:
    """Say what happened in a film, in the past."""
    path = " " in film.verb or film.verb in ("rolls", "falls")
    words = act(film, "past")
    return f"The {film.concept} {words}" + (
        f" from {place_noun(film.start)} to {place_noun(film.end)}." if path else "."
    )
