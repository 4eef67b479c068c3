"""Questions about a recording, with their short answers, and the reading of an answer back into its fact."""

import random
import re

from training.world.language import with_article
from training.world.notes import INSTRUMENTS, Music, read_notes
from training.world.phrases import phrases
from training.world.questions import Fact, Question
from training.world.sound_classes import CALLED, SOUNDS, Noise
from training.world.sound_language import TIMES, Heard
from training.world.speech import Saying

__all__ = ["ask_heard", "read_heard_answer"]

KINDS = {"speech": "speech", "notes": "music", "sound": "a noise"}
NUMBERS = ("no", "one", "two", "three", "four", "five", "six")
OFTEN = {1: "once"} | TIMES


def _kind_of(heard: Heard) -> str:
    return "speech" if isinstance(heard, Saying) else "notes" if isinstance(heard, Music) else "sound"


def _which_kind(rng: random.Random, heard: Heard) -> tuple[str, Fact]:
    kind = _kind_of(heard)
    return f"It is {KINDS[kind]}.", kind


def _which_instrument(rng: random.Random, heard: Heard) -> tuple[str, Fact]:
    assert isinstance(heard, Music)
    return f"It is {with_article(heard.instrument)}.", heard.instrument


def _how_many_notes(rng: random.Random, heard: Heard) -> tuple[str, Fact]:
    assert isinstance(heard, Music)
    count = len(heard.notes)
    return f"I hear {NUMBERS[count]} {'note' if count == 1 else 'notes'}.", count


def _which_notes(rng: random.Random, heard: Heard) -> tuple[str, Fact]:
    assert isinstance(heard, Music)
    names = " ".join(heard.names)
    return f"They play {names}.", names


def _which_way(rng: random.Random, heard: Heard) -> tuple[str, Fact]:
    assert isinstance(heard, Music)
    return f"The notes go {heard.direction}.", heard.direction


def _who_speaks(rng: random.Random, heard: Heard) -> tuple[str, Fact]:
    assert isinstance(heard, Saying)
    return f"It is a {heard.who}.", heard.who


def _how_often(rng: random.Random, heard: Heard) -> tuple[str, Fact]:
    assert isinstance(heard, Noise)
    return f"I hear it {OFTEN[heard.count]}.", heard.count


ASKING = {
    "which_kind": _which_kind, "which_instrument": _which_instrument, "how_many_notes": _how_many_notes,
    "which_notes": _which_notes, "which_way": _which_way, "who_speaks": _who_speaks, "how_often": _how_often,
}  # fmt: skip


def _is_it(rng: random.Random, heard: Noise) -> Question:
    fact = rng.random() < 0.5
    name = heard.name if fact else rng.choice([name for name in SOUNDS if name not in (heard.name, heard.then)])
    text = rng.choice(phrases("is_it")).format(x=CALLED[name][0])
    own = CALLED[heard.name][0]
    return Question("is_it", text, f"Yes, it is {own}." if fact else f"No, it is {own}.", fact)


def possible_questions(heard: Heard) -> tuple[str, ...]:
    """Name the questions that can be asked about a recording; a frequent one stands there twice."""
    if isinstance(heard, Saying):
        return ("which_kind", "who_speaks", "who_speaks")
    if isinstance(heard, Music):
        way = ("which_way", "which_way") if heard.direction in ("up", "down") and len(heard.notes) > 2 else ()
        return ("which_kind", "which_instrument", "which_instrument", "how_many_notes", "which_notes", *way)
    return ("which_kind", "is_it", "is_it") if heard.then else ("which_kind", "is_it", "is_it", "how_often")


def ask_heard(rng: random.Random, heard: Heard) -> Question:
    """Ask something about a recording."""
    kind = rng.choice(possible_questions(heard))
    if kind == "is_it":
        assert isinstance(heard, Noise)
        return _is_it(rng, heard)
    answer, fact = ASKING[kind](rng, heard)
    return Question(kind, rng.choice(phrases(kind)), answer, fact)


def read_heard_answer(question: Question, text: str) -> Fact | None:
    """Read the fact out of an answer to a question; None where it states none.

    Args:
        question: what was asked; notes are read as the instrument's in its fact only by their names.
        text: the answer.
    """
    text = text.lower()
    if question.kind == "is_it":
        match = re.search(r"\b(yes|no)\b", text)
        return match[1] == "yes" if match else None
    if question.kind == "which_notes":
        found = read_notes(text, next(iter(INSTRUMENTS)))
        wanted = read_notes(f"play {question.fact}", next(iter(INSTRUMENTS)))
        return question.fact if found == wanted else None
    options: dict[str, Fact] = {
        "which_kind": {words: kind for kind, words in KINDS.items()},
        "which_instrument": {name: name for name in INSTRUMENTS},
        "how_many_notes": {word: count for count, word in enumerate(NUMBERS) if count},
        "which_way": {"up": "up", "down": "down"},
        "who_speaks": {"woman": "woman", "man": "man"},
        "how_often": {words: count for count, words in OFTEN.items()},
    }[question.kind]  # type: ignore[assignment]
    return next((fact for words, fact in options.items() if re.search(rf"\b{words}\b", text)), None)
